"""The drawn parts of the toy dataset: one file each; the file's name is the category's name."""
