import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from drawn_images import batch, images, parts
from iadbe.errors import BadConfig, Missing, UnknownName

pytest.importorskip("open_clip", reason="the extra clip is not installed")

from iadbe.detectors import winclip
from iadbe.detectors.winclip import ANOMALOUS_STATES, NORMAL_STATES, WinCLIP, harmonic_mean, prompts, spread_windows

SMALL = "ViT-S-32-alt"  # 7 x 7 patches of an image of 224 x 224


def make(**params):
    return WinCLIP(**{"model": SMALL, "weights": "none", **params})


@pytest.fixture(scope="module")
def detector():
    return make()


def shown(count=1, size=224, seed=0, **more):
    return batch(parts(count, side=size, seed=seed, **more))


def test_prompts_are_composed_of_states_and_templates():
    flawless, damaged = prompts("metal nut", NORMAL_STATES), prompts("metal nut")
    assert (len(flawless), len(damaged)) == (7 * 22, 4 * 22)
    assert len({*flawless, *damaged}) == 11 * 22
    assert {"a photo of a metal nut.", "a close-up photo of the flawless metal nut."} <= set(flawless)
    assert "a photo of the small metal nut with damage for anomaly detection." not in damaged
    assert {"a photo of the small metal nut with damage.", "a jpeg corrupted photo of a damaged metal nut."} <= set(
        damaged
    )
    assert "a photo of the metal nut with flaw for visual inspection." in damaged


def test_text_embeddings_are_clips(detector):
    """Without computing the padding."""
    texts = ["a photo of a nut.", "a jpeg corrupted photo of the unblemished metal nut."]
    with torch.no_grad():
        expected = detector.clip.encode_text(winclip.open_clip.get_tokenizer(SMALL)(texts))
    torch.testing.assert_close(detector._encode_text(texts), expected, rtol=1e-3, atol=1e-5)


def test_a_text_embedding_is_the_mean_over_prompts(detector):
    about = detector._text_embedding("nut")
    for row, states in zip(about, (NORMAL_STATES, ANOMALOUS_STATES), strict=True):
        literal = F.normalize(detector._encode_text(prompts("nut", states)), dim=1).mean(0)
        torch.testing.assert_close(row, literal / literal.norm(), rtol=1e-3, atol=1e-5)


def test_image_embeddings_are_clips(detector):
    view = shown(2)
    with torch.no_grad():
        expected = F.normalize(detector.clip.encode_image((view.image - detector.mean) / detector.std), dim=1)
    whole, patches, windows = detector._encode_image(view)
    torch.testing.assert_close(whole, expected, rtol=1e-3, atol=1e-5)
    assert patches.shape == (2, 49, 384)
    assert [w.shape for w in windows] == [(2, 36, 256), (2, 25, 256)]


def test_a_window_of_the_whole_image_equals_the_image(detector):
    whole, _, windows = make(windows=(7,))._encode_image(shown(2))
    torch.testing.assert_close(windows[0][:, 0], whole, rtol=1e-3, atol=1e-5)


def test_a_window_depends_on_its_patches_only(detector):
    """The third window of the second row has the patches 9, 10, 16 and 17."""
    view = shown()
    image = torch.rand(view.image.shape, generator=torch.Generator().manual_seed(0))
    image[..., 32:96, 64:128] = view.image[..., 32:96, 64:128]
    one, two = (detector._encode_image(replace(view, image=i))[2][0][0] for i in (view.image, image))
    torch.testing.assert_close(one[6 + 2], two[6 + 2], rtol=1e-3, atol=1e-5)
    assert (one[0] - two[0]).abs().max() > 1e-3


def test_other_sizes_are_resized(detector):
    assert detector._encode_image(shown(size=64))[1].shape == (1, 49, 384)
    assert detector.predict(shown(size=64)).map.shape == (1, 64, 64)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_patch_has_the_harmonic_mean_of_its_windows(width):
    side, count = 5, 5 - width + 1
    scores = torch.rand(2, count**2, generator=torch.Generator().manual_seed(0)) + 0.1
    expected = torch.zeros(2, side, side)
    for row in range(side):
        for column in range(side):
            over = [
                scores[:, y * count + x]
                for y in range(count)
                for x in range(count)
                if y <= row < y + width and x <= column < x + width
            ]
            expected[:, row, column] = len(over) / sum(1 / s for s in over)
    torch.testing.assert_close(spread_windows(scores, width), expected)
    assert torch.isfinite(spread_windows(torch.zeros(1, count**2), width)).all()


def test_the_zero_shot_map_is_the_harmonic_mean_of_scales(detector):
    view = shown()
    whole, _, windows = detector._encode_image(view)
    about = detector._text_embedding("part")
    damaged = [((rows @ about.T) / 0.07).exp() for rows in (whole, windows[0][0], windows[1][0])]
    image, small, middle = (d[:, 1] / d.sum(1) for d in damaged)
    literal = 3 / (1 / image + 1 / spread_windows(small[None], 2) + 1 / spread_windows(middle[None], 3))
    found = detector.predict(view)
    torch.testing.assert_close(found.score, image, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.map, F.interpolate(literal[None], (224, 224), mode="bilinear")[0])
    torch.testing.assert_close(harmonic_mean(torch.tensor([[1.0], [0.5], [0.25]])), torch.tensor([3 / 7]))


def test_few_shot_compares_patches_and_windows_with_the_references():
    few, none = make(), make()
    few.fit(images(parts(2, side=224)), np.random.default_rng(0))
    assert [len(getattr(few, f"reference{i}")) for i in range(3)] == [2 * 49, 2 * 36, 2 * 25]
    view = shown(seed=4, defective=True)
    _, patches, windows = few._encode_image(view)
    maps = []
    for scale, (rows, width) in enumerate(zip((patches, *windows), (1, 2, 3), strict=True)):
        least = (1 - rows[0] @ getattr(few, f"reference{scale}").T).amin(1) / 2
        maps.append(spread_windows(least[None], width))
    distance = sum(maps) / 3
    found, zero = few.predict(view), none.predict(view)
    torch.testing.assert_close(found.score, (zero.score + distance.max()) / 2, rtol=1e-3, atol=1e-5)
    expected = (zero.map + F.interpolate(distance[None], (224, 224), mode="bilinear")[0]) / 2
    torch.testing.assert_close(found.map, expected, rtol=1e-3, atol=1e-5)
    known = batch(parts(2, side=224))
    torch.testing.assert_close(few.predict(known).score, none.predict(known).score / 2, rtol=1e-3, atol=1e-5)


def test_the_object_name_is_the_category_unless_given(detector):
    view = shown(2)
    assert detector._names(replace(view, category=("metal_nut", ""))) == ["metal nut", "object"]
    assert detector._names(replace(view, category=())) == ["object", "object"]
    named = make(name="M6 nut")
    assert named._names(replace(view, category=("metal_nut", "pill"))) == ["M6 nut", "M6 nut"]


def test_objects_of_different_names_can_share_a_batch(detector):
    view = replace(shown(2), category=("nut", "leather"))
    together = detector.predict(view).score
    alone = [
        detector.predict(replace(shown(2), category=(name, name))).score[i] for i, name in enumerate(view.category)
    ]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-6)
    other = detector.predict(replace(view, category=("leather", "leather"))).score
    assert together[0] != other[0]


def test_weights_can_come_from_a_file(detector, tmp_path):
    state = {k: v + 0.01 for k, v in detector.clip.state_dict().items()}
    torch.save(state, tmp_path / "clip.pt")
    filled = make(weights=str(tmp_path / "clip.pt"))
    assert all(torch.equal(v, state[k]) for k, v in filled.clip.state_dict().items())
    assert filled.weights() != detector.weights() == make().weights()
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(BadConfig, match="cannot be read as weights"):
        make(weights=str(tmp_path / "junk.pt"))


def test_unavailable_weights_are_reported_as_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(winclip, "CACHE", str(tmp_path))
    monkeypatch.setattr(winclip, "hub_is_reachable", lambda: False)
    with pytest.raises(Missing, match="give the file as weights=FILE"):
        winclip._weight_file("ViT-B-16-plus-240", "auto")
    with pytest.raises(BadConfig, match="no weights 'laion5b'"):
        winclip._weight_file("ViT-B-16-plus-240", "laion5b")
    kept = tmp_path / "vit_b_16_plus_240-laion400m_e32-699c4b84.pt"
    kept.touch()
    assert winclip._weight_file("ViT-B-16-plus-240", "auto") == kept


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"windows": (2, 8)}, BadConfig, "1 to 7 patches"),
        ({"temperature": 0}, BadConfig, "above 0"),
        ({"model": "ViT-S-32-alta"}, UnknownName, "Did you mean ViT-S-32-alt"),
        ({"model": "RN50"}, BadConfig, "not a plain CLIP"),
    ],
)
def test_impossible_parameters_are_refused(wrong, error, message):
    with pytest.raises(error, match=message):
        make(**wrong)


def test_random_weights_give_no_warning(caplog, capfd):
    make()
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_without_open_clip_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    monkeypatch.delitem(sys.modules, "iadbe.detectors.winclip")
    with pytest.raises(Missing, match=r"pip install 'iadbe\[clip\]'"):
        importlib.import_module("iadbe.detectors.winclip")
