"""Where picks go: the coordinate files of other programs, particles and candidates in HDF5, and the session's tables."""
