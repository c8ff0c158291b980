"""IADBE, the Industrial Anomaly Detection Benchmark Engine.

Which detector finds the defects in these images best, by how much, at what cost, and how sure are we?
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

# public name -> its module, which is imported on first use, so that `import iadbe` stays quick
_PUBLIC = {
    "train": "api",
    "test": "api",
    "predict": "api",
    "benchmark": "api",
    "load": "api",
    "calibrate": "api",
    "export": "api",
    "verify": "runtime.verification",
    "watch": "watching.watch",
    "drift": "watching.drift",
    "accept": "acceptance.accept",
    "update": "acceptance.update",
    "Detector": "detector",
    "Backbone": "detector",
    "Batch": "detector",
    "predict_parts": "api",
    "Images": "detector",
    "View": "detector",
    "Dataset": "dataset",
    "Setting": "setting",
    "Metric": "metric",
    "RunSpec": "types",
    "RunResult": "types",
    "Prediction": "types",
    "Sample": "types",
}
__all__ = ["__version__", *_PUBLIC]

# import paths of version 0.1 that plug-ins use -> present paths
_MOVED = {"iadbe.images": "iadbe.data.images", "iadbe.backbone": "iadbe.networks.backbone"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'iadbe' has no attribute {name!r}")
    return getattr(import_module(f"iadbe.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _MovedModules:
    """Finds a module under the name that it had in version 0.1: both names give the same module."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return spec_from_loader(name, self) if name in _MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Let the import system make the module that :meth:`exec_module` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(_MOVED[module.__name__])


sys.meta_path.append(_MovedModules())
