import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from iadbe.layers.features.anomaly_map import gaussian_blur, upsampled

MAPS = torch.rand(2, 3, 40, 52, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sigma", [0.7, 1.5, 4.0])
def test_it_is_scipys_gaussian_away_from_the_border_rule(sigma):
    """Scipy's "mirror" is torch's "reflect": the border pixel is not repeated."""
    expected = gaussian_filter(MAPS.double().numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=4.0)
    np.testing.assert_allclose(gaussian_blur(MAPS, sigma).numpy(), expected, atol=1e-5)


def test_the_kernel_can_be_truncated_earlier():
    maps = torch.rand(1, 1, 9, 11, generator=torch.Generator().manual_seed(0))
    line = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / (2 * 4**2))
    window = line.outer(line) / line.sum() ** 2
    expected = torch.nn.functional.conv2d(maps, window[None, None])
    torch.testing.assert_close(gaussian_blur(maps, 4.0, radius=1)[..., 1:-1, 1:-1], expected)


def test_a_constant_stays_constant_and_zero_sigma_changes_nothing():
    flat = torch.full((1, 1, 20, 20), 3.0)
    torch.testing.assert_close(gaussian_blur(flat, 4.0), flat)
    assert torch.equal(gaussian_blur(MAPS, 0), MAPS)


def test_a_map_smaller_than_the_kernel_is_no_problem():
    found = gaussian_blur(MAPS[:, :, :5, :6], 4.0)
    assert found.shape == (2, 3, 5, 6)
    assert torch.isfinite(found).all()


def test_upsampling_keeps_where_things_are():
    scores = torch.zeros(1, 8, 8)
    scores[0, 2, 5] = 1
    found = upsampled(scores, (64, 96))
    assert found.shape == (1, 64, 96)
    y, x = divmod(int(found.argmax()), 96)
    assert abs(y - (2.5 * 8 - 0.5)) <= 1
    assert abs(x - (5.5 * 12 - 0.5)) <= 1
    assert upsampled(scores, 32).shape == (1, 32, 32)


def test_without_smoothing_it_is_bilinear():
    scores = torch.rand(2, 4, 4)
    expected = torch.nn.functional.interpolate(scores[:, None], size=(16, 16), mode="bilinear")[:, 0]
    assert torch.equal(upsampled(scores, 16, sigma=0), expected)


def halves(height, width):
    """Return a region of which the left half counts, at eight times the size of a grid."""
    region = torch.zeros(2, 8 * height, 8 * width, dtype=torch.bool)
    region[:, :, : 4 * width] = True
    return region


@pytest.mark.parametrize("sigma", [0.0, 4.0])
def test_what_does_not_count_reaches_no_pixel(sigma):
    scores = torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(0))
    loud = scores.clone()
    loud[:, :, 4:] = 1000
    region = halves(6, 8)
    quiet, changed = (upsampled(some, (48, 64), sigma, region=region) for some in (scores, loud))
    assert torch.equal(quiet, changed)
    assert changed.amax() <= scores[:, :, :4].amax() + 1e-5
    assert upsampled(loud, (48, 64), sigma)[:, :, :30].amax() > 10


def test_far_from_what_does_not_count_nothing_changes():
    scores = torch.rand(2, 6, 16, generator=torch.Generator().manual_seed(0))
    plain, own = upsampled(scores, (48, 128), 2.0), upsampled(scores, (48, 128), 2.0, region=halves(6, 16))
    torch.testing.assert_close(own[:, :, :48], plain[:, :, :48])
    assert not torch.allclose(own[:, :, 60:64], plain[:, :, 60:64])


def test_a_constant_stays_constant_within_any_region():
    region = torch.rand(2, 48, 64, generator=torch.Generator().manual_seed(0)) < 0.1
    torch.testing.assert_close(
        upsampled(torch.full((2, 6, 8), 3.0), (48, 64), region=region), torch.full((2, 48, 64), 3.0)
    )


def test_maps_of_pixels_are_blurred_over_what_counts():
    region = halves(5, 6)[:, :, :48][:, :40]
    maps = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    weight = torch.from_numpy(gaussian_filter(region.double().numpy(), (0, 3, 3), mode="mirror"))
    total = gaussian_filter((maps * region[:, None]).double().numpy(), (0, 0, 3, 3), mode="mirror")
    expected = torch.from_numpy(total) / weight[:, None]
    found = gaussian_blur(maps, 3.0, region=region)
    torch.testing.assert_close(found[..., :24].double(), expected[..., :24], rtol=1e-4, atol=1e-5)
    assert torch.equal(gaussian_blur(maps, 0, region=region), maps)
    whole = torch.ones(2, 40, 48, dtype=torch.bool)
    torch.testing.assert_close(gaussian_blur(maps, 3.0, region=whole), gaussian_blur(maps, 3.0))
