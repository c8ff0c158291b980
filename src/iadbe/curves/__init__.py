"""Curves that all threshold-free metrics share, and how papers' code computes them."""
