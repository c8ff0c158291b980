"""CONTRIBUTING.md: its example runs, its table names every module of layers/, and what it imports is public."""

import ast
import importlib.util
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import iadbe
from drawn_images import images, parts
from iadbe import registry
from iadbe.data.images import View

ROOT = Path(iadbe.__file__).parent
TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
ROWS = re.findall(r"^\| [^|*]+ \| `([a-z_]+/[a-z_]+)` \| [^|]+ \| (.+) \|$", TEXT, re.MULTILINE)
MODULES = {p.relative_to(ROOT / "layers").with_suffix("").as_posix() for p in (ROOT / "layers").glob("*/*.py")}
MODULES = {m for m in MODULES if not m.endswith("__init__")}
PUBLIC = {"iadbe", *(f"iadbe.{n}" for n in ("detector", "dataset", "setting", "metric", "types", "errors"))}


def imported(code):
    """Yield the modules that code imports from."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_module_of_layers_is_in_the_table_once():
    named = [module for module, _ in ROWS]
    assert len(named) == len(set(named))
    assert set(named) == MODULES


@pytest.mark.parametrize(("module", "users"), ROWS)
def test_the_users_that_the_table_names_use_the_module(module, users):
    users = re.findall(r"`([a-z_/0-9]+)`", users)
    assert users
    for user in users:
        path = ROOT / ("layers" if "/" in user else "detectors") / f"{user}.py"
        assert f"iadbe.layers.{module.replace('/', '.')}" in set(imported(path.read_text(encoding="utf-8"))), user


def test_the_import_paths_that_the_text_calls_public_exist():
    listed = set(re.findall(r"`(iadbe\.[a-z_.]+)`", TEXT[TEXT.index("## Public import paths") :].split("\n## ")[0]))
    assert PUBLIC - {"iadbe"} <= listed
    for name in listed - {"iadbe.train", "iadbe.__all__"}:
        assert importlib.util.find_spec(name), name
    assert {"train", "Detector"} <= set(iadbe.__all__)


def test_examples_import_public_paths_only():
    assert EXAMPLES
    for example in EXAMPLES:
        assert {m for m in imported(example) if m.startswith("iadbe")} <= PUBLIC


def test_the_example_detector_runs(monkeypatch):
    module = types.ModuleType("mean_image")
    monkeypatch.setitem(sys.modules, "mean_image", module)  # where the class finds itself
    exec(compile(EXAMPLES[0], "mean_image.py", "exec"), vars(module))
    detector = module.MeanImage(power=2.0)
    detector.view = View(64)
    train, test = images(parts(6), View(64)), images(parts(3, seed=1), View(64))
    detector.fit(train, np.random.default_rng(0))
    batch = next(test.batches(3))
    found = detector.predict(batch)
    mean = torch.cat([b.image for b in train.batches()]).mean(0)
    torch.testing.assert_close(found.map, (batch.image - mean).square().mean(1))
    torch.testing.assert_close(found.score, found.map.amax((1, 2)))


def test_the_card_of_the_example_is_read_from_its_source(monkeypatch, tmp_path):
    (tmp_path / "example_of_contributing.py").write_text(EXAMPLES[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_trusted", set())
    registry.trust("example_of_contributing:MeanImage")
    card = registry.card("detectors", "example_of_contributing:MeanImage")
    assert (card.summary, card.get("kind"), card.get("can")) == (
        "Distance to the mean image.",
        "baseline",
        frozenset({"localise"}),
    )
    assert [(p.name, p.default, p.doc) for p in card.parameters] == [("power", 2.0, "exponent of the difference")]
