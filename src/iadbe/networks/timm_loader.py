"""Imports timm without torch's compiler, which takes as long to import as everything else of timm together.

``import timm`` imports ``torch._dynamo`` for two reasons: torchvision imports a function of it, and timm marks a few
functions of NaFlexViT as not to be compiled. Neither needs the compiler before something is compiled. So while timm is
imported, stand-ins take the place of the two modules; they load the real ones at the first use.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from iadbe.networks import vision_gnn

COMPILER = ("torch._dynamo", "torch._dynamo.utils")


def load_timm() -> Any:
    """Return the package timm, which then knows the networks of ours too."""
    timm = _imported()
    vision_gnn.register(timm)
    return timm


def _imported() -> Any:
    if "timm" in sys.modules or COMPILER[0] in sys.modules:
        return importlib.import_module("timm")
    importlib.import_module("torch")
    package, utils = (_StandIn(name) for name in COMPILER)
    package.__path__ = []  # a package
    vars(package)["disable"] = _disable
    vars(utils)["is_compile_supported"] = _is_compile_supported
    sys.modules.update({COMPILER[0]: package, COMPILER[1]: utils})
    try:
        return importlib.import_module("timm")
    finally:
        _remove_stand_ins()


class _StandIn(ModuleType):
    """Stands for a module until one of its attributes is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for these
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


def _remove_stand_ins() -> None:
    for name in COMPILER:
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _real(name: str) -> Any:
    _remove_stand_ins()
    return importlib.import_module(name)


def _is_compile_supported(*args: Any) -> Any:
    return _real(COMPILER[1]).is_compile_supported(*args)


def _disable(function: Callable[..., Any], recursive: bool = True, **options: Any) -> Callable[..., Any]:
    """Return ``function`` marked as not to be compiled; it is marked when it is first called."""

    @functools.wraps(function)
    def marked(*args: Any, **kwargs: Any) -> Any:
        if COMPILER[0] not in sys.modules:  # nothing can be compiling
            return function(*args, **kwargs)
        return _real(COMPILER[0]).disable(function, recursive, **options)(*args, **kwargs)

    return marked
