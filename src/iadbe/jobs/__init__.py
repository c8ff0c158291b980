"""The job queue: grids in a database, carried out by workers on any machine that shares the store."""
