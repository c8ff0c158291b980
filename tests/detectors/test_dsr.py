import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.data.images import Batch
from iadbe.detectors import dsr
from iadbe.detectors.dsr import DSR, with_wrong_codes
from iadbe.errors import BadConfig
from iadbe.layers.blocks.codebook import Codebook

SMALL = {"width": 4, "codes": 40, "steps": 2, "batch": 4}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=source(seed))


@pytest.fixture
def detector():
    torch.manual_seed(0)
    return DSR(**SMALL).eval()


def test_wrong_codes_are_near_ones_but_not_the_nearest():
    torch.manual_seed(0)
    book = Codebook(100, 6)
    features, mask = torch.randn(2, 6, 8, 8, generator=source()), torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    mask[0, 0, 5, 9] = True  # one pixel of the cell in row 1 and column 2
    mask[1] = True
    quantised = book(features)
    ranks = [set(), set()]
    for seed in range(30):
        found = with_wrong_codes(book, features, quantised, mask, torch.tensor([0.2, 0.5]), source(seed))
        changed = (found != quantised).any(1)
        assert changed[0].nonzero().tolist() == [[1, 2]]
        assert changed[1].all()
        for b, i, j in changed.nonzero().tolist():
            order = (book.codes - features[b, :, i, j]).square().sum(1).argsort()
            where = (book.codes[order] == found[b, :, i, j]).all(1).nonzero()
            ranks[b].add(int(where))
    assert min(ranks[0]) >= 5
    assert max(ranks[0]) <= 20  # of int(0.2 * 100) + 1, counted from 0
    assert (min(ranks[1]), max(ranks[1])) == (5, 50)


def test_the_strongest_defects_reach_all_but_the_farthest_code():
    torch.manual_seed(0)
    book, features = Codebook(3, 2), torch.randn(1, 2, 4, 4, generator=source())
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    found = with_wrong_codes(book, features, book(features), mask, torch.tensor([1.0]), source())
    order = torch.cdist(features.permute(0, 2, 3, 1), book.codes).argsort(3)
    for i in range(4):
        for j in range(4):
            assert any(torch.equal(found[0, :, i, j], book.codes[k]) for k in order[0, i, j, :2])


def test_defects_are_in_both_resolutions_or_in_either_and_masks_follow(detector):
    """Where the given bad features differ from the good ones, and only there, the mask of their resolution is set."""
    image, mask = drawn(40, 3, 32, 32), torch.zeros(40, 1, 32, 32, dtype=torch.bool)
    mask[:, :, 13, 21] = True
    good, bad, seen = detector._with_defects(image, mask, source())
    counts = {"both": 0, "coarse": 0, "fine": 0}
    for b in range(40):
        changed = [bool((x[b] != y[b]).any()) for x, y in zip(good, bad, strict=True)]
        coarse, fine = torch.zeros(1, 32, 32, dtype=torch.bool), torch.zeros(1, 32, 32, dtype=torch.bool)
        coarse[:, 8:16, 16:24] = True
        fine[:, 12:16, 20:24] = True
        if changed[0] and torch.equal(bad[0][b][:, 1, 2], good[0][b][:, 1, 2]):
            pytest.fail("the masked cell is not changed")
        kind = "both" if all(changed) else "coarse" if changed[0] else "fine"
        counts[kind] += 1
        assert torch.equal(seen[b], fine if kind == "fine" else coarse)
        if kind == "fine":
            assert (bad[1][b] != good[1][b]).any(0).nonzero().tolist() == [[3, 5]]
    assert counts["both"] > 10
    assert counts["coarse"] > 3
    assert counts["fine"] > 3


def test_nothing_masked_nothing_changed(detector):
    good, bad, seen = detector._with_defects(drawn(4, 3, 32, 32), torch.zeros(4, 1, 32, 32).bool(), source())
    assert all(torch.equal(x, y) for x, y in zip(good, bad, strict=True))
    assert not seen.any()


def test_the_loss_of_detection_is_the_sum_of_the_papers_terms(detector, monkeypatch):
    image, seen = drawn(2, 3, 64, 64), drawn(2, 1, 64, 64, seed=1) > 0.5
    good = torch.randn(2, 4, 8, 8, generator=source()), torch.randn(2, 4, 16, 16, generator=source(1))
    bad = torch.randn(2, 4, 8, 8, generator=source(2)), torch.randn(2, 4, 16, 16, generator=source(3))
    monkeypatch.setattr(detector, "_with_defects", lambda *given: (good, bad, seen))
    found = detector._detection_loss(image, seen, source())
    model = detector.autoencoder
    restored = detector.coarse_restriction(bad[0]), detector.fine_restriction(bad[1])
    quantised = model.coarse_codes(restored[0]), model.fine_codes(restored[1])
    repaired = detector.object_decoder(torch.cat([model.doubling(quantised[0]), quantised[1]], 1))
    general = model.decoder(torch.cat([model.doubling(bad[0]), bad[1]], 1))
    right = detector.detection(torch.cat([repaired, general], 1)).softmax(1).gather(1, seen.long())
    focal = (-((1 - right) ** 2) * right.log()).mean()
    features = sum(((x - y) ** 2).mean() for x, y in zip(restored, good, strict=True))
    torch.testing.assert_close(found, features + 10 * ((repaired - image) ** 2).mean() + focal)


def test_the_mask_does_not_train_the_image(detector, monkeypatch):
    """The networks that restore are trained by features and image alone."""
    image, mask = drawn(2, 3, 64, 64), drawn(2, 1, 64, 64, seed=1) > 0.5
    detector.autoencoder.requires_grad_(False)
    monkeypatch.setattr(dsr, "IMAGE_WEIGHT", 0.0)
    detector._detection_loss(image, mask, source()).backward()
    assert all(p.grad is None or not p.grad.any() for p in detector.object_decoder.parameters())
    assert any(p.grad.any() for p in detector.fine_restriction.parameters())
    assert any(p.grad.any() for p in detector.detection.parameters())


def test_the_score_is_of_the_first_mask_and_the_map_is_the_refined_one(detector):
    image = drawn(2, 3, 48, 48)
    found = detector.predict(Batch(image))
    model = detector.requires_grad_(False).autoencoder
    coarse, fine = model(image.flip(1))  # blue first
    restored = detector.coarse_restriction(coarse), detector.fine_restriction(fine)
    repaired = detector.object_decoder(model.joined(model.coarse_codes(restored[0]), model.fine_codes(restored[1])))
    general = model.decoder(model.joined(coarse, fine))
    mask = detector.detection(torch.cat([repaired, general], 1)).softmax(1)
    refined = detector.upsampling(torch.cat([repaired, general, mask], 1)).softmax(1)
    torch.testing.assert_close(found.map, refined[:, 1])
    padded = F.pad(mask[:, 1], (10, 10, 10, 10))
    means = [
        [float(padded[b, i : i + 21, j : j + 21].sum()) / 441 for i in range(48) for j in range(48)] for b in range(2)
    ]
    torch.testing.assert_close(found.score, torch.tensor(means).amax(1))


@pytest.mark.parametrize("side", [45, 64])
def test_views_of_any_side_from_forty_on(side):
    detector, train = DSR(**SMALL), images(parts(4, side=side))
    detector.fit(train, np.random.default_rng(0))
    assert detector.predict(batch(parts(2, side=side))).map.shape == (2, side, side)
    with pytest.raises(BadConfig, match="at least 40 x 40 pixels, not 39"):
        detector.fit(images(parts(4, side=39)), np.random.default_rng(0))


def test_each_stage_trains_its_own_networks(monkeypatch):
    detector = DSR(**SMALL)
    parts_of = {
        "autoencoder": ("autoencoder",),
        "detection": ("coarse_restriction", "fine_restriction", "object_decoder", "detection"),
        "upsampling": ("upsampling",),
    }
    every = {name for names in parts_of.values() for name in names}
    for stage, own in parts_of.items():
        plain = getattr(detector, f"_train_{stage}")

        def watched(*given, plain=plain, own=own):
            before = {n: {k: v.clone() for k, v in getattr(detector, n).state_dict().items()} for n in every}
            plain(*given)
            for name in every:
                now = getattr(detector, name).state_dict()
                changed = [k for k, v in now.items() if not torch.equal(v, before[name][k])]
                assert bool(changed) is (name in own), name

        monkeypatch.setattr(detector, f"_train_{stage}", watched)
    notes = []
    with progress.collecting_notes(notes):
        detector.fit(images(parts(6)), np.random.default_rng(0))
    assert dsr.OWN_AUTOENCODER in notes


def authors_file(tmp_path, detector):
    """The tensors of a detector's autoencoder under the authors' names."""
    names = {
        "fine.0": "_encoder_b._conv_1",
        "fine.2": "_encoder_b._conv_2",
        "fine.4": "_encoder_b._conv_3",
        "fine.5": "_encoder_b._residual_stack",
        "coarse.0": "_encoder_t._conv_1",
        "coarse.2": "_encoder_t._conv_2",
        "coarse.4": "_encoder_t._residual_stack",
        "coarse_projection": "_pre_vq_conv_top",
        "fine_projection": "_pre_vq_conv_bot",
        "coarse_codes": "_vq_vae_top",
        "fine_codes": "_vq_vae_bot",
        "decoder.0": "_decoder_b._conv_1",
        "decoder.1": "_decoder_b._residual_stack",
        "decoder.2": "_decoder_b._conv_trans_1",
        "decoder.4": "_decoder_b._conv_trans_2",
        "doubling": "upsample_t",
    }
    state = {}
    for name, value in detector.autoencoder.state_dict().items():
        ours = next(n for n in sorted(names, key=len, reverse=True) if name.startswith(f"{n}."))
        rest = name[len(ours) :].replace(".branches", "._layers")
        if "_layers" in rest:
            rest = rest.replace(".2.weight", "._block.3.weight").replace(".0.weight", "._block.1.weight")
            rest = rest.replace("._layers._block.1", "._layers.0._block.1").replace("..", ".")
        rest = {".codes": "._embedding.weight", ".sizes": "._ema_cluster_size", ".sums": "._ema_w"}.get(rest, rest)
        if not rest.endswith("started"):
            state[names[ours] + rest] = value
    file = tmp_path / "pretrained.pckl"
    torch.save(state, file)
    return file


def test_a_given_autoencoder_is_taken_and_not_trained(tmp_path):
    torch.manual_seed(3)
    other = DSR(**SMALL)
    file = authors_file(tmp_path, other)
    detector = DSR(**SMALL, weights=str(file))
    expected = {n: v for n, v in other.autoencoder.state_dict().items() if not n.endswith("started")}
    losses = []
    notes = []
    with (
        progress.listening(lambda report: losses.append(report.value) if report.phase == "loss" else None),
        progress.collecting_notes(notes),
    ):
        detector.fit(images(parts(4)), np.random.default_rng(0))
    assert len(losses) == 3  # two of detection, one of the upsampling
    assert not notes
    now = detector.autoencoder.state_dict()
    assert all(torch.equal(now[name], value) for name, value in expected.items())
    assert detector.weights().endswith("pre-trained, from a file")
    assert other.weights().endswith("trained on the training images and textures")
    with pytest.raises(BadConfig, match="does not hold DSR's autoencoder of width 8 with 40 codes"):
        DSR(**{**SMALL, "width": 8}, weights=str(file))


@pytest.mark.slow
def test_training_lowers_every_loss_and_a_dent_is_found(monkeypatch):
    monkeypatch.setattr(dsr, "PRETRAINING", 2.0)  # its own autoencoder needs more steps than so short a training has
    losses = []
    with progress.listening(lambda report: losses.append(report.value) if report.phase == "loss" else None):
        detector = DSR(width=8, codes=64, steps=100, learning_rate=1e-3)
        detector.fit(images(parts(16, side=48)), np.random.default_rng(0))
    assert len(losses) == 200 + 100 + 50
    for start, end in ((0, 200), (200, 300), (300, 350)):
        assert np.mean(losses[end - 10 : end]) < 0.6 * np.mean(losses[start : start + 4]), (start, end)
    dented = parts(8, seed=3, side=48, defective=True)
    good, bad = detector.predict(batch(parts(8, seed=2, side=48))), detector.predict(batch(dented))
    assert float((bad.score[:, None] > good.score).float().mean()) > 0.9


@pytest.mark.parametrize("params", [{"width": 3}, {"codes": 1}, {"steps": 0}, {"learning_rate": 0}])
def test_impossible_parameters_are_refused(params):
    with pytest.raises(BadConfig, match="must be"):
        DSR(**params)


def test_instance_norms_are_used_throughout():
    """No statistics of a training batch are kept, so that images do not affect one another."""
    assert not any(isinstance(m, nn.BatchNorm2d) for m in DSR(**SMALL).modules())
