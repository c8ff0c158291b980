"""The region of a model inside a graph: as predictions with a model folder have it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from exported_models import golden, random_image
from iadbe.data.images import View
from iadbe.exporting.ignored_pixels import IgnoredPixels
from iadbe.exporting.program import Program
from iadbe.exporting.view_matrices import ViewMatrices
from iadbe.files import region_files
from iadbe.files.input_images import inputs_of
from iadbe.running.inference import results_of

REGION = np.zeros((60, 80), bool)
REGION[10:45, 20:77] = True


def counted(view, image, region=REGION):
    return IgnoredPixels(region)(torch.from_numpy(image)[None], ViewMatrices(view, torch.from_numpy(image)[None]))


@pytest.mark.parametrize(
    "view", [View(64), View(64, fit="pad"), View(48, fit="crop"), View(64, crop=40), View(24, resize_width=40)], ids=str
)
@pytest.mark.parametrize("size", [(60, 80), (120, 160), (45, 60)], ids=str)
def test_what_counts_and_what_is_filled_is_that_of_predictions(view, size):
    image = random_image(*size)
    own = region_files.fitted(REGION, size, "test")
    found = counted(view, image)
    assert bool(found.valid)
    assert np.array_equal(found.image[0].numpy(), region_files.filled(image, own))
    assert np.array_equal(found.region.numpy(), view(own))


def test_pixels_between_two_of_the_region_are_those_of_either():
    size = (90, 121)  # at these sizes Pillow's rounding error decides
    own = region_files.fitted(REGION, size, "test")
    found = counted(View(64), random_image(*size))
    assert np.mean(found.region.numpy() != View(64)(own)) < 0.02


def test_a_mean_of_a_half_is_rounded_to_the_even_level():
    for levels, mean in (((10, 11), 10), ((11, 12), 12)):
        image = np.zeros((60, 80, 3), np.uint8)
        image[::2], image[1::2] = levels
        region = np.zeros((60, 80), bool)
        region[:4] = True
        assert int(counted(View(64), image, region).image[0, -1, -1, 0]) == mean
        assert int(region_files.filled(image, region)[-1, -1, 0]) == mean


def test_sums_of_large_images_are_exact():
    image = np.full((300, 30_000, 3), 255, np.uint8)
    image[0, 0] = 0
    region = np.zeros(image.shape[:2], bool)
    region[:250] = True
    assert int(counted(View(8), image, region).image[0, -1, -1, 0]) == 255


def test_scores_and_maps_are_those_of_predictions(tmp_path):
    fitted = replace(golden(), region=REGION)
    image = random_image(120, 160, 7)
    Image.fromarray(image).save(tmp_path / "a.png")
    expected = next(results_of(fitted, inputs_of([tmp_path]), None, torch.device("cpu")))
    with torch.no_grad():
        found = Program(fitted).eval()(torch.from_numpy(image)[None])
    assert float(found["score"][0]) == pytest.approx(expected.score, abs=1e-6)
    assert np.allclose(found["anomaly_map"][0].numpy(), expected.map, atol=1e-6)
    whole = Program(golden()).eval()(torch.from_numpy(image)[None])["score"]
    assert not torch.allclose(whole, found["score"])


def test_an_image_of_other_proportions_has_no_score_and_no_verdict():
    fitted = replace(golden(), region=REGION)
    with torch.no_grad():
        found = Program(fitted).eval()(torch.from_numpy(random_image(80, 80))[None])
    assert bool(found["score"].isnan().all())
    assert bool(found["probability"].isnan().all())
    assert found["verdict"].tolist() == [-1]


def test_a_region_beyond_the_view_gives_no_score():
    region = np.zeros((60, 80), bool)
    region[:, :5] = True
    assert not bool(counted(View(48, fit="crop"), random_image(60, 80), region).valid)
