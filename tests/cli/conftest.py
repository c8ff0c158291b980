"""A small workspace for the command line: folders of little images, and a store with two finished runs."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

import iadbe as iadbe_package
from iadbe.cli import main
from part_images import draw_mvtec, draw_parts


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """Folders ``parts`` and ``mvtec``, and a store with models of padim and dfkde, both fitted on mvtec."""
    root = tmp_path_factory.mktemp("workspace")
    draw_parts(root / "parts")
    draw_mvtec(root / "mvtec")
    (root / "grid.yaml").write_text(
        f"detectors: [{{name: padim, dims: 16}}, dfkde]\ndata: ['{root / 'mvtec'}']\nprotocol: uniform@64\n"
    )
    store = root / "runs"
    how = ("--store", str(store), "--keep-models", "--features", "off", "--device", "cpu")
    assert main(["benchmark", str(root / "grid.yaml"), *how]) == 0
    folder = {name: next(store.glob(f"{name}-*")) for name in ("padim", "dfkde")}
    return SimpleNamespace(root=root, parts=root / "parts", mvtec=root / "mvtec", store=store, **folder)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in a folder of one's own, with caches of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "110")
    ours = str(Path(iadbe_package.__file__).parents[1])  # for processes of its own
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH")))))
    return tmp_path


@pytest.fixture
def iadbe(capsys):
    """Run a command line in this process; return its exit code, stdout and stderr."""

    def run(*arguments):
        capsys.readouterr()
        code = main([os.fspath(a) for a in arguments])
        output = capsys.readouterr()
        return SimpleNamespace(code=code, out=output.out, err=output.err)

    return run
