import pytest
import torch

from iadbe.layers.synthetic.photometric import brightness_and_dots


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
