"""Digests of source code, so that results of edited code are told from results of the code as it was.

Comments, the words of docstrings and layout do not count: the digest is of the syntax tree, the same in every version
of Python.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iadbe import registry
from iadbe.errors import BadDetector
from iadbe.types import RunResult

DIGITS = 13  # hexadecimal ones: the number fits a double, so that it survives JSON anywhere


def of_class(name: str) -> int:
    """Return the digest of a class ``module:Class``: its file, and the files that it imports of its own package.

    A module without a package may import modules and packages beside it: they count too.
    """
    module = name.partition(":")[0]
    found = _file_of(module)
    if found is None:
        return 0
    files: dict[Path, None] = {}
    _collect(module, found, None if "." in module or found.name == "__init__.py" else found.parent, files)
    return _digest(sorted(files, key=lambda file: file.name))


def of_detector(name: str) -> int:
    """Return the digest of a detector's file, of a plug-in also of what it imports; 0 where it is not known."""
    name = registry.class_of_plugin("detectors", name) or name
    if ":" in name:
        return of_class(name)
    file = Path(registry.__file__).parent / "detectors" / f"{name}.py"
    return _digest([file]) if file.is_file() else 0


def of_training(name: str) -> int:
    """Return the digest of all source that decides the numbers of a detector's training, comments included."""
    root = Path(registry.__file__).parent
    files = (file for folder in ("data", "layers", "networks") for file in (root / folder).rglob("*.py"))
    found = hashlib.sha256(str(of_detector(name)).encode())
    for file in sorted(files):
        found.update(file.read_bytes())
    return int(found.hexdigest()[:DIGITS], 16)


def changed(results: list[RunResult]) -> list[str]:
    """Return a sentence for each detector whose file has changed since some of its stored runs, in the same version."""
    sentences = []
    for name in dict.fromkeys(r.spec.detector for r in results if not r.error):
        now = of_detector(name)
        own = [r for r in results if r.spec.detector == name and not r.error]
        old = [r for r in own if r.environment.get("source") not in (None, 0, now)]
        if old and now:
            sentences.append(
                f"the source of {name} has changed since {len(old)} of {len(own)} stored runs, and its version has "
                "not: they are kept. `iadbe train --force` or `iadbe results remove` runs them anew."
            )
    return sentences


def _collect(module: str, file: Path, folder: Path | None, files: dict[Path, None]) -> None:
    """Add a file and what it imports of its own package, or of its folder, to ``files``."""
    if file in files:
        return
    files[file] = None
    package = module.partition(".")[0]
    for imported in _imports(module, file):
        first = imported.partition(".")[0]
        beside = folder is not None and any((folder / end).is_file() for end in (f"{first}.py", f"{first}/__init__.py"))
        if not beside and first != package:
            continue
        parts = imported.split(".")
        for name in (".".join(parts[:n]) for n in range(1, len(parts) + 1)):  # a package's __init__ runs first
            if (other := _file_of(name)) is not None:
                _collect(name, other, folder, files)


def _imports(module: str, file: Path) -> Iterator[str]:
    """Yield the absolute names of all modules that a file may import."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _file_of(module: str) -> Path | None:
    """Return the source file of a module, or None for what is no Python module."""
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # whatever a package may do when it is imported; it is told when the class is
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _tree(file: Path) -> ast.Module:
    """Return the syntax tree of a file in whatever encoding it states."""
    try:
        return ast.parse(file.read_bytes())
    except SyntaxError as error:
        raise BadDetector(f"{file}, line {error.lineno}: {error.msg}.") from error


def _digest(files: list[Path]) -> int:
    found = hashlib.sha256()
    for file in files:
        tree = _tree(file)
        for text in filter(None, (_docstring(node) for node in ast.walk(tree))):
            text.value = ""
        found.update(_dumped(tree).encode())
    return int(found.hexdigest()[:DIGITS], 16)


def _dumped(tree: ast.Module) -> str:
    """Return a syntax tree as Python 3.11 writes it: 3.12 has one more field, and 3.13 leaves empty ones out."""
    empty: dict[str, Any] = {"show_empty": True} if sys.version_info >= (3, 13) else {}
    return ast.dump(tree, **empty).replace(", type_params=[]", "")


def _docstring(node: ast.AST) -> ast.Constant | None:
    """Return the docstring of a node, or a text that stands alone at its beginning; None without one."""
    body = getattr(node, "body", None)
    first = body[0].value if isinstance(body, list) and body and isinstance(body[0], ast.Expr) else None
    return first if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
