import numpy as np
import torch

from iadbe.layers.foreign.boxes import box_map, mask_map, regions_of


def reference_box_map(boxes, confidence, height, width):
    """Pixel by pixel: the highest confidence of the boxes over its centre."""
    found = torch.zeros(height, width)
    for y in range(height):
        for x in range(width):
            over = [
                float(c)
                for (x0, y0, x1, y1), c in zip(boxes.tolist(), confidence, strict=True)
                if x0 <= x + 0.5 <= x1 and y0 <= y + 0.5 <= y1
            ]
            found[y, x] = max(over, default=0.0)
    return found


def test_a_pixel_has_the_highest_confidence_of_the_boxes_over_it():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(5, 2, generator=generator) * 8
    boxes = torch.cat([corner, corner + 1 + torch.rand(5, 2, generator=generator) * 6], 1)
    confidence = torch.rand(5, generator=generator)
    assert torch.equal(box_map(boxes, confidence, 9, 12), reference_box_map(boxes, confidence, 9, 12))


def test_without_a_box_or_a_mask_the_map_is_zero():
    assert torch.equal(box_map(torch.empty(0, 4), torch.empty(0), 3, 5), torch.zeros(3, 5))
    assert torch.equal(mask_map(torch.zeros(0, 3, 5, dtype=torch.bool), torch.empty(0)), torch.zeros(3, 5))


def test_masks_that_overlap_give_the_higher_confidence():
    masks = torch.zeros(2, 2, 3, dtype=torch.bool)
    masks[0, :, :2], masks[1, 0] = True, True
    expected = torch.tensor([[0.9, 0.9, 0.9], [0.4, 0.4, 0.0]])
    assert torch.equal(mask_map(masks, torch.tensor([0.4, 0.9])), expected)


def test_regions_touch_at_corners_and_their_boxes_are_shares():
    mask = np.zeros((10, 20), bool)
    mask[1, 2] = mask[2, 3] = True  # one region, by the corner
    mask[5:9, 10:20] = True
    (first, pixels), (second, _) = regions_of(mask)
    assert first == (3 / 20, 2 / 10, 2 / 20, 2 / 10)
    assert second == (15 / 20, 7 / 10, 10 / 20, 4 / 10)
    assert pixels.sum() == 2
    assert regions_of(np.zeros((4, 4), bool)) == []
