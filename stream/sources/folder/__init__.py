"""A watched folder as a source: which files are complete, which are done, and why the others wait."""
