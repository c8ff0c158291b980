"""The certificate of an exported file."""

import re
from dataclasses import replace

import numpy as np
import pytest

from exported_models import random_image
from iadbe.report import certificate
from iadbe.runtime.deviation import Deviation
from iadbe.runtime.inspector import Inspection
from iadbe.runtime.references import References
from iadbe.runtime.timing import Timing
from iadbe.runtime.verification import Verification

TIMING = Timing("onnxruntime", 1, 70, 90, 0.5, 0.4, 200, 10.0, 12.0, 49.0, 200_000_000, 4, 120.0)


@pytest.fixture
def verification(tmp_path):
    images = tuple(random_image(70, 90, seed) for seed in range(2))
    expected = tuple(Inspection(n + 0.5, 0.5, "good", np.full((70, 90), n, np.float32)) for n in range(2))
    given = References(images, expected, (1, 1), (70, 90), "training images", 1e-4)
    card = {"detector": "<b>padim</b>", "version": 2, "iadbe": "0.1.0", "calibration": {"low": 0.0, "high": 2.0}}
    card["training_images"] = {"count": 7, "sha256": "ab" * 32}
    off = Deviation(2, 1e-6, 2e-6, 0, "onnxruntime", 1e-4)
    return Verification(tmp_path / "part.onnx", "cd" * 32, card, given, expected, off, TIMING, 0.05)


def test_it_is_one_page_without_scripts(verification, tmp_path):
    text = certificate.write(verification, tmp_path / "new" / "acceptance.html").read_text(encoding="utf-8")
    assert ">passed</span>part.onnx" in text
    assert "default-src 'none'" in text
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert text.count("data:image/jpeg") == 6
    for figure in ("49.0 ms", "allowed: 50 ms", "1.0e-06", "cd" * 32, "training images", "120.0 images/s"):
        assert figure in text
    assert "&lt;b&gt;padim" in text


def test_what_fails_is_marked(verification, tmp_path):
    other = (replace(verification.found[0], verdict="reject"), verification.found[1])
    off = replace(verification.deviation, verdicts=1)
    failed = replace(verification, found=other, deviation=off)
    text = certificate.write(failed, tmp_path / "a.html").read_text(encoding="utf-8")
    assert ">failed</span>part.onnx" in text
    assert text.count('class="reference no"') == 1
    assert "0.5 reject" in text


def test_detectors_without_maps_have_none(verification, tmp_path):
    bare = tuple(replace(one, anomaly_map=None) for one in verification.found)
    given = replace(verification.references, expected=bare)
    text = certificate.write(replace(verification, references=given, found=bare), tmp_path / "a.html").read_text()
    assert text.count("data:image/jpeg") == 2
    assert "deviation of maps" not in text
