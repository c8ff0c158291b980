"""Devices differ: mps has no float64, so what needs it is computed on the CPU there. No such device is needed here."""

import ast
from pathlib import Path

import pytest

import iadbe

ROOT = Path(iadbe.__file__).parent
ON_THE_CPU = {  # functions whose callers see to it
    ("layers/memory_bank/nearest_neighbours.py", "_reduce"): "called where points are not on mps",
    ("layers/memory_bank/nearest_neighbours.py", "_principal_axes"): "called where points are not on mps",
    ("layers/synthetic/poisson.py", "_sines"): "called by solve, which is called where images are not on mps",
    ("layers/features/region.py", "_mean_of_highest_counted"): "called where a graph is exported, on the CPU",
    ("detectors/msflow.py", "_top_score_of_what_counts"): "the same; elsewhere it returns before",
    ("layers/statistics/pca.py", "_centred"): "called by pca, which moves rows to the CPU",
}
PLAIN = "reference_"  # the plain algorithm, which tests compare with


def functions_with_float64():
    for folder in ("layers", "detectors", "networks", "running", "evaluation"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, (ast.FunctionDef, ast.Lambda)) and uses_float64(node):
                    name = getattr(node, "name", "lambda")
                    yield pytest.param(path.relative_to(ROOT).as_posix(), name, node, id=f"{path.stem}-{name}")


def uses_float64(function):
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.float64", "torch.double"):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "double":
            return True
    return False


@pytest.mark.parametrize(("file", "name", "function"), list(functions_with_float64()))
def test_float64_is_on_the_cpu_where_the_device_may_be_mps(file, name, function):
    if (file, name) in ON_THE_CPU or name.startswith(PLAIN):
        return
    constants = {node.value for node in ast.walk(function) if isinstance(node, ast.Constant)}
    moved = any(isinstance(n, ast.Attribute) and n.attr == "cpu" for n in ast.walk(function))
    made_here = not any(isinstance(n, ast.keyword) and n.arg == "device" for n in ast.walk(function))
    converts = any(isinstance(n, ast.Attribute) and n.attr == "double" for n in ast.walk(function))
    assert "mps" in constants or moved or (made_here and not converts), f"{file}: {name} needs float64 on any device"


def test_every_exception_is_needed():
    found = {(p.values[0], p.values[1]) for p in functions_with_float64()}
    assert not set(ON_THE_CPU) - found
