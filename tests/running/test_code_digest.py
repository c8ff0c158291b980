import sys
from dataclasses import replace

import pytest

from fake_results import result
from iadbe import registry
from iadbe.errors import BadDetector
from iadbe.running import code_digest, plan
from iadbe.seeds import run_id

SOURCE = '''"""Mine."""
from iadbe.detector import Detector
from digest_helper import power


class Mine(Detector):
    """My own."""

    def fit(self, train, rng):
        pass

    def predict(self, batch):
        return power(batch)
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "digest_mine.py").write_text(SOURCE)
    (tmp_path / "digest_helper.py").write_text("def power(x):\n    return x\n")
    registry.trust("digest_mine:Mine", "digest_package.inner.model:Mine")
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("digest_")]:
        del sys.modules[name]


def test_comments_and_docstrings_do_not_count(here):
    first = code_digest.of_class("digest_mine:Mine")
    (here / "digest_mine.py").write_text("# new\n" + SOURCE.replace("My own.", "Quite my own."))
    assert code_digest.of_class("digest_mine:Mine") == first
    (here / "digest_mine.py").write_text(SOURCE.replace("power(batch)", "power(batch) + 1"))
    assert code_digest.of_class("digest_mine:Mine") != first
    assert 0 < first < 2**53


def test_every_version_of_python_finds_the_same_digest(here):
    """Since 3.12 functions and classes have another empty field, and since 3.13 empty fields are left out."""
    (here / "digest_fixed.py").write_text("class A:\n    def f(self):\n        return [], {}, print(1)\n")
    assert code_digest.of_class("digest_fixed:A") == 369066804655945


def test_a_byte_order_mark_does_not_count(here):
    first = code_digest.of_class("digest_mine:Mine")
    (here / "digest_mine.py").write_text(SOURCE, encoding="utf-8-sig")
    assert code_digest.of_class("digest_mine:Mine") == first


def test_what_it_imports_of_its_own_counts(here):
    first = code_digest.of_class("digest_mine:Mine")
    (here / "digest_helper.py").write_text("def power(x):\n    return x * x\n")
    assert code_digest.of_class("digest_mine:Mine") != first


def test_packages_count_with_their_relative_imports(here):
    inner = here / "digest_package/inner"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").touch()
    (inner / "__init__.py").touch()
    (inner.parent / "shared.py").write_text("X = 1\n")
    (inner / "model.py").write_text("from ..shared import X\n\n\nclass Mine:\n    x = X\n")
    first = code_digest.of_class("digest_package.inner.model:Mine")
    (inner.parent / "shared.py").write_text("X = 2\n")
    assert code_digest.of_class("digest_package.inner.model:Mine") != first


def test_what_a_package_gives_at_its_top_counts(here):
    package = here / "digest_package/inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("from .deep import X\n")
    (package.parent / "deep.py").write_text("X = 1\n")
    (package / "__init__.py").touch()
    for line in ("from digest_package import X", "from .. import X", "import digest_package\nX = digest_package.X"):
        (package / "model.py").write_text(f"{line}\n\n\nclass Mine:\n    x = X\n")
        (package.parent / "deep.py").write_text("X = 1\n")
        first = code_digest.of_class("digest_package.inner.model:Mine")
        (package.parent / "deep.py").write_text("X = 2\n")
        assert code_digest.of_class("digest_package.inner.model:Mine") != first


def test_packages_beside_a_module_count(here):
    package = here / "digest_parts"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "power.py").write_text("from digest_parts.root import power\n")
    (package / "root.py").write_text("def power(x):\n    return x\n")
    (here / "digest_mine.py").write_text(SOURCE.replace("digest_helper", "digest_parts.power"))
    first = code_digest.of_class("digest_mine:Mine")
    (package / "root.py").write_text("def power(x):\n    return -x\n")
    assert code_digest.of_class("digest_mine:Mine") != first


def test_a_file_may_state_its_encoding_and_a_damaged_one_is_named(here):
    (here / "digest_helper.py").write_bytes(
        "# -*- coding: latin-1 -*-\ndef power(x):\n    return 'ü'\n".encode("latin-1")
    )
    first = code_digest.of_class("digest_mine:Mine")
    (here / "digest_helper.py").write_bytes(
        "# -*- coding: latin-1 -*-\ndef power(x):\n    return 'ö'\n".encode("latin-1")
    )
    assert code_digest.of_class("digest_mine:Mine") != first
    (here / "digest_helper.py").write_text("def power(x)\n")
    with pytest.raises(BadDetector, match=r"digest_helper\.py, line 1: "):
        code_digest.of_class("digest_mine:Mine")


def test_the_source_of_an_installed_plug_in_is_told_when_it_changes(here, monkeypatch):
    monkeypatch.setattr(registry, "class_of_plugin", lambda kind, name: "digest_mine:Mine" if name == "mine" else "")
    first = code_digest.of_detector("mine")
    assert first == code_digest.of_class("digest_mine:Mine") != 0
    (here / "digest_helper.py").write_text("def power(x):\n    return x * x\n")
    run = replace(result("mine"), environment={"source": first})
    (sentence,) = code_digest.changed([run])
    assert sentence.startswith("the source of mine has changed since 1 of 1 stored runs")


def test_edited_code_is_another_run(here):
    grid = {"detectors": ["digest_mine:Mine"], "data": [{"name": "toy", "categories": ["metal"]}]}
    (first,) = plan.expand(grid).runs
    assert run_id(plan.expand(grid).runs[0]) == run_id(first)
    (here / "digest_mine.py").write_text(SOURCE.replace("power(batch)", "power(batch) + 1"))
    (second,) = plan.expand(grid).runs
    assert run_id(second) != run_id(first)
    (built_in,) = plan.expand({**grid, "detectors": ["padim"]}).runs
    assert set(built_in.versions) == {"detector", "dataset", "setting", *built_in.metrics}


def test_a_changed_file_of_the_registry_is_told():
    now = code_digest.of_detector("padim")
    assert now > 0
    same, other, older = (result("padim", environment={"source": source}) for source in (now, now + 1, 0))
    unknown = replace(same, environment={})
    assert code_digest.changed([same, older, unknown]) == []
    (sentence,) = code_digest.changed([same, other, result("dfm", error="x")])
    assert sentence.startswith("the source of padim has changed since 1 of 2 stored runs")
    assert code_digest.of_detector("nothing") == 0


def test_training_depends_on_the_detector_and_on_what_all_detectors_share(monkeypatch, tmp_path):
    assert code_digest.of_training("stfpm") == code_digest.of_training("stfpm") != code_digest.of_training("fre")
    for name in ("data", "layers", "networks", "detectors"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(code_digest.registry, "__file__", str(tmp_path / "registry.py"))
    first = code_digest.of_training("fre")
    (tmp_path / "layers" / "loss.py").write_text("x = 1")
    assert code_digest.of_training("fre") != first
