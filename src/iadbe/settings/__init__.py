"""The settings: one file each; the file's name is the setting's name."""
