"""A shelf: one file, one of the detectors; the file's name is its name."""
