"""A shelf: one file, one of the datasets; the file's name is its name."""
