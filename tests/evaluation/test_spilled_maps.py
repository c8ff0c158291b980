"""Maps in a temporary file: what is written is read, and nothing stays behind."""

import gc
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from iadbe.evaluation import spilled_maps
from iadbe.evaluation.spilled_maps import SpilledMaps, allocate, put

MAPS = np.random.default_rng(0).random((5, 3, 4), np.float32)


def test_what_is_written_is_read(tmp_path):
    maps = SpilledMaps(MAPS.shape, tmp_path)
    maps.write(3, MAPS[3:])
    maps.write(0, MAPS[:3, ::-1][:, ::-1])  # not contiguous
    assert (len(maps), maps.shape) == (5, (5, 3, 4))
    for found, expected in zip(maps, MAPS, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(maps[2], MAPS[2])
    with pytest.raises(IndexError, match="no number 5"):
        maps[5]


def test_a_map_that_was_not_written_is_an_error(tmp_path):
    with pytest.raises(OSError, match="map 4 was not written whole"):
        SpilledMaps(MAPS.shape, tmp_path)[4]


def test_the_file_is_closed_with_the_maps(tmp_path):
    maps = SpilledMaps(MAPS.shape, tmp_path)
    file = maps._file
    del maps
    gc.collect()
    assert file.closed


def test_only_many_maps_are_spilled(tmp_path, monkeypatch):
    assert isinstance(allocate(MAPS.shape, tmp_path), np.ndarray)
    monkeypatch.setattr(spilled_maps, "IN_MEMORY", MAPS.nbytes - 1)
    maps = allocate(MAPS.shape, tmp_path)
    assert isinstance(maps, SpilledMaps)
    put(maps, 0, MAPS)
    np.testing.assert_array_equal(maps[4], MAPS[4])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device")
def test_a_full_disk_is_said(tmp_path, monkeypatch):
    maps = SpilledMaps(MAPS.shape, tmp_path)
    maps.close()
    with open("/dev/full", "w+b", buffering=0) as maps._file, pytest.raises(OSError, match="No space left"):
        maps.write(0, MAPS)


def test_nothing_is_left_by_a_killed_process(tmp_path):
    script = (
        "import sys, time, numpy as np; from pathlib import Path\n"
        "from iadbe.evaluation.spilled_maps import SpilledMaps\n"
        "maps = SpilledMaps((4, 64, 64), Path(sys.argv[1])); maps.write(0, np.ones((4, 64, 64), np.float32))\n"
        "print('written', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        process.kill()
    for _ in range(100):  # Windows removes the file a moment later
        if not list(tmp_path.iterdir()):
            break
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []
