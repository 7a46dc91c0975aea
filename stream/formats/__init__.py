"""File formats, read and written with every number checked: micrographs, movies, their metadata, coordinates."""
