"""Everything runs where there is no POSIX: in processes that look to iadbe like those of Windows (``other_system``).

They start others by ``spawn`` alone, lack POSIX's modules and names, have a cp1252 console and coarse clocks, refuse to
move or remove a file that is open, and refuse text files without an encoding.
"""

import ast
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import iadbe
from iadbe.files import image_io
from other_system import MODULES, SIGNALS, WITHOUT
from part_images import draw_parts

ROOT = Path(iadbe.__file__).parent
TESTS = Path(__file__).parents[1]
HERE = "system.py"  # the one file that may ask for the platform
PLATFORM = {"sys": {"platform"}, "os": {"name"} | WITHOUT["os"]}
MOVES = {"replace", "rename"}  # with one argument: those of pathlib
MOVERS = {"os": {"replace", "rename", "renames", "remove", "unlink", "kill"}, "shutil": {"rmtree", "move"}}
FREE = {  # where nobody else can have the files open
    ("networks/feature_store.py", "shutil.rmtree"),  # `iadbe features --clear`, which leaves what is in use
}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Run iadbe as on another system, in a folder of its own; ``other.folder`` is it."""
    return Other(tmp_path_factory.mktemp("other system"))


class Other:
    def __init__(self, folder):
        self.folder = folder
        start = folder / "start"
        start.mkdir()
        (start / "sitecustomize.py").write_text("import other_system\n\nother_system.install()\n", encoding="utf-8")
        path = os.pathsep.join(map(str, (start, TESTS, ROOT.parent)))
        self.environment = {
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONIOENCODING": "cp1252",
            "PYTHONUTF8": "0",
            "PYTHONWARNDEFAULTENCODING": "1",
            "IADBE_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "110",
        }

    def start(self, *words, **more):
        return subprocess.Popen(
            [sys.executable, *map(str, words)], cwd=self.folder, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="cp1252", **more,
        )  # fmt: skip

    def python(self, code):
        """Run code as if it were a module of iadbe."""
        process = self.start("-c", f"exec(compile({code!r}, 'probe', 'exec'), {{'__name__': 'iadbe.probe'}})")
        said, errors = process.communicate(timeout=300)
        return process.returncode, said, errors

    def iadbe(self, *words, code=0):
        """Run a command and return what it printed."""
        process = self.start("-m", "iadbe", *words)
        said, errors = process.communicate(timeout=600)
        assert "Traceback" not in errors + said, errors
        assert process.returncode == code, errors + said
        return said


class TestTheOtherSystem:
    """What the law rests on: these must fail there."""

    @pytest.mark.parametrize(
        ("code", "error"),
        [
            ("import resource", "ModuleNotFoundError"),
            ("import os; os.fork()", "has no attribute 'fork'"),
            ("import os; os.kill(os.getpid(), 2)", "ends the process on Windows"),
            ("import os; os.open('.', os.O_RDONLY)", "PermissionError"),
            ("from signal import SIGKILL", "ImportError"),
            ("import signal; signal.pthread_sigmask", "has no attribute 'pthread_sigmask'"),
            ("import multiprocessing; multiprocessing.get_context('fork')", "cannot find context"),
            ("from multiprocessing import forkserver", "ImportError"),
            ("import multiprocessing, select; select.select([], [multiprocessing.Pipe()[0]], [], 0)", "not a socket"),
            (
                "import os; f = open('x', 'w', encoding='utf-8'); os.unlink('x')",
                "open in this process",
            ),
            ("from pathlib import Path; Path('y').write_text('ä')", "EncodingWarning"),
            ("print('正')", "UnicodeEncodeError"),
        ],
    )
    def test_it_lacks_what_windows_lacks(self, other, code, error):
        status, _, errors = other.python(code)
        assert status == 1
        assert error in errors

    def test_the_standard_library_and_coarse_clocks_work(self, other):
        code = "import sys, os, time, tempfile; tempfile.TemporaryDirectory().cleanup(); print(sys.platform, os.name)"
        assert other.python(f"{code}; print(time.monotonic() * 64 % 1)") == (0, "win32 nt\n0.0\n", "")

    def test_every_module_can_be_imported(self, other):
        code = (
            "import importlib, pkgutil, iadbe\n"
            "from iadbe.errors import Missing\n"
            "for found in pkgutil.walk_packages(iadbe.__path__, 'iadbe.'):\n"
            "    if not found.name.endswith('__main__'):\n"
            "        try:\n"
            "            importlib.import_module(found.name)\n"
            "        except Missing as error:\n"
            "            print(error)\n"
        )
        status, _, errors = other.python(code)
        assert status == 0, errors


def attributes(tree):
    """Yield (module, attribute, line) of attributes of modules, and of names imported from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr, node.lineno
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield node.module, alias.name, node.lineno


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_only_one_file_asks_for_the_platform_and_moves_files(path):
    name = path.relative_to(ROOT).as_posix()
    if name == HERE:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not MODULES & {alias.name.partition(".")[0] for alias in node.names}, node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MOVES:
            alone = len(node.args) == 1 and not node.keywords and not isinstance(node.func.value, ast.Constant)
            ours = isinstance(node.func.value, ast.Name) and node.func.value.id == "system"
            assert ours or not alone, f"{name}:{node.lineno} moves a file without system.{node.func.attr}"
    for module, attribute, line in attributes(tree):
        where = f"{name}:{line} uses {module}.{attribute}"
        assert attribute not in PLATFORM.get(module, ()), where
        assert module != "signal" or attribute in SIGNALS, where
        assert attribute not in MOVERS.get(module, ()) or (name, f"{module}.{attribute}") in FREE, where


TEXT = re.compile(r"[rwax]t?\+?")  # modes of text files
OPENERS = {"open", "fdopen", "NamedTemporaryFile", "TemporaryFile"}


def is_text(call):
    """Say whether a call reads or writes text with the system's encoding, which is cp1252 on Windows."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = getattr(getattr(call.func, "value", None), "id", "")
    given = {keyword.arg for keyword in call.keywords}
    values = (*call.args, *(keyword.value for keyword in call.keywords))
    modes = {str(value.value) for value in values if isinstance(value, ast.Constant)}
    found = name in OPENERS and any(map(TEXT.fullmatch, modes))
    found |= isinstance(call.func, ast.Attribute) and name in ("read_text", "write_text") and owner != "layout"
    found |= owner == "subprocess" and bool({"text", "universal_newlines"} & given)
    found &= owner != "archive"  # members of ZIP files are bytes
    return found and "encoding" not in given


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_text_has_an_encoding(path):
    """Ruff's rule sees only paths that it knows as such."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and is_text(node)] == []


@pytest.mark.slow
def test_train_predict_results(other):
    """Names that the console cannot show are whole in files, and every file is closed before it is replaced."""
    draw_parts(other.folder / "parts")
    image_io.write(other.folder / "正常 ä.png", image_io.read_rgb(next((other.folder / "parts").rglob("*.png"))))
    data = ("--data", r"parts\good", "--data.name", "parts", "--size", 64)
    how = ("--detector", "padim", "--detector.dims", 8, "--device", "cpu", "--jobs", 1, "--threads", 1)
    assert "padim" in other.iadbe("train", *how, *data)
    other.iadbe("train", *how, *data, "--force")
    (model,) = (other.folder / "runs").glob("padim-*/model")
    raw = json.loads((model.parent / "result.json").read_text(encoding="utf-8"))
    assert not any("\\" in str(value) for value in raw["spec"].values())
    shown = other.iadbe("predict", model, "正常 ä.png", "--device", "cpu")
    assert r"\u6b63\u5e38 ä.png" in shown
    other.iadbe("predict", model, r"parts\good", "正常 ä.png", "--out", "scores.csv", "--device", "cpu")
    lines = (other.folder / "scores.csv").read_bytes().decode("utf-8").splitlines()
    assert lines[-1].startswith("正常 ä.png,")
    assert any(line.startswith("parts/good/") for line in lines)
    shutil.copytree(model.parent, other.folder / "copy" / model.parent.name)
    held = (
        "from pathlib import Path\n"
        "from iadbe.running import model_folder\n"
        "from iadbe.running.store import Store\n"
        "(folder,) = Store('copy').folders()\n"
        "model = model_folder.load(folder)\n"
        "Store('copy').remove_folder(folder)\n"  # a server removes a run whose model it has in use
        "print(len(list(model.detector.state_dict())) > 0)\n"
    )
    status, said, problems = other.python(held)
    assert (status, said) == (0, "True\n"), problems
    assert "padim" in other.iadbe("results")
    other.iadbe("results", "export", "table.csv")
    assert (other.folder / "table.csv").read_text(encoding="utf-8").count("padim") == 1


def runs_under_way(store):
    return [p for p in (store / ".part").glob("*") if not p.name.startswith(("probe", "old"))]


@pytest.mark.slow
def test_benchmark_with_limits_and_an_interrupt(other):
    data = {"name": "toy", "categories": ["metal"], "count": 8}
    (other.folder / "grid.json").write_text(
        json.dumps({"detectors": ["padim", "dfkde"], "data": [data], "protocol": "uniform@64"}), encoding="utf-8"
    )
    grid = ("benchmark", "grid.json", "--store", "bench", "--jobs", 2, "--device", "cpu", "--threads", 1, "--retry")
    grid += ("--report", "report.html")
    store = other.folder / "bench"
    other.iadbe(*grid, "--memory-limit", "20MB", code=1)
    assert len(errors(store)) == 2
    assert all(e.startswith("killed at ") and "memory limit 20 MB" in e for e in errors(store))
    other.iadbe(*grid, "--time-limit", "0.4s", code=1)
    assert all(re.match(r"stopped after \d+ s: time limit 0\.4 s", e) for e in errors(store))
    # a shell lets what it starts in the background ignore interrupts
    heed = {} if sys.platform == "win32" else {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = other.start("-m", "iadbe", *grid, **heed)
    deadline = time.monotonic() + 300
    while not runs_under_way(store):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "goes on where it stopped" in said
    assert not psutil.wait_procs(children, timeout=10)[1]
    assert not list((store / ".part").glob("*"))
    other.iadbe(*grid)
    assert not errors(store)
    assert (other.folder / "report.html").is_file()


def errors(store):
    """Return the errors of a store's runs."""
    found = [json.loads(f.read_text(encoding="utf-8"))["error"] for f in store.glob("*/result.json")]
    return [error for error in found if error]


@pytest.mark.slow
def test_serve(other):
    pytest.importorskip("uvicorn", reason="the server needs the extra web")
    process = other.start("-m", "iadbe", "serve", "--store", "served", "--port", 0, "--device", "cpu")
    port = int(re.search(r":(\d+)$", process.stdout.readline().strip())[1])
    deadline = time.monotonic() + 60
    while not (workers := psutil.Process(process.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for path in ("/api/v1/leaderboard", "/", "/static/page.js"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        assert answer.status == 200, path
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    assert workers
    assert not psutil.wait_procs(workers, timeout=10)[1]


@pytest.mark.slow
def test_demo(other):
    said = other.iadbe("demo", "--size", 64)
    assert "report: iadbe-demo" in said
    assert not errors(other.folder / "iadbe-demo")
