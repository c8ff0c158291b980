"""Frozen backbones: weights, inference engines, and the store of their features."""
