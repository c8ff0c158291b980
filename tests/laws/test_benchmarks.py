"""The benchmark of the whole shelf on a GPU does what it says, shown on the CPU with a few detectors."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu  # noqa: E402


def test_it_prints_one_row_for_each_detector():
    command = [
        sys.executable,
        "benchmarks/gpu.py",
        "--device",
        "cpu",
        "--size",
        "64",
        "--detectors",
        "golden,stfpm,dfkde",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", done.stdout, re.MULTILINE))
    assert rows.keys() == {"detector", "golden", "stfpm", "dfkde"}
    assert all(row.endswith("0.0e+00 | 0.0e+00") for name, row in rows.items() if name != "detector")
    assert "3 of 3 as on the CPU." in done.stdout


def test_a_detector_that_fails_is_a_row_and_the_status(monkeypatch, capsys):
    def measure(name, size, device):
        if name == "padim":
            raise RuntimeError("no kernel\nfor it")
        return gpu.Row(name, score_difference=0.5)

    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--detectors", "padim,spade"])
    assert gpu.main() == 1
    printed = capsys.readouterr().out
    assert "| padim | RuntimeError: no kernel for it |" in printed
    assert "above the tolerance" in printed
    assert "0 of 2 as on the CPU. Not: padim, spade." in printed


def test_nothing_runs_after_the_time_is_over(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--detectors", "padim", "--minutes", "-1"])
    assert gpu.main() == 1
    assert "| padim | not run: -1 minutes are over |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "expected", "share"),
    [([1.0, 2.0, 3.5], [1.0, 2.0, 3.0], 0.25), ([0.0, float("nan")], [0.0, 1.0], float("inf"))],
)
def test_differences_are_shares_of_the_spread(found, expected, share):
    assert gpu.difference(torch.tensor(found), torch.tensor(expected)) == share
    assert gpu.difference(None, None) == 0


@pytest.mark.slow
def test_alignment_gives_back_most_of_what_turned_and_shifted_parts_cost():
    pytest.importorskip("cv2", reason="alignment needs OpenCV: pip install 'iadbe[align]'")
    root = ROOT.parent / "shared/data/mvtec_ad"
    if not (root / "transistor").is_dir():
        pytest.skip("the real images of transistors are not here")
    import alignment

    found = alignment.measure(root, "transistor", train=0, test=60, degrees=30, shift=0.1)
    assert np.quantile(found.degrees, 0.95) < 1
    assert np.quantile(found.pixels, 0.95) < 2
    assert found.moved < found.as_it_is - 0.2
    assert found.aligned > found.as_it_is - 0.02
