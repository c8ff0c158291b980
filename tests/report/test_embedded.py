"""Images inside pages."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from iadbe.report.embedded import WIDTH, embedded


@pytest.mark.parametrize(("size", "shown"), [((30, 40), (40, 30)), ((100, 400), (WIDTH, 40))])
def test_an_image_is_no_wider_than_asked(size, shown):
    uri = embedded(np.full((*size, 3), 90, np.uint8))
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == shown
