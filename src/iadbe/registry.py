"""The folder is the registry: ``detectors/padim.py`` with one public class *is* the detector ``padim``.

Names and cards are read from the source text, so listing a registry imports nothing (in particular not torch).
Plug-ins join a registry through the entry-point group ``iadbe.<registry>``.

Any other class is named ``module:Class``. Such a name runs code, so it counts only where users have written it
themselves (command line, Python) or have trusted it: see :func:`trust`. A name that a file holds (a saved model, a
stored result, a grid) is refused before anything is imported. A weight file that could run code when it is read (a
pickle of another tool) is likewise read only if the user has trusted it: :func:`trust`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from iadbe import system
from iadbe.errors import BadConfig, BadDetector, UnknownName, did_you_mean

REGISTRIES = ("detectors", "datasets", "settings", "metrics")
CONTRACTS = {  # registry -> the class that everything in it inherits from
    "detectors": ("iadbe.detector", "Detector"),
    "datasets": ("iadbe.dataset", "Dataset"),
    "settings": ("iadbe.setting", "Setting"),
    "metrics": ("iadbe.metric", "Metric"),
    "executors": ("iadbe.running.executor", "Executor"),
    "drawings": ("iadbe.drawing", "Drawing"),
}
CLASS_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
ROW = re.compile(rf"(image|pixel)_(?P<name>{CLASS_NAME.pattern})([.@].*)?")  # of a metric: image_my.code:Mean@5%
SHARED = "configure"  # method of a contract whose parameters every class of its registry takes
FILE_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")  # of a trusted weight file: another file in its place is not trusted
_trusted: set[str] = set()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a registered class, as its source declares it."""

    name: str
    annotation: str  # the source text of the type, for example "tuple[int, ...]"
    default: Any
    required: bool = False
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """The metadata of a class, read without importing it."""

    name: str
    registry: str
    summary: str  # first sentence of the module
    doc: str  # the module's docstring
    attributes: Mapping[str, Any] = field(default_factory=dict)  # literal class attributes: paper, year, needs, can …
    parameters: tuple[Parameter, ...] = ()

    def get(self, attribute: str, default: Any = None) -> Any:
        """Return a class attribute, or ``default`` where the class does not write it."""
        return self.attributes.get(attribute, default)


@cache
def names(registry: str) -> tuple[str, ...]:
    """Return the names in a registry, without importing any of its files."""
    folder = Path(__file__).parent / registry
    own = {m.name for m in pkgutil.iter_modules([str(folder)]) if not m.name.startswith("_")}
    return tuple(sorted(own | set(_plugins(registry))))


def trust(*class_names: str) -> None:
    """Allow classes outside the registries, named ``module:Class``, and weight files in this process.

    A file is given by its path, or as ``sha256:`` and its digest, as :func:`trusted` returns it. Call it only with
    names that the user has typed, never with names that were read from a file.
    """
    for name in class_names:
        if CLASS_NAME.fullmatch(name) or FILE_DIGEST.fullmatch(name):
            _trusted.add(name)
        elif system.user_path(name).is_file():
            _trusted.add(_content_name(system.user_path(name).read_bytes()))
        else:
            raise BadConfig(
                f"{name!r} is neither a class, written as package.module:Class, nor a weight file that is there."
            )


def is_trusted_content(content: bytes) -> bool:
    """Return whether :func:`trust` has allowed a weight file with this content, wherever it lies."""
    return _content_name(content) in _trusted


def _content_name(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def trust_written(values: Iterable[Any]) -> None:
    """Trust the classes among ``values``, also in a metric's row name; other values are left for later checks."""
    for value in values:
        if isinstance(value, str) and CLASS_NAME.fullmatch(value):
            trust(value)
        if isinstance(value, str) and (row := ROW.fullmatch(value)):
            trust(row["name"])


def trusted() -> tuple[str, ...]:
    """Return what :func:`trust` has allowed: classes, and digests of weight files."""
    return tuple(sorted(_trusted))


def check(registry: str, name: str) -> str:
    """Return ``name`` if the registry has it, or if it is a trusted class.

    Raises :class:`UnknownName` for other names, with the names close to it. Nothing is imported.
    """
    if name in names(registry) or name in _trusted:
        return name
    if ":" in name:
        raise UnknownName(
            f"{name!r} is a class outside the registries, and importing it runs its code. A file may name it only "
            f"if you trust it: add --trust {name}, or in Python trust=[{name!r}]."
        )
    raise UnknownName(
        f"no {registry[:-1]} is named {name!r}.{did_you_mean(name, names(registry))} See `iadbe list {registry}`."
    )


def load(registry: str, name: str) -> type:
    """Import one module of a registry and return its only public class.

    Raises :class:`UnknownName` for a name that :func:`check` refuses, :class:`BadConfig` for a class from elsewhere
    that does not inherit from the registry's contract.
    """
    check(registry, name)
    if name in (plugins := _plugins(registry)):
        return _of_contract(registry, name, plugins[name].load())
    if ":" in name:
        return _of_contract(registry, name, _user_class(name))
    module = importlib.import_module(f"iadbe.{registry}.{name}")
    found = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    public = [c for c in found if not c.__name__.startswith("_")]
    if len(public) != 1:
        raise BadDetector(f"{module.__name__} must define one public class, not {len(public)}.")
    return public[0]


@cache
def card(registry: str, name: str) -> Card:
    """Read a class's card from its source: module docstring, literal class attributes, parameters of ``__init__``."""
    check(registry, name)
    path, class_name = _source(registry, name)
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:  # an unknown encoding, too
        raise BadDetector(f"{path}, line {error.lineno}: {error.msg}.") from error
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    found = next((c for c in classes if class_name in (None, c.name)), None)
    if found is None and class_name:
        near = did_you_mean(class_name, (c.name for c in classes))
        raise UnknownName(f"{path} has no class {class_name!r}.{near}")
    if found is None:
        raise BadDetector(f"{path.name} must define one public class.")
    doc = ast.get_docstring(tree) or ast.get_docstring(found) or ""
    attributes = {**_attributes(_contract(registry)), **_attributes(found)}
    if inherited := _attributes(_contract(registry)).get("renamed"):
        attributes["renamed"] = {**inherited, **attributes["renamed"]}
    shared = _parameters(_contract(registry), SHARED)
    if shared:  # parameters that came later than a class of the registry: without them it does what it did
        attributes["added"] = {**{p.name: p.default for p in shared}, **attributes.get("added", {})}
    parameters = (*_parameters(found), *shared)
    return Card(name, registry, doc.split("\n\n")[0].replace("\n", " "), doc, attributes, parameters)


def class_of_plugin(registry: str, name: str) -> str:
    """Return the class ``module:Class`` that an installed package has put into a registry; "" for other names."""
    return _plugins(registry)[name].value if name in _plugins(registry) else ""


@cache
def _plugins(registry: str) -> dict[str, EntryPoint]:
    return {e.name: e for e in _all_plugins().select(group=f"iadbe.{registry}")}


@cache
def _all_plugins() -> Any:
    """Look through all installed packages, which takes a while, once."""
    return entry_points()


def _of_contract(registry: str, name: str, found: Any) -> type:
    module, attribute = CONTRACTS[registry]
    contract = getattr(importlib.import_module(module), attribute)
    if not (isinstance(found, type) and issubclass(found, contract)):
        what = f"a class that inherits from {module}.{attribute}"
        raise BadConfig(f"{name!r} is not a {registry[:-1]}: it must be {what}.")
    return found


def _user_class(name: str) -> type:
    module, _, attribute = name.partition(":")
    _add_current_folder()
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownName(f"{name!r} cannot be imported: {error}. Write it as package.module:Class.") from error
    except Exception as error:  # whatever a file may do when it is imported
        raise BadDetector(f"{name!r} cannot be imported: {type(error).__name__}: {error}.") from error
    if not isinstance(found, type):
        raise UnknownName(f"{name!r} is not a class but {type(found).__name__}. Write it as package.module:Class.")
    return found


def _add_current_folder() -> None:
    """Make modules of the current folder importable, as ``python -m`` does; installed packages come first."""
    if (here := os.getcwd()) not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _source(registry: str, name: str) -> tuple[Path, str | None]:
    target = _plugins(registry)[name].value if name in _plugins(registry) else name
    if ":" not in target:
        return Path(__file__).parent / registry / f"{target}.py", None
    module, _, class_name = target.partition(":")
    _add_current_folder()
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise UnknownName(f"{target!r} cannot be found: there is no module {module}. Write it as package.module:Class.")
    return Path(spec.origin), class_name


@cache
def _contract(registry: str) -> ast.ClassDef:
    """Return the contract's class: its attributes are the defaults of every card of the registry."""
    tree = ast.parse((Path(__file__).parent / f"{registry[:-1]}.py").read_text(encoding="utf-8"))
    wanted = registry[:-1].capitalize()
    return next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == wanted)


def _attributes(found: ast.ClassDef) -> dict[str, Any]:
    pairs = {}
    for node in found.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name):
                pairs[target.id] = _literal(node.value)
    return {k: v for k, v in pairs.items() if v is not _UNREADABLE}


_UNREADABLE = object()


def _literal(node: ast.expr) -> Any:
    """Evaluate a literal; ``frozenset({...})`` counts as one."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "frozenset":
        return frozenset(ast.literal_eval(node.args[0])) if node.args else frozenset()
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _UNREADABLE


def _parameters(found: ast.ClassDef, method: str = "__init__") -> tuple[Parameter, ...]:
    """Read the parameters of a method; for ``__init__``, the annotated fields where the class is a dataclass."""
    init = next((n for n in found.body if isinstance(n, ast.FunctionDef) and n.name == method), None)
    if init is None and method != "__init__":
        return ()
    if init is None:
        if not any("dataclass" in ast.unparse(d) for d in found.decorator_list):
            return ()
        docs = _argument_docs(ast.get_docstring(found) or "")
        fields = [n for n in found.body if isinstance(n, ast.AnnAssign) and "ClassVar" not in ast.unparse(n.annotation)]
        named = [(ast.unparse(n.target), n) for n in fields]
        return tuple(_parameter(name, n.annotation, n.value, docs.get(name, "")) for name, n in named)
    docs = _argument_docs(ast.get_docstring(init) or ast.get_docstring(found) or "")
    args, defaults = init.args.args[1:], init.args.defaults
    padded = [None] * (len(args) - len(defaults)) + list(defaults)
    pairs = [*zip(args, padded, strict=True), *zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)]
    return tuple(_parameter(a.arg, a.annotation, d, docs.get(a.arg, "")) for a, d in pairs)


def _parameter(name: str, annotation: ast.expr | None, default: ast.expr | None, doc: str) -> Parameter:
    value = None if default is None else _literal(default)
    if value is _UNREADABLE:
        raise BadConfig(f"the default of the parameter {name!r} must be a literal.")
    return Parameter(name, ast.unparse(annotation) if annotation else "str", value, default is None, doc)


def _argument_docs(doc: str) -> dict[str, str]:
    """Read the ``Args:`` block of a docstring: ``name: what it is``, continued on deeper lines."""
    found: dict[str, str] = {}
    _, _, block = doc.partition("Args:\n")
    indent, last = None, ""
    for line in block.splitlines():
        depth = len(line) - len(line.lstrip())
        indent = depth if indent is None else indent
        if not line.strip() or depth < indent:
            break
        head, colon, rest = line.strip().partition(": ")
        if depth == indent and colon:
            found[last := head] = rest
        elif last:
            found[last] += " " + line.strip()
    return found
