"""A shelf: one file, one of the metrics; the file's name is its name."""
