import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve

from iadbe.errors import BadConfig
from iadbe.layers.synthetic import poisson
from iadbe.layers.synthetic.perlin import perlin_masks
from iadbe.layers.synthetic.poisson import poisson_blended


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def images(height, width, seed=1, smooth=0.3):
    """Return an image and a patch whose solution stays within 0 and 1, so that nothing is clamped."""
    generator = source(seed)
    return tuple(0.5 + smooth * (torch.rand(3, height, width, generator=generator).double() - 0.5) for _ in range(2))


def directly(image, patch, mask, mixed):
    """Pérez et al., equation 7, pixel by pixel, and a sparse solution of it."""
    number = {tuple(p): i for i, p in enumerate(mask.nonzero().tolist())}
    matrix = sparse.lil_matrix((len(number), len(number)))
    result = image.clone()
    for channel in range(len(image)):
        right = np.zeros(len(number))
        for (y, x), i in number.items():
            matrix[i, i] = 4
            for q in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                guide = float(patch[channel, y, x] - patch[channel][q])
                own = float(image[channel, y, x] - image[channel][q])
                right[i] += own if mixed and abs(own) > abs(guide) else guide
                if q in number:
                    matrix[i, number[q]] = -1
                else:
                    right[i] += float(image[channel][q])
        result[channel][mask] = torch.from_numpy(spsolve(matrix.tocsr(), right))
    return result


def masks():
    whole = torch.ones(24, 31, dtype=torch.bool)
    noise = perlin_masks(1, 24, 31, source(4), threshold=0.1, scales=(2, 3))[0, 0]
    ring = whole.clone()
    ring[8:16, 10:20] = False
    return {"rectangle": whole, "noise": noise, "ring": ring}


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("shape", ["rectangle", "noise", "ring"])
def test_it_is_the_solution_of_the_sparse_system(shape, mixed):
    image, patch = images(24, 31)
    mask = masks()[shape]
    mask[[0, -1]] = False
    mask[:, [0, -1]] = False
    assert int(mask.sum()) > 100
    expected = directly(image, patch, mask, mixed)
    assert 0 < float(expected.min()) < float(expected.max()) < 1
    torch.testing.assert_close(poisson.solve(image, patch, mask, mixed), expected, rtol=0, atol=1e-4)


def test_a_rectangle_takes_one_iteration(monkeypatch):
    calls = []
    inverse = poisson._rectangle_inverse
    monkeypatch.setattr(poisson, "_rectangle_inverse", lambda right: calls.append(1) or inverse(right))
    image, patch = images(60, 50)
    poisson_blended(image, patch, torch.ones(60, 50, dtype=torch.bool), 0, 0)
    assert len(calls) == 1
    poisson_blended(image, patch, perlin_masks(1, 60, 50, source(), 0.1)[0, 0], 0, 0)
    assert 2 < len(calls) < 60


def test_a_constant_added_to_the_patch_changes_nothing():
    image, patch = images(40, 40)
    mask = torch.ones(20, 20, dtype=torch.bool)
    one, two = (poisson_blended(image, patch[:, :20, :20] + c, mask, 9, 12) for c in (0.0, 0.2))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_pixels_outside_the_mask_and_at_the_border_of_the_patch_stay():
    image, patch = (t.float() for t in images(40, 40))
    found = poisson_blended(image, patch[:, :20, :15], torch.ones(20, 15, dtype=torch.bool), 20, 25)
    changed = (found != image).any(0)
    assert changed[21:39, 26:39].float().mean() > 0.9
    changed[21:39, 26:39] = False
    assert not changed.any()
    assert found.dtype == torch.float32


def test_a_patch_of_the_image_itself_changes_nothing():
    image, _ = images(30, 30)
    for mixed in (False, True):
        found = poisson_blended(image, image[:, 5:25, 5:25], torch.ones(20, 20, dtype=torch.bool), 5, 5, mixed)
        torch.testing.assert_close(found, image, rtol=0, atol=1e-4)


def test_mixed_gradients_keep_what_is_in_the_image():
    """A flat patch removes a line from the image; with mixed gradients the line stays."""
    image = torch.full((3, 30, 30), 0.5)
    image[:, 15] = 0.9
    flat, mask = torch.full((3, 20, 20), 0.5), torch.ones(20, 20, dtype=torch.bool)
    plain, mixed = (poisson_blended(image, flat, mask, 5, 5, m)[0, 15, 15] for m in (False, True))
    assert float(plain) < 0.7
    assert float(mixed) == pytest.approx(0.9, abs=1e-3)


def test_values_stay_in_range():
    image = torch.rand(3, 40, 40, generator=source())
    found = poisson_blended(image, 1 - image, torch.ones(40, 40, dtype=torch.bool), 0, 0)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_an_empty_mask_changes_nothing_and_a_patch_outside_is_refused():
    image = torch.rand(3, 20, 20, generator=source())
    assert torch.equal(poisson_blended(image, image, torch.zeros(20, 20, dtype=torch.bool), 0, 0), image)
    mask = torch.ones(10, 10, dtype=torch.bool)
    for top, left in ((11, 0), (0, 11), (-1, 0)):
        with pytest.raises(BadConfig):
            poisson_blended(image, image[:, :10, :10], mask, top, left)
    with pytest.raises(BadConfig):
        poisson_blended(image, image[:, :9, :10], mask, 0, 0)
