"""Grids that wait to be carried out: rows of a database, taken by workers on any machine that sees the store."""
