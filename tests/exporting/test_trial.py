"""Test images of a file of lower precision."""

import pytest
from PIL import Image

from exported_models import golden, random_image
from iadbe.exporting.trial import Trial


def test_images_are_read_as_predictions_read_them(tmp_path):
    Image.fromarray(random_image(20, 30)).save(tmp_path / "a.png")
    found = Trial.of(golden(), good=[tmp_path / "a.png"], bad=[random_image(10, 10), random_image(12, 9)])
    assert [image.shape for image in (*found.good, *found.bad)] == [(20, 30, 3), (10, 10, 3), (12, 9, 3)]
    assert (found.tolerance, found.force) == (0.01, False)
    assert not Trial.of(golden()).good
    with pytest.raises(TypeError, match="other"):
        Trial.of(golden(), other=1)
