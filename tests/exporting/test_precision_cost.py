"""What a file of lower precision costs: scores, verdicts, AUROC, size and time beside float32."""

from dataclasses import replace

import pytest

from exported_models import golden, random_image
from iadbe.errors import BadConfig
from iadbe.evaluation.confidence import Interval
from iadbe.exporting import half_precision, onnx_file
from iadbe.exporting.card import card_of
from iadbe.exporting.precision_cost import PrecisionCost, measure
from iadbe.exporting.program import Program

pytest.importorskip("onnxruntime")
COST = PrecisionCost("onnxruntime", 100, 0.999, 0.02, 1, (2_000_000, 500_000), (10.0, 6.0))
INTERVAL = Interval(0.9, 1.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cost")
    whole = onnx_file.write(Program(golden()).eval(), card_of(golden()), folder / "whole.onnx")
    half = folder / "half.onnx"
    half.write_bytes(whole.read_bytes())
    half_precision.compress(half)
    return whole, half


def test_both_files_score_the_same_images(files):
    images = [random_image(40, 50, seed) for seed in range(6)]
    found = measure(*files, "onnxruntime", images)
    assert found.images == 6
    assert found.auroc is None
    assert found.bytes == tuple(file.stat().st_size for file in files)
    assert found.bytes[1] < found.bytes[0]
    assert -1 <= found.correlation < 1
    assert 0 < found.apart < 1
    assert measure(files[0], files[0], "onnxruntime", images).correlation == pytest.approx(1)


def test_with_test_images_it_has_the_auroc_and_a_paired_test(files):
    images = [random_image(40, 50, seed) // (2 if seed < 4 else 1) for seed in range(8)]
    found = measure(*files, "onnxruntime", images, [False] * 4 + [True] * 4)
    assert found.auroc is not None
    assert all(low <= value <= high for value, (low, high) in zip(found.auroc, found.intervals, strict=True))
    assert found.difference.low <= found.auroc[0] - found.auroc[1] <= found.difference.high
    assert "paired bootstrap" in found.lines()[-1]
    with pytest.raises(BadConfig, match="both --good and --bad"):
        measure(*files, "onnxruntime", images, [True] * 8)


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True),
        ({"correlation": 0.98}, False),
        ({"correlation": float("nan")}, False),
        ({"verdicts": 2}, False),
        ({"auroc": (0.99, 0.985), "intervals": (INTERVAL,) * 2, "difference": INTERVAL}, True),
        ({"auroc": (0.99, 0.97), "intervals": (INTERVAL,) * 2, "difference": INTERVAL}, False),
        ({"auroc": (0.97, 0.99), "intervals": (INTERVAL,) * 2, "difference": INTERVAL}, True),
    ],
)
def test_each_cost_must_be_within_the_tolerance(change, holds):
    assert replace(COST, **change).within(0.01) is holds


def test_the_sentences_state_ratios_and_what_is_not_known():
    text = "\n".join(COST.lines())
    assert "correlation of scores 0.99900, differences up to 2.0% of the largest, 1 other verdicts" in text
    assert "(0.25 times)" in text
    assert "(0.60 times)" in text
    assert "AUROC: not known" in text
