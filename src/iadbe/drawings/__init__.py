"""A shelf: one file, one of the parts that can be drawn; the file's name is its name."""
