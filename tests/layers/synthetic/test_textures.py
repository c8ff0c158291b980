import numpy as np
import pytest
import torch
from PIL import Image

from iadbe import progress
from iadbe.errors import BadConfig
from iadbe.layers.synthetic.textures import TextureSource, procedural_textures, recoloured, shuffled_tiles


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn_image(count=4, side=32):
    return torch.rand(count, 3, side, side, generator=source(9))


def test_textures_follow_from_the_generator_and_stay_in_range():
    one, two, other = (TextureSource()(drawn_image(), source(s)) for s in (0, 0, 1))
    assert one.shape == (4, 3, 32, 32)
    assert torch.equal(one, two)
    assert not torch.allclose(one, other, atol=0.1)
    assert 0 <= float(one.min()) <= float(one.max()) <= 1


def test_shuffled_tiles_keep_the_pixels_of_the_tiles():
    image = drawn_image(2, 35)
    found = shuffled_tiles(image, source(), 4)
    for before, after in zip(image, found, strict=True):
        tiles = [before[:, i : i + 8, j : j + 8] for i in range(0, 32, 8) for j in range(0, 32, 8)]
        mixed = [after[:, i : i + 8, j : j + 8] for i in range(0, 32, 8) for j in range(0, 32, 8)]
        where = [next(k for k, t in enumerate(tiles) if torch.equal(t, m)) for m in mixed]
        assert sorted(where) == list(range(16))
        assert where != list(range(16))
        assert torch.equal(before[:, 32:], after[:, 32:])


def test_procedural_textures_differ_and_have_structure():
    found = procedural_textures(20, 64, 64, source())
    colour = found.mean((2, 3))
    assert float(torch.cdist(colour, colour).sum()) / 380 > 0.3
    fine = found.diff(dim=-1).abs().mean((1, 2, 3))
    assert float((found.flatten(2).std(2).mean(1) > fine).float().mean()) > 0.7  # most are smoother than noise


def test_recoloured_textures_keep_their_structure():
    image = (drawn_image(8) > 0.5).float()
    found = recoloured(image, source())
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    for before, after in zip(image, found, strict=True):
        for channel, new in zip(before, after, strict=True):
            assert len(new[channel == 1].unique()) == len(new[channel == 0].unique()) == 1


def test_textures_come_from_a_folder_if_one_is_given(tmp_path):
    (tmp_path / "dots").mkdir()
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(tmp_path / "dots/a.png")
    found = TextureSource(str(tmp_path), shuffled=0.0)(drawn_image(), source())
    assert float(found.flatten(2).std(2).max()) == 0  # one colour, though another one
    with pytest.raises(BadConfig, match="no image"):
        TextureSource(str(tmp_path / "nothing"))


def test_foreign_textures_can_be_left_as_they_are(tmp_path):
    colour = (10, 200, 90)
    Image.new("RGB", (32, 32), colour).save(tmp_path / "one.png")
    image = drawn_image(40)
    found = TextureSource(str(tmp_path), shuffled=0.5, recolour_foreign=False)(image, source())
    foreign = (found == torch.tensor(colour).view(3, 1, 1) / 255).flatten(1).all(1)
    assert 10 < int(foreign.sum()) < 30
    recoloured_too = TextureSource(str(tmp_path), shuffled=0.5)(image, source())
    assert torch.equal(found[~foreign], recoloured_too[~foreign])  # shuffled tiles are recoloured either way
    assert not torch.equal(found[foreign], recoloured_too[foreign])


def test_drawn_textures_are_noted(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    for folder, count in (("", 1), (str(tmp_path), 0)):
        notes = []
        with progress.collecting_notes(notes):
            for seed in range(2):
                TextureSource(folder)(drawn_image(), source(seed))
        assert len(notes) == count
        assert all("textures=FOLDER" in note for note in notes)
