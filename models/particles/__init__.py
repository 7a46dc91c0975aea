"""Particles in micrographs: DeepEM, its dense scan, the micrograph simulator, training and evaluation."""
