"""The map of the packages as a test: which may import which, and how large files and functions may grow."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import iadbe

ROOT = Path(iadbe.__file__).parent
TESTS = Path(__file__).parent
MAP = TESTS.parent / "ARCHITECTURE.md"
pytestmark = pytest.mark.skipif(not MAP.is_file(), reason="there is no ARCHITECTURE.md here")


def layers():
    """Return the rows of the table in ARCHITECTURE.md: imports go only from a row to itself or to rows above it."""
    rows = [r for r in MAP.read_text(encoding="utf-8").splitlines() if r.startswith("| `")] if MAP.is_file() else []
    return [re.findall(r"`(\w+)`", row.split("|")[1]) for row in rows]


LAYERS = layers()
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
PACKAGES_WITH_GROUPS = {"layers"}  # the only package with sub-packages
ROOT_FILES = 20
OUTSIDE = {"dataset", "datasets", "setting", "settings", "metric", "metrics", "running"}
SEEING = {"networks", "detector", "detectors"}
FORBIDDEN = {package: OUTSIDE for package in ("detectors", "layers", "networks")}
PURE = ("settings", "setting", "metrics", "metric", "curves", "datasets", "dataset")
FORBIDDEN |= {package: SEEING for package in PURE}
WITH_TORCH = {"exporting", "networks", "layers", "detector", "detectors", "environment", "api", "executors"}
WITH_TORCH_FILES = {  # in packages that otherwise import no torch at module level
    *("data/images.py", "evaluation/measure.py"),
    *(
        f"running/{n}.py"
        for n in (
            "artifacts",
            "distillation",
            "federation",
            "flower",
            "inference",
            "latency",
            "model_folder",
            "prediction",
            "run",
            "tiled_detector",
            "tiles_in_graphs",
            "timing_table",
        )
    ),
}
UNCLEAR = set(  # words with which no identifier of the field is made: an image is no picture, a registry no shelf
    re.findall(
        r"\w+",
        "picture pictures house room door shelf shelves corridor keepsake keepsakes told tell tells say says said "
        "wish wishes news nobody who whose farness likeness company usual fence heard looked riddle stranger",
    )
)
OLD_NAMES = {("types.py", "pictures"), ("web/predict.py", "pictures")}  # still read
FILES = sorted(p for p in ROOT.rglob("*.py"))


def package(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def edges(path, *, top_only=False):
    """Yield the packages, and modules of the root, that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "iadbe":
            yield from (a.name for a in node.names if a.name in LEVEL)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("iadbe."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("iadbe."))


def identifiers(path):
    """Yield every name that a file defines: modules, classes, functions, parameters, variables and attributes."""
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def words(name):
    """Return the words of an identifier, in lower case: ``_NearestHouse`` has ``nearest`` and ``house``."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def functions(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
class TestEveryFile:
    def test_its_package_is_on_the_map(self, path):
        assert package(path) in LEVEL or package(path).startswith("__")

    def test_it_imports_only_from_its_own_row_and_rows_above(self, path):
        here = package(path)
        if not here.startswith("__"):
            assert not [b for b in edges(path) if LEVEL[b] > LEVEL[here]]

    def test_no_forbidden_import(self, path):
        assert not set(edges(path)) & FORBIDDEN.get(package(path), set())

    def test_budgets(self, path):
        assert path.read_text(encoding="utf-8").count("\n") <= 400
        assert not [(n, lines) for n, lines in functions(path) if lines > 60]
        assert len(path.relative_to(ROOT).parts) <= 2 + (package(path) in PACKAGES_WITH_GROUPS)

    def test_it_has_a_mirror(self, path):
        if path.name in ("__init__.py", "__main__.py"):
            return
        assert (TESTS / path.relative_to(ROOT).parent / f"test_{path.name}").is_file()

    def test_detectors_do_not_know_one_another(self, path):
        if package(path) in ("detectors", "settings", "metrics", "datasets") and path.name != "__init__.py":
            assert package(path) not in set(edges(path))

    def test_where_torch_is_not_needed_it_is_not_imported(self, path):
        if package(path) not in WITH_TORCH and path.relative_to(ROOT).as_posix() not in WITH_TORCH_FILES:
            tops = ast.parse(path.read_text(encoding="utf-8")).body
            names = {a.name for n in tops if isinstance(n, ast.Import) for a in n.names}
            names |= {n.module for n in tops if isinstance(n, ast.ImportFrom)}
            assert not {n for n in names if n and n.split(".")[0] in ("torch", "timm")}

    def test_no_forbidden_word(self, path):
        assert path.stem not in {"utils", "helpers", "common", "manager", "base"}

    def test_every_name_is_a_word_of_the_field(self, path):
        file = path.relative_to(ROOT).as_posix()
        unclear = {n for n in identifiers(path) if words(n) & UNCLEAR and (file, n) not in OLD_NAMES}
        assert not unclear, "name what it is or does, in the words of the papers"


def test_every_package_and_module_on_the_map_is_there():
    there = {package(path) for path in FILES}
    assert set(LEVEL) == {name for name in there if not name.startswith("__")}


def test_the_tables_of_contributing_name_every_building_block_and_only_files_that_exist():
    text = (MAP.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2] for line in text.splitlines() if line.startswith("| ") and "| file in" not in line]
    named = set(re.findall(r"`([\w/]+\w(?:\.py)?)`", " ".join(rows)))
    layers = {p.relative_to(ROOT / "layers").with_suffix("").as_posix() for p in (ROOT / "layers").rglob("*.py")}
    assert {n for n in layers if not n.endswith("__init__")} == {n for n in named if "/" in n and not n.endswith(".py")}
    assert not [n for n in named if n.endswith(".py") and not (ROOT / n).is_file()]


def test_the_root_stays_small():
    assert len(list(ROOT.glob("*.py"))) <= ROOT_FILES


def test_no_cycles():
    graph = {}
    for path in FILES:
        here = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for other in edges(path):
            if other != package(path):
                graph.setdefault(here.split(".")[0], set()).add(other)
    list(graphlib.TopologicalSorter(graph).static_order())


def test_every_test_mirrors_a_file_or_is_a_law():
    free = {"test_architecture.py", "test_readme.py"}
    for path in TESTS.rglob("test_*.py"):
        relative = path.relative_to(TESTS)
        if relative.parts[0] == "laws" or relative.name in free:
            continue
        assert (ROOT / relative.parent / relative.name.removeprefix("test_")).is_file(), relative


def cpu_seconds(*arguments):
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "use = resource.getrusage(resource.RUSAGE_CHILDREN); print(use.ru_utime + use.ru_stime)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout)


STANDARD = "argparse, ast, csv, importlib.metadata, inspect, json, logging, pathlib, typing"  # a tenth of a second


def times_the_standard_library(*arguments):
    """Return a command's CPU time divided by that of importing parts of the standard library, so on any machine.

    Of each the least of three: what the code needs, not what the machine was busy with.
    """
    pairs = [(cpu_seconds(*arguments), cpu_seconds(sys.executable, "-c", f"import {STANDARD}")) for _ in range(3)]
    own, standard = map(min, zip(*pairs, strict=True))
    return own / standard


def test_help_is_quick():
    assert times_the_standard_library(sys.executable, "-m", "iadbe", "--help") < 3


def test_import_is_quick_and_light():
    code = "import iadbe, sys; assert not {'torch', 'numpy', 'rich'} & set(sys.modules)"
    assert times_the_standard_library(sys.executable, "-c", code) < 3
