"""Executors: where runs are carried out. One file is one executor."""
