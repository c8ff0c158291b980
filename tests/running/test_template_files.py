import numpy as np
import pytest

from iadbe.data.alignment import Template
from iadbe.errors import BadData
from iadbe.protocol import Limits
from iadbe.running import template_files


@pytest.fixture
def templates():
    grey = np.random.default_rng(0).uniform(0, 255, (256, 300)).astype(np.float32)
    return {"nut": Template(grey, (512, 600), Limits(45, 0.2, 0.1), 0.8), "bolt": Template(grey.T.copy(), (300, 256))}


def test_what_is_written_is_read(templates, tmp_path):
    entries = template_files.write(tmp_path, templates)
    assert template_files.is_valid(entries)
    found = template_files.read(tmp_path, entries)
    assert list(found) == ["nut", "bolt"]
    for name, template in templates.items():
        np.testing.assert_array_equal(found[name].pixels, template.pixels)
        assert (found[name].size, found[name].limits, found[name].floor) == (
            template.size,
            template.limits,
            template.floor,
        )


def test_a_file_without_the_reference_is_reported(templates, tmp_path):
    entries = template_files.write(tmp_path, templates)
    template_files.write(tmp_path, {"nut": templates["nut"]})
    with pytest.raises(BadData, match="no reference for bolt"):
        template_files.read(tmp_path, entries)


@pytest.mark.parametrize(
    "change",
    [
        {"size": [0, 5]},
        {"size": [5]},
        {"size": [10**9, 5]},
        {"limits": "400/0/0"},
        {"limits": 30},
        {"floor": float("nan")},
        {"floor": "low"},
        {"category": 3},
        {"code": "os:system"},
    ],
)
def test_other_entries_are_not_valid(change):
    entry = {"category": "nut", "size": [5, 5], "limits": "30/0.15/0", "floor": 0.5}
    assert template_files.is_valid([entry])
    assert not template_files.is_valid([{**entry, **change}])
    assert not template_files.is_valid(entry)
