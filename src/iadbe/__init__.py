"""IADBE, the Industrial Anomaly Detection Benchmark Engine.

Which detector finds the defects in these pictures best, by how much, at what cost, and how sure are we?
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# public name -> the room it lives in; imported on first use, so that `import iadbe` stays quick
_PUBLIC = {
    "train": "api",
    "test": "api",
    "predict": "api",
    "benchmark": "api",
    "load": "api",
    "calibrate": "api",
    "Detector": "detector",
    "Dataset": "dataset",
    "Setting": "setting",
    "Metric": "metric",
    "RunSpec": "types",
    "RunResult": "types",
    "Prediction": "types",
    "Sample": "types",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'iadbe' has no attribute {name!r}")
    return getattr(import_module(f"iadbe.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
