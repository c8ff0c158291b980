"""Results of an exported file: as those of a model folder."""

import numpy as np
import pytest
from PIL import Image

from exported_models import random_image
from iadbe.files.input_images import inputs_of
from iadbe.runtime.inspector import Inspection
from iadbe.runtime.prediction import FileResult, results_of


class Brightness:
    """Stands for a loaded file: the score is the mean, the map the mean of the channels."""

    intensity = None
    card = {"calibration": {"threshold": 100.0, "low": 50.0, "high": 150.0}}

    def __call__(self, image):
        return Inspection(float(image.mean()), 0.4, "good", image.mean(2).astype(np.float32))


@pytest.fixture
def files(tmp_path):
    Image.fromarray(random_image(8, 12)).save(tmp_path / "a.png")
    Image.fromarray(np.full((9, 5, 3), 20, np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    return inputs_of([tmp_path])


def test_one_result_for_each_image(files):
    first, second, third = results_of(Brightness(), files)
    assert (first.path.name, first.map.shape, first.scaled) == ("a.png", (8, 12), 0.4)
    assert (first.defective, second.defective) == (True, False)
    assert second.heat_of(second.map).max() == 0
    assert np.isnan(third.score)
    assert "c.png" in third.error
    assert (third.defective, third.has_map) == (None, False)
    assert first.pixels().shape == (8, 12, 3)


def test_between_two_thresholds_an_image_is_to_be_looked_at(files):
    file = Brightness()
    mean = float(next(results_of(file, files)).score)
    file.card = {"calibration": {"threshold": mean + 1, "look_threshold": mean - 1}}
    assert [found.verdict for found in results_of(file, files)] == ["look", "good", ""]
    assert [found.verdict for found in results_of(file, files, threshold=mean + 1)] == ["good", "good", ""]


def test_a_given_threshold_replaces_the_files_own(files):
    assert [found.defective for found in results_of(Brightness(), files[:2], threshold=10)] == [True, True]


def test_without_a_scale_there_is_no_heat():
    bare = FileResult("x.png", 1.0, map=np.zeros((2, 2), np.float32))
    assert (bare.has_map, bare.heat_of(bare.map), bare.defective) == (False, None, None)
    assert (bare.position_found, bare.region_at(2, 2), bare.pixels()) == (None, None, None)
