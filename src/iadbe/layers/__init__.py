"""Building blocks that several detectors share: each a function or a small module."""
