"""Denoising of particle images by a cascade of autoencoders (CDAE), and their grouping into 2-D classes."""
