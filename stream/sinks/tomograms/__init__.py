"""What is kept of tomograms: a record each, label volumes, and coordinates for other programs."""
