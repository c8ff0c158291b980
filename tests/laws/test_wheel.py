"""A wheel: built from a copy of the source tree, it holds what the package needs beside its modules."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PREFIX = "iadbe/networks/pdn_s"
DATA = (".csv", ".txt", ".jinja", ".css", ".js", ".svg", ".json", ".safetensors")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    setuptools = pytest.importorskip("setuptools", reason="setuptools, which builds wheels, is not installed")
    if int(setuptools.__version__.partition(".")[0]) < 77:
        pytest.skip(f"pyproject.toml asks for setuptools 77 or newer, not {setuptools.__version__}")
    copy = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    built = subprocess.run([sys.executable, "-c", code, "out"], cwd=copy, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (file,) = (copy / "out").glob("*.whl")
    with zipfile.ZipFile(file) as opened:
        yield opened


def test_it_holds_every_file_of_the_source_tree(wheel):
    source = ROOT / "src"
    wanted = {p.relative_to(source).as_posix() for p in (source / "iadbe").rglob("*") if p.suffix in (".py", *DATA)}
    assert wanted <= set(wheel.namelist())


def test_it_holds_efficientads_teacher_with_its_checksum(wheel):
    content = wheel.read(f"{PREFIX}.safetensors")
    assert len(content) < 15e6
    assert hashlib.sha256(content).hexdigest() == json.loads(wheel.read(f"{PREFIX}.json"))["sha256"]
