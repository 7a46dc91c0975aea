"""beamsieve sieves what a beam brings, while it runs: detector streams and micrographs in, hit rates and HDF5 out."""

__version__ = "0.1.0"
