"""A run that was killed goes on when it is repeated, with the same numbers and files, and leaves nothing more."""

import math
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from iadbe import progress
from iadbe.errors import BadConfig
from iadbe.running import plan
from iadbe.running.run import _federated, execute
from iadbe.running.store import Store
from iadbe.types import Options


class TestInterruptedTraining:
    OPTIONS = Options(features="off", device="cpu", images=0, checkpoints=0)
    FEDERATED = {"name": "federated", "clients": 2, "rounds": 2}
    AUTOENCODER = {"name": "autoencoder", "size": 32, "latent": 4, "epochs": 2, "batch": 16}

    @staticmethod
    def spec(detector, setting="vanilla"):
        data = [{"name": "toy", "categories": ["metal"] if setting != "continual" else []}]
        grid = {"detectors": [detector], "data": data, "settings": [setting], "protocol": "uniform@32"}
        return plan.expand(grid).runs[0]

    def compare(self, root, spec):
        assert [f.name for f in (root / "killed" / ".checkpoints").iterdir()] == [Store(root).path(spec).name]
        stores = Store(root / "killed"), Store(root / "whole")
        found, expected = (execute(spec, store, self.OPTIONS) for store in stores)
        assert found.error == expected.error == ""
        assert found.rows == expected.rows
        assert [s.score for s in found.scores] == [s.score for s in expected.scores]
        assert found.steps == expected.steps
        losses = [(store.path(spec) / "losses.csv").read_bytes() for store in stores]
        assert losses[0] == losses[1]
        assert {f.name for f in (root / "killed").iterdir()} == {f.name for f in (root / "whole").iterdir()}
        notes = set(found.notes) - set(expected.notes)
        assert all("training was interrupted and went on after" in note for note in notes)
        return notes

    @pytest.mark.parametrize(
        "detector", [{"name": "simplenet", "width": 16, "epochs": 3}, {"name": "fre", "epochs": 6}]
    )
    def test_killed_by_signal_9(self, tmp_path, detector):
        code = (
            "import os, pathlib, signal, sys\n"
            "sys.path.insert(0, 'tests')\n"
            "from laws.test_interrupted_runs import TestInterruptedTraining as Own\n"
            "from iadbe import progress\n"
            "from iadbe.running.run import execute\n"
            "from iadbe.running.store import Store\n"
            "heard = []\n"
            "def hear(report):\n"
            "    heard.extend([report] if report.phase == 'loss' else [])\n"
            "    if len(heard) == 9:\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "with progress.listening(hear):\n"
            f"    execute(Own.spec({detector!r}), Store(sys.argv[1]), Own.OPTIONS)\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "killed")]
        ended = subprocess.run(command, check=False, cwd=Path(__file__).parents[2])
        assert ended.returncode == -signal.SIGKILL
        shutil.rmtree(tmp_path / "killed" / ".part")  # the next grid sweeps what a dead process has left
        notes = self.compare(tmp_path, self.spec(detector))
        assert notes == {"training was interrupted and went on after step 8 of its loop."}

    @pytest.mark.parametrize(("setting", "until"), [(FEDERATED, 3), (FEDERATED, 7), ("continual", 12)])
    def test_in_a_setting_of_several_fits(self, tmp_path, setting, until):
        spec, heard = self.spec(self.AUTOENCODER, setting), []

        def hear(report):
            heard.extend([report] if report.phase == "loss" else [])
            if len(heard) == until:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), progress.listening(hear):
            execute(spec, Store(tmp_path / "killed"), self.OPTIONS)
        self.compare(tmp_path, spec)

    def test_a_run_that_failed_keeps_its_checkpoints_until_it_is_removed(self, tmp_path, monkeypatch):
        spec, store = self.spec({"name": "fre", "epochs": 2}), Store(tmp_path)

        def broken(*_):
            raise RuntimeError("out of memory")

        with monkeypatch.context() as patched:
            patched.setattr("iadbe.running.run.predict", broken)
            assert "out of memory" in execute(spec, store, self.OPTIONS).error
        assert store.checkpoints(spec).is_dir()
        store.remove(spec, training=False)
        assert store.checkpoints(spec).is_dir()
        execute(spec, store, replace(self.OPTIONS, checkpoints=math.inf))  # which neither reads nor writes any
        assert not store.checkpoints(spec).exists()
        with monkeypatch.context() as patched:
            patched.setattr("iadbe.running.run.predict", broken)
            execute(spec, store, self.OPTIONS)
        store.remove(spec)
        assert not (tmp_path / ".checkpoints").exists()

    def test_checkpoints_of_other_source_are_not_used(self, tmp_path, monkeypatch):
        spec, store = self.spec({"name": "fre", "epochs": 2}), Store(tmp_path)
        monkeypatch.setattr("iadbe.running.run.predict", lambda *_: 1 / 0)
        execute(spec, store, self.OPTIONS)
        monkeypatch.setattr("iadbe.running.code_digest.of_training", lambda name: 1)
        with pytest.warns(UserWarning, match="it is of another version, code or device"):
            assert "ZeroDivisionError" in execute(spec, store, self.OPTIONS).error

    def test_mixed_precision_is_another_run_and_trains(self, tmp_path):
        spec = self.spec(self.AUTOENCODER)
        mixed = replace(spec, protocol="uniform@32+bf16+2batches")
        first, second = (execute(s, Store(tmp_path), self.OPTIONS) for s in (spec, mixed))
        assert first.error == second.error == ""
        assert Store(tmp_path).path(spec) != Store(tmp_path).path(mixed)
        assert first.rows != second.rows
        with pytest.raises(BadConfig, match="train in fp32 and accumulate no batches"):
            _federated(mixed, "flower")
