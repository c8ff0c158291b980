"""A shelf: one file, one of the settings; the file's name is its name."""
