"""Gaussians, kernel density estimates and principal components of features."""
