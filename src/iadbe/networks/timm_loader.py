"""Imports timm without torch's compiler, which takes as long to import as everything else of timm together.

``import timm`` imports ``torch._dynamo`` for two reasons: torchvision imports a function of it, and timm marks a few
functions of NaFlexViT as not to be compiled. Neither needs the compiler before something is compiled. So while timm is
imported, stand-ins take the place of the two modules; they load the real ones at the first use of anything else, be it
an attribute or another module of the compiler, as other versions of torch, torchvision and timm may want.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

from iadbe.networks import vision_gnn

COMPILER = ("torch._dynamo", "torch._dynamo.utils")


def load_timm() -> Any:
    """Return the package timm, which then knows the networks of ours too."""
    timm = _imported()
    vision_gnn.register(timm)
    return timm


def _imported() -> Any:
    importlib.import_module("torch")
    if "timm" in sys.modules or COMPILER[0] in sys.modules:
        return importlib.import_module("timm")
    package, utils = (_StandIn(name) for name in COMPILER)
    package.__path__ = []  # a package
    vars(package)["disable"] = _disable
    vars(utils)["is_compile_supported"] = _is_compile_supported
    sys.modules.update({COMPILER[0]: package, COMPILER[1]: utils})
    finder = _OtherModules()
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module("timm")
    finally:
        sys.meta_path.remove(finder)
        _remove_stand_ins()


class _StandIn(ModuleType):
    """Stands for a module until one of its attributes is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for these
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


class _OtherModules(MetaPathFinder, Loader):
    """Finds the compiler's modules that no stand-in stands for: those of the real compiler."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return where a module is whose package is a stand-in; None for any other."""
        if name.startswith(f"{COMPILER[0]}.") and isinstance(sys.modules.get(COMPILER[0]), _StandIn):
            return ModuleSpec(name, self)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the real module."""
        _real(COMPILER[0])
        found = importlib.import_module(spec.name)
        self._own = found.__spec__
        return found

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module has been executed."""
        module.__spec__ = self._own


def _remove_stand_ins() -> None:
    for name in COMPILER:
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _real(name: str) -> Any:
    _remove_stand_ins()
    return importlib.import_module(name)


def _is_compile_supported(*args: Any) -> Any:
    return _real(COMPILER[1]).is_compile_supported(*args)


def _disable(function: Any = None, recursive: bool = True, **options: Any) -> Any:
    """Return ``function`` marked as not to be compiled; it is marked when it is first called.

    Without a function it returns what marks one. Classes, modules and other objects are left to the compiler.
    """
    if function is None:
        return functools.partial(_disable, recursive=recursive, **options)
    if not isinstance(function, FunctionType):
        return _real(COMPILER[0]).disable(function, recursive, **options)

    @functools.wraps(function)
    def marked(*args: Any, **kwargs: Any) -> Any:
        if COMPILER[0] not in sys.modules:  # nothing can be compiling
            return function(*args, **kwargs)
        return _real(COMPILER[0]).disable(function, recursive, **options)(*args, **kwargs)

    return marked
