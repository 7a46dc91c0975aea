"""Tomograms: sub-volumes picked without a template, encoded, grouped, and the groups segmented (Zeng et al. 2018)."""
