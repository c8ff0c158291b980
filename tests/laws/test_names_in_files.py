"""Files from elsewhere never name code: every reader of names is walked, in the source text and at run time.

A saved model, a stored result, a grid or a config file may name what the registries hold. A class outside them,
``module:Class``, is imported only where the user has typed it or has trusted it with ``--trust``.
"""

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import iadbe
from fake_results import result
from iadbe import registry
from iadbe.cli import main
from iadbe.errors import IadbeError, UnknownName
from iadbe.jobs import worker
from iadbe.jobs.queue import Queue
from iadbe.running import model_card, model_folder, plan
from iadbe.running.store import Store
from iadbe.types import Row

ROOT = Path(iadbe.__file__).parent
EVIL = "evil_of_a_file:Evil"
# which functions may turn a name into code, and in which files: each of them takes fixed names, or checks them first
IMPORTERS = {
    "import_module": {
        "__init__.py",  # a table of public names
        "registry.py",  # after `check`
        "cli/__init__.py",  # a table of commands
        "running/worker.py",  # the function of a run, which only Python code can name
        "files/depth.py",  # "tifffile"
        "files/decoding.py",  # "tifffile"
        "networks/timm_loader.py",  # "timm" and modules of it
        "files/ad2_submission.py",  # "tifffile"
        "files/video.py",  # "av"
    },
    "find_spec": {
        "__init__.py",
        "registry.py",
        "networks/backbone.py",
        "networks/engines.py",
        "datasets/elpv.py",
        "networks/timm_loader.py",
        "running/code_digest.py",  # of trusted classes, whose cards are read before
        "cli/options.py",
        "cli/list.py",
        "dashboard/assets.py",
        "dashboard/docs.py",
        "exporting/onnx_file.py",  # "onnx", "onnxscript"
        "exporting/result.py",  # names of engines
        "runtime/inspector.py",  # names of engines
        "exporting/openvino_file.py",  # "openvino"
        "exporting/bill_of_materials.py",  # "cyclonedx"
        "report/single_page.py",  # "jinja2"
        "runtime/signature.py",  # "cryptography"
        "watching/mqtt.py",  # "paho"
        "watching/stream.py",  # "av"
    },
    "eval": {"parameters.py"},  # annotations of cards, without builtins
    "exec": set(),
    "compile": set(),
    "__import__": set(),
    "exec_module": set(),
    "run_path": set(),
    "run_module": set(),
    "unsafe_load": set(),
    "full_load": set(),
}
# who may say that a class is trusted: the command line with what was typed, Python, and a run's process
TRUSTING = {
    "registry.py",
    "api.py",
    "cli/options.py",
    "cli/show.py",
    "cli/metrics.py",
    "running/worker.py",
}
# the only call that unpickles: of content that `registry.is_trusted_content` has checked
UNPICKLING = {
    (
        "layers/foreign/weight_files.py",
        "torch.load(io.BytesIO(content), map_location='cpu', weights_only=False)",
    )
}
CALLS = [
    (path.relative_to(ROOT).as_posix(), node)
    for path in sorted(ROOT.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Call)
]


def called(node):
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def is_method(node):
    return isinstance(node.func, ast.Attribute)


@pytest.mark.parametrize("name", IMPORTERS)
def test_only_known_places_turn_names_into_code(name):
    found = {
        file for file, node in CALLS if called(node) == name and not (name in ("compile", "eval") and is_method(node))
    }
    assert found <= IMPORTERS[name]


def test_nothing_is_unpickled():
    for file, node in CALLS:
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        text = ast.unparse(node.func)
        assert not text.startswith(("pickle.", "joblib.", "dill.", "cloudpickle.", "marshal.", "shelve.")), file
        if text == "torch.load" and (file, ast.unparse(node)) not in UNPICKLING:
            assert keywords.get("weights_only") == "True", file
        if text in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle") == "False", file
        assert text != "yaml.load", file


def test_what_unpickles_asks_first_whether_the_user_trusts_the_content():
    (file, call) = next(iter(UNPICKLING))
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = {node.name: ast.unparse(node) for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert [name for name, text in functions.items() if call in text] == ["_unpickled"]
    callers = [text for name, text in functions.items() if "_unpickled(" in text and name != "_unpickled"]
    assert len(callers) == 1
    assert callers[0].index("if not registry.is_trusted_content(content):") < callers[0].index("_unpickled(file")
    assert [f for f, node in CALLS if called(node) == "_unpickled"] == [file]


def test_only_the_users_own_words_are_trusted():
    found = {file for file, node in CALLS if called(node) in ("trust", "trust_written")}
    assert found <= TRUSTING


def test_every_class_comes_from_the_registry():
    """No other module imports a detector, dataset, setting or metric by a name that it computes."""
    for file, node in CALLS:
        if called(node) == "getattr" and node.args and isinstance(node.args[0], ast.Call):
            assert called(node.args[0]) != "import_module" or file in IMPORTERS["import_module"]


# ---- at run time -----------------------------------------------------------------------------------------------------


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A class that leaves a mark when its module is imported; a file from elsewhere names it."""
    (tmp_path / "evil_of_a_file.py").write_text(
        "from pathlib import Path\n\nPath(__file__).with_name('imported').touch()\n\n\n"
        "class Evil:\n    def __init__(self, command: str = '') -> None:\n        pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    assert EVIL not in registry.trusted()
    assert not (tmp_path / "imported").exists()
    assert "evil_of_a_file" not in sys.modules


def model_of(folder, detector=EVIL):
    card = {"format": 1, "detector": detector, "params": {"command": "x"}, "view": {"resize": 64, "crop": 0}}
    folder.mkdir(parents=True)
    (folder / model_card.FILE).write_text(
        json.dumps({**card, "weights": [], "calibration": {}, "about": {}, "learnt": None})
    )
    (folder / "weights.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return folder


@pytest.mark.parametrize("name", [EVIL, "subprocess:Popen", "os:system", "iadbe.detectors.padim:PaDiM"])
def test_a_model_folder(evil, name):
    with pytest.raises(UnknownName, match=f"--trust {name}"):
        model_folder.load(model_of(evil / "model", name))
    with pytest.raises(UnknownName, match="--trust"):
        model_folder.save_calibration(evil / "model", model_folder.Calibration())


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "model", "x.png"],
        ["test", "model", "--data", "toy"],
        ["calibrate", "model", "--good", "x.png", "--overkill", "0.5"],
    ],
)
def test_a_model_folder_on_the_command_line(evil, capsys, arguments):
    model_of(evil / "model")
    (evil / "x.png").touch()
    assert main(arguments) == 1
    assert f"--trust {EVIL}" in capsys.readouterr().err


GRIDS = [
    {"detectors": [EVIL], "data": ["toy"]},
    {"detectors": [{"name": EVIL, "command": "x"}], "data": ["toy"]},
    {"detectors": ["padim"], "data": [EVIL]},
    {"detectors": ["padim"], "data": ["toy"], "settings": [EVIL]},
    {"detectors": ["padim"], "data": ["toy"], "metrics": [f"image_{EVIL}"]},
    {"detectors": ["padim"], "data": ["toy"], "metrics": [f"pixel_{EVIL}.touched"]},
    {"detectors": ["padim"], "data": [{"name": "toy", "categories": [EVIL]}]},
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
class TestAGrid:
    def test_that_is_planned(self, evil, grid):
        with pytest.raises(IadbeError):
            plan.expand(grid)

    def test_in_a_file(self, evil, grid, capsys):
        (evil / "grid.yaml").write_text(json.dumps(grid))
        assert main(["benchmark", "grid.yaml", "--dry-run"]) == 1
        assert EVIL in capsys.readouterr().err

    def test_of_a_job(self, evil, grid):
        store = Store(evil / "store")
        with Queue(store) as queue:
            name = queue.add(grid).id
            worker.run_job(queue, queue.take("w"), store)
            assert queue.get(name).state == "failed"


@pytest.mark.parametrize(
    "text",
    [
        f"detector: {EVIL}\ndata: toy\n",
        f"model:\n  class_path: {EVIL}\ndata: toy\n",
        f"detector: padim\ndata: {EVIL}\n",
        f"detector: padim\ndata: {{class_path: {EVIL}, init_args: {{command: x}}}}\n",
        f"detector: padim\ndata: toy\nsetting: {EVIL}\n",
        f"detector: padim\ndata: toy\nmetrics: [image_{EVIL}]\n",
        f"detector: {EVIL}\ndata: toy\ntrust: {EVIL}\n",
    ],
)
def test_a_config_file(evil, text):
    (evil / "config.yaml").write_text(text)
    assert main(["train", "--config", "config.yaml", "--store", "store"]) == 1


def test_a_data_file(evil):
    (evil / "data.yaml").write_text(f"class_path: {EVIL}\ninit_args: {{command: x}}\n")
    assert main(["data", "check", "data.yaml"]) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"detector": EVIL, "detector_params": {"command": "x"}},
        {"dataset": EVIL, "dataset_params": {"command": "x"}},
        {"setting": EVIL, "setting_params": {"command": "x"}},
        {"metrics": [f"image_{EVIL}"]},
    ],
    ids=str,
)
def test_a_stored_result(evil, changes, capsys):
    """It stands in tables, and nothing that it names is imported."""
    store = Store(evil / "store")
    good = result("padim")
    rows = (*good.rows, Row(0, good.rows[0].test, f"image_{EVIL}", 0.5))
    folder = store.save(replace(good, spec=replace(good.spec, **changes), rows=rows))
    for more in ([], ["--runs"], ["--by", "category"], ["export", "table.csv"], ["report", "report.html"]):
        assert main(["results", *more, "--store", "store"]) == 0, capsys.readouterr().err
    assert main(["results", "show", folder.name, "--store", "store"]) == 0
    assert main(["metrics", "explain", folder.name, "--store", "store"]) == 1


def test_a_weight_file_is_trusted_after_the_option_alone(tmp_path, monkeypatch, capsys):
    (tmp_path / "evil.pt").write_bytes(b"a pickle")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_trusted", set())
    (tmp_path / "config.yaml").write_text("detector: anomalib\ndata: toy\ntrust: evil.pt\n")
    train = ["train", "--detector", "anomalib", "--detector.weights", "evil.pt", "--data", "nowhere"]
    for arguments in (train, ["train", "--config", "config.yaml"]):
        assert main(arguments) == 1
        assert not registry.is_trusted_content(b"a pickle")
    assert main([*train, "--trust", "gone.pt"]) == 1
    assert "neither a class" in capsys.readouterr().err
    assert main([*train, "--trust", "evil.pt"]) == 1  # there are no data
    assert registry.is_trusted_content(b"a pickle")


def test_what_the_user_has_typed_is_trusted(tmp_path, monkeypatch, capsys):
    (tmp_path / "typed_by_the_user.py").write_text('"""Mine."""\n\n\nclass Mine:\n    """My own."""\n')
    monkeypatch.chdir(tmp_path)
    assert main(["show", "typed_by_the_user:Mine"]) == 0
    assert "typed_by_the_user:Mine" in capsys.readouterr().out
    model_of(tmp_path / "model", "typed_by_the_user:Other")
    assert main(["predict", "model", ".", "--trust", "typed_by_the_user:Other"]) == 1
    assert "has no class 'Other'" in capsys.readouterr().err
