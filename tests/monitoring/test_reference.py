"""Bins of a calibration, and their file."""

import json

import numpy as np
import pytest

from iadbe.errors import BadData
from iadbe.monitoring import reference


def _images(count=60, seed=0):
    rng = np.random.default_rng(seed)
    return [{"score": float(rng.normal()), "brightness": 0.5} for _ in range(count)]


def test_every_image_is_in_a_bin():
    images = _images()
    found = reference.reference_of(images).channels["score"]
    assert sum(found.counts) == 60
    counted = np.bincount([found.bin(i["score"]) for i in images], minlength=len(found.counts))
    assert tuple(counted) == found.counts
    assert max(found.counts) <= 6  # quantiles: about as many in each


def test_bins_tell_apart_what_lies_far_outside():
    found = reference.reference_of(_images()).channels["score"]
    far = [found.bin(v) for v in (2.5, 4, 8, 16, 1e9)]
    assert far == sorted(set(far))
    assert found.bin(-1e9) == 0


def test_what_tells_nothing_is_left_out():
    assert reference.reference_of(_images(19)) is None
    assert set(reference.reference_of(_images()).channels) == {"score"}  # brightness is constant
    assert reference.reference_of([*_images(20), {"score": np.nan}]).channels["score"].mean < 9


def test_it_is_read_as_it_was_written(tmp_path):
    known = reference.reference_of(_images())
    reference.write(tmp_path, known)
    assert reference.read(tmp_path) == known
    assert reference.read(tmp_path).key == known.key != reference.reference_of(_images(seed=1)).key
    reference.write(tmp_path, None)
    assert reference.read(tmp_path) is None
    reference.write(tmp_path, None)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("format"),
        lambda raw: raw.update(format=2),
        lambda raw: raw.update(channels=3),
        lambda raw: raw["channels"]["score"].pop("edges"),
        lambda raw: raw["channels"]["score"]["edges"].reverse(),
        lambda raw: raw["channels"]["score"]["counts"].pop(),
        lambda raw: raw["channels"]["score"].update(mean=None),
        lambda raw: raw["channels"].update(score=[1]),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, change):
    reference.write(tmp_path, reference.reference_of(_images()))
    raw = json.loads((tmp_path / reference.FILE).read_text())
    change(raw)
    (tmp_path / reference.FILE).write_text(json.dumps(raw))
    with pytest.raises(BadData, match=r"drift\.json"):
        reference.read(tmp_path)
