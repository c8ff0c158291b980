import torch

from iadbe.layers.synthetic.blending import blended


def test_a_texture_shows_only_in_the_mask_and_as_much_as_drawn():
    image, texture = torch.zeros(64, 3, 8, 8), torch.ones(64, 3, 8, 8)
    mask = torch.zeros(64, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    found = blended(image, mask, texture, torch.Generator().manual_seed(0), (0.2, 0.6))
    assert float(found[..., 4:].max()) == 0
    shares = found[..., :4].flatten(1)
    assert torch.equal(shares.amin(1), shares.amax(1))  # one opacity for a whole image
    assert 0.2 <= float(shares.min()) < 0.25
    assert 0.55 < float(shares.max()) <= 0.6
