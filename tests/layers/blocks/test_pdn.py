import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from iadbe.data.images import Batch
from iadbe.datasets.toy import Toy
from iadbe.errors import BadConfig, Missing
from iadbe.layers.blocks.pdn import BORDER, PACKAGED, PDN, cached, packaged, read_pdn, teacher
from iadbe.networks.backbone import Backbone
from iadbe.running.distillation import PatchTarget


def image(side=64, count=1):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def sequence(size):
    """The public networks' layers, in the order of their state dicts."""

    def plain(before, after, kernel):
        return [nn.Conv2d(before, after, kernel), nn.ReLU()]

    pool = nn.AvgPool2d(2, 2)
    if size == "S":
        parts = [*plain(3, 128, 4), pool, *plain(128, 256, 4), pool, *plain(256, 256, 3), nn.Conv2d(256, 384, 4)]
    else:
        parts = [*plain(3, 256, 4), pool, *plain(256, 512, 4), pool, *plain(512, 512, 1), *plain(512, 512, 3)]
        parts += [*plain(512, 384, 4), nn.Conv2d(384, 384, 1)]
    return nn.Sequential(*parts)


def normalised(shown):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (shown - mean.view(3, 1, 1)) / std.view(3, 1, 1)


@pytest.mark.parametrize(("size", "millions"), [("S", 2.69), ("M", 8.02)])
def test_it_has_the_papers_size(size, millions):
    network = PDN(size)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    with torch.no_grad():
        assert network(image()).shape == (1, 384, 8, 8)


@pytest.mark.parametrize("size", ["S", "M"])
def test_an_output_sees_33_pixels_every_4(size):
    network = PDN(size, 8).double()
    shown = image(61).double().requires_grad_()
    network(shown)[0, :, 2, 1].sum().backward()
    rows, columns = (shown.grad.abs().sum((0, 1)) > 0).nonzero().T
    assert (int(rows.min()), int(rows.max())) == (4 * 2, 4 * 2 + 32)
    assert (int(columns.min()), int(columns.max())) == (4, 4 + 32)


@pytest.mark.parametrize("size", ["S", "M"])
@pytest.mark.parametrize("names", ["sequence", "anomalib", "whole model"])
def test_public_weights_are_read(size, names, tmp_path):
    torch.manual_seed(1)
    public = sequence(size).eval()
    state = public.state_dict()
    if names != "sequence":
        places = sorted({int(name.partition(".")[0]) for name in state})
        prefix = "model.teacher." if names == "whole model" else ""
        state = {
            f"{prefix}conv{places.index(int(name.partition('.')[0])) + 1}.{name.partition('.')[2]}": value
            for name, value in state.items()
        }
    if names == "whole model":
        state |= {"model.student.conv1.weight": torch.zeros(3), "model.quantiles.qa_st": torch.zeros(())}
        state = {"state_dict": state}
    torch.save(state, tmp_path / "teacher.pth")
    network, source = teacher(str(tmp_path / "teacher.pth"), size, 384)
    assert source == "file teacher.pth"
    assert not any(p.requires_grad for p in network.parameters())
    with torch.no_grad():
        torch.testing.assert_close(network(image()), public(normalised(image())), rtol=1e-4, atol=1e-5)


def test_a_part_of_the_outputs_is_what_the_whole_has():
    network = PDN("S", 6, 12)
    with torch.no_grad():
        part = network.head(network.trunk(image()), slice(6, None))
        torch.testing.assert_close(part, network(image())[:, 6:])


def test_files_that_do_not_fit_are_refused(tmp_path):
    save_model(PDN("S", 12), str(tmp_path / "narrow.safetensors"))
    assert read_pdn(tmp_path / "narrow.safetensors").width == 12
    with pytest.raises(BadConfig, match="size S and width 12, not S and 384. Say model_size=S width=12"):
        teacher(str(tmp_path / "narrow.safetensors"), "S", 384)
    torch.save({"conv1.weight": torch.zeros(4, 3, 4, 4)}, tmp_path / "other.pth")
    with pytest.raises(BadConfig, match="does not hold a patch description network"):
        read_pdn(tmp_path / "other.pth")
    torch.save({**PDN("S").state_dict(), "conv2.weight": torch.zeros(256, 100, 4, 4)}, tmp_path / "wrong.pth")
    with pytest.raises(BadConfig, match="does not hold a PDN as in the paper"):
        read_pdn(tmp_path / "wrong.pth")
    with pytest.raises(BadConfig, match="size S or M"):
        PDN("L")


def test_the_teacher_in_the_package_is_the_one_of_its_card():
    content = PACKAGED.read_bytes()
    card = json.loads(PACKAGED.with_suffix(".json").read_text(encoding="utf-8"))
    assert hashlib.sha256(content).hexdigest() == card["sha256"]
    assert len(content) < 15e6
    with safe_open(PACKAGED, "pt") as file:
        within = json.loads(file.metadata()["card"])
    assert {name: card[name] for name in within} == within
    assert within["loss"] < 1
    assert card["licence"]
    network, source = teacher("auto", "S", 384)
    assert not any(p.requires_grad for p in network.parameters())
    assert source == (
        f"package, distilled from {within['source']['network']} on {within['images']} in {within['steps_done']} steps"
    )


def test_the_teacher_in_the_package_describes_unseen_images_as_its_source_does():
    """A defective part that it was not distilled from: better than each channel's mean, which has 1."""
    card = json.loads(PACKAGED.with_suffix(".json").read_text(encoding="utf-8"))
    tensors = load_file(PACKAGED)
    mean, deviation = (tensors[f"source_{kind}"].view(-1, 1, 1) for kind in ("mean", "deviation"))
    toy = Toy(size=card["source"]["image_side"])
    sample = next(s for s in toy.samples() if s.is_anomaly and s.category == "washer")
    shown = torch.from_numpy(toy.image(sample).copy()).permute(2, 0, 1)[None].float() / 255
    backbone = Backbone(card["source"]["network"], tuple(card["source"]["layers"]))
    assert backbone.fingerprint == card["source"]["fingerprint"]
    small = nn.functional.interpolate(shown, (256, 256), mode="bilinear", antialias=True)
    with torch.no_grad():
        wanted = PatchTarget(backbone.channels, 384)(backbone(Batch(shown)), 64)[0, :, BORDER:-BORDER, BORDER:-BORDER]
        found = teacher("auto", "S", 384)[0](small)[0]
        other = teacher("none", "S", 384)[0](small)[0]
    wanted = (wanted - mean) / deviation
    distance, of_mean, of_random = ((x - wanted).square().mean() for x in (found, torch.zeros(()), other))
    assert distance < 0.8 * min(of_mean, of_random)


def test_a_teacher_in_the_cache_is_found_and_a_missing_one_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path))
    with pytest.raises(Missing, match="iadbe distil --size M"):
        teacher("auto", "M", 384)
    cached("M").parent.mkdir()
    save_model(PDN("M", 12), str(cached("M")))
    network, source = teacher("auto", "M", 12)
    assert (network.size, network.width, source) == ("M", 12, "local cache")


def test_random_weights_are_the_same_everywhere_and_leave_the_global_generator_alone():
    state = torch.random.get_rng_state()
    one, source = teacher("none", "S", 8)
    other, _ = teacher("none", "S", 8)
    assert torch.equal(one.conv1.weight, other.conv1.weight)
    assert source == "random (weights=none)"
    assert torch.equal(torch.random.get_rng_state(), state)
    assert packaged("M") is None


def test_a_file_without_a_card_is_known_by_its_name(tmp_path):
    tensors = {name: value.contiguous() for name, value in PDN("S", 12).state_dict().items()}
    for card in (None, {}, {"card": "cut off {"}, {"card": '{"source": 3}'}):
        save_file(tensors, tmp_path / "own.safetensors", card)
        assert teacher(str(tmp_path / "own.safetensors"), "S", 12)[1] == "file own.safetensors"
