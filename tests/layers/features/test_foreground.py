import numpy as np
import pytest
import torch
from scipy import ndimage

from iadbe.layers.features.foreground import DILATION, gaps_filled, ground, relative_depth


def scene(seed=0, size=(24, 32)):
    """Return depth (1, 1, H, W): tilted ground, a block 2 cm high, 10 % not measured; and where the block is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    z = 0.5 + 0.0005 * x - 0.0003 * y
    block = np.zeros(size, bool)
    block[8:16, 10:22] = True
    z[block] -= 0.02
    hidden = rng.random(size) < 0.1
    hidden[[0, 0, -1, -1], [0, -1, 0, -1]] = False
    z[hidden] = np.nan
    return torch.from_numpy(z.astype(np.float32))[None, None], block


def direct_filling(z):
    """Fill each missing pixel with the mean of its measured neighbours, one after the other into a copy."""
    found = z.copy()
    for row, column in np.argwhere(np.isnan(z)):
        near = z[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        if np.isfinite(near).any():
            found[row, column] = near[np.isfinite(near)].mean()
    return found


def test_gaps_are_filled_from_their_borders():
    depth, _ = scene()
    depth[..., 3:10, 3:10] = torch.nan  # a large gap closes by one pixel a time
    expected = depth[0, 0].double().numpy()
    for times in (1, 2, 3):
        expected = direct_filling(expected)
        np.testing.assert_allclose(gaps_filled(depth.double(), times)[0, 0].numpy(), expected)
    assert gaps_filled(depth)[0, 0, 6, 6].isnan()
    assert gaps_filled(torch.full_like(depth, torch.nan)).isnan().all()


def test_the_ground_passes_through_the_corners():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    plane = (3 + 0.1 * x - 0.2 * y)[None, None]
    found = ground(plane)
    torch.testing.assert_close(found, plane, atol=0.2, rtol=0)  # half a pixel, as corners are means of 2 x 2
    assert float(found[0, 0, 0, 0]) == pytest.approx(float(plane[0, 0, :2, :2].mean()))
    assert float(found[0, 0, -1, 0]) == pytest.approx(float(plane[0, 0, -2:, :2].mean()))
    assert float(found[0, 0, 0, -1]) == pytest.approx(float(plane[0, 0, :2, -2:].mean()))
    plane[..., :2, :2] = torch.nan  # this corner is the mean of the others
    rest = [plane[0, 0, -2:, :2], plane[0, 0, :2, -2:], plane[0, 0, -2:, -2:]]
    assert float(ground(plane)[0, 0, 0, 0]) == pytest.approx(float(torch.stack([r.mean() for r in rest]).mean()))


def test_the_foreground_is_what_stands_out_and_its_depth_is_relative_to_its_mean():
    depth, block = scene()
    small, mask = relative_depth(depth, depth.shape[-2:], 7e-3)
    z = gaps_filled(depth)[0, 0].double().numpy()
    front = np.abs(z - ground(gaps_filled(depth))[0, 0].numpy()) > 7e-3
    assert (front & block).sum() == block.sum()
    assert (front & ~block).sum() < 12  # gaps at its edge, filled from both sides
    expected = np.where(front, (z - z[front].mean()) * 100, 0)
    np.testing.assert_allclose(small[0, 0].numpy(), expected, atol=1e-3)
    dilated = ndimage.binary_dilation(front, np.ones((DILATION, DILATION)))
    assert mask[0, 0].numpy().sum() == dilated.sum()
    assert (mask[0, 0].numpy()[block] == 1).all()


def test_images_do_not_affect_each_other_and_an_empty_one_is_all_ground():
    depth = torch.cat([scene(0)[0], scene(1)[0], torch.full((1, 1, 24, 32), torch.nan)])
    small, mask = relative_depth(depth, (12, 16), 7e-3)
    for k in range(3):
        alone = relative_depth(depth[k : k + 1], (12, 16), 7e-3)
        torch.testing.assert_close(alone[0][0], small[k])
        torch.testing.assert_close(alone[1][0], mask[k])
    assert (small[2] == 0).all()
    assert (mask[2] == 0).all()


def test_without_corners_all_that_was_measured_is_foreground():
    depth = torch.full((1, 1, 24, 32), torch.nan)
    depth[..., 10:14, 10:14] = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    _, mask = relative_depth(depth, (24, 32), 7e-3)
    assert (mask[..., 10:14, 10:14] == 1).all()
    assert (mask[..., :2, :] == 0).all()
