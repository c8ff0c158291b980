"""Bricks that several detectors share: each a function or a small module with one meaning."""
