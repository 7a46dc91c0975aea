"""Where picks go: files of other programs, candidates and particles in HDF5, and the tables of a session."""
