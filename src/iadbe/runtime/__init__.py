"""Runs exported detectors: NumPy, Pillow and an inference runtime; neither torch nor timm."""
