import pytest
import torch
from torchvision.transforms.v2 import functional

from iadbe.layers.synthetic.photometric import (
    brightness,
    brightness_and_dots,
    colour_jitter,
    contrast,
    hue_shifted,
    jittered,
    saturation,
)


def test_changed_images_stay_in_range_and_about_half_change():
    image = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    changed = brightness_and_dots(image, torch.Generator().manual_seed(0))
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    same = (changed == image).flatten(1).float().mean(1)
    assert 0.3 < float((same == 1).float().mean()) < 0.7  # 0.7 squared remain as they are
    dotted = same[(same > 0.5) & (same < 1)]
    assert 0.9 < float(dotted.mean()) < 0.99


def test_brightness_changes_by_a_tenth_at_most():
    image = torch.full((60, 3, 8, 8), 0.5)
    middle = brightness_and_dots(image, torch.Generator().manual_seed(2)).flatten(1).median(1).values
    assert float(middle.min()) < 0.48 < 0.52 < float(middle.max())
    assert bool(((middle - 0.5).abs() <= 0.05 + 1e-6).all())


def test_the_share_of_dots_is_drawn_up_to_three_percent():
    """CPR's code draws it for each image, half of the dots white and half black."""
    image = torch.full((200, 3, 40, 40), 0.5)
    changed = brightness_and_dots(image, torch.Generator().manual_seed(4))
    white, black = ((changed == value).all(1).flatten(1).float().mean(1) for value in (1, 0))
    dotted = white + black > 0
    share = (white + black)[dotted]
    assert 0.2 < float(dotted.float().mean()) < 0.4
    assert float(share.mean()) == pytest.approx(0.015, abs=0.004)
    assert float(share.min()) < 0.005 < 0.025 < float(share.max()) < 0.04
    assert float(white.mean() / black.mean()) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("change", [brightness, contrast, saturation])
def test_changes_are_torchvisions(change):
    shown = torch.rand(3, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    factors = [0.8, 1.0, 1.2]
    expected = [getattr(functional, f"adjust_{change.__name__}")(i, f) for i, f in zip(shown, factors, strict=True)]
    found = change(shown, torch.tensor(factors).view(3, 1, 1, 1))
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=2e-4)  # its grey has four digits


def test_jitter_changes_one_of_the_three_by_a_factor_within_reach():
    shown = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    found = jittered(shown, torch.Generator().manual_seed(1), 0.2)
    kinds = [0, 0, 0]
    for before, after in zip(shown[:, None], found[:, None], strict=True):
        fits = []
        for change in (brightness, contrast, saturation):
            errors = [float((change(before, torch.tensor(f / 1000)) - after).abs().max()) for f in range(800, 1201, 5)]
            fits.append(min(errors))
        assert min(fits) < 3e-3
        kinds[fits.index(min(fits))] += 1
    assert min(kinds) > 10
    assert torch.equal(found, jittered(shown, torch.Generator().manual_seed(1), 0.2))


def drawn_images(count=3):
    image = torch.rand(count, 3, 9, 8, generator=torch.Generator().manual_seed(5))
    image[0, :, 0, 0] = 0.4  # grey, without a hue
    return image


@pytest.mark.parametrize("shift", [-0.3, 0.05, 0.5])
def test_hues_shift_as_in_torchvision(shift):
    found = hue_shifted(drawn_images(), torch.full((3, 1, 1, 1), shift))
    torch.testing.assert_close(found, functional.adjust_hue(drawn_images(), shift), rtol=0, atol=2e-6)


def test_colour_jitter_is_torchvisions_in_a_fixed_order():
    image = drawn_images(1)
    found = colour_jitter(image, torch.Generator().manual_seed(3), 0.4)
    drawn = (torch.rand(4, 1, generator=torch.Generator().manual_seed(3)) * 2 - 1)[:, 0].tolist()
    bright, contrast, saturation = (1 + 0.4 * d for d in drawn[:3])
    expected = functional.adjust_contrast(functional.adjust_brightness(image, bright), contrast)
    expected = functional.adjust_hue(functional.adjust_saturation(expected, saturation), 0.4 * drawn[3])
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-4)  # its grey has four digits
    torch.testing.assert_close(colour_jitter(image, torch.Generator(), 0.0), image, rtol=0, atol=2e-6)


def test_contrast_is_about_the_mean_of_the_region():
    image = drawn_images(1)
    region = torch.zeros(1, 1, 9, 8, dtype=torch.bool)
    region[:, :, 2:6, 3:7] = True
    inside, alone = (
        colour_jitter(i, torch.Generator().manual_seed(3), 0.3, r)
        for i, r in ((image, region), (image[:, :, 2:6, 3:7], None))
    )
    torch.testing.assert_close(inside[:, :, 2:6, 3:7], alone)
