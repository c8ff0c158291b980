import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open

from iadbe import progress, system
from iadbe.errors import BadConfig
from iadbe.layers.blocks.pdn import PDN, read_pdn
from iadbe.networks.backbone import Backbone
from iadbe.running import distillation
from iadbe.running.distillation import Distillation, PatchTarget, Recipe, ViewPool

QUICK = {"width": 12, "batch": 3, "side": 64, "crop": 4, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def backbone():
    return Backbone("resnet10t", (1, 2), "none")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images/below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = np.kron(rng.integers(0, 255, (8, 12, 3)), np.ones((10, 10, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/below/{number}.png")
    return tmp_path / "images"


def direct_embedding(layers, dim):
    """The patch embedding as the paper's code computes it: values of neighbourhoods, pooled and pooled again."""
    grid = layers[0].shape[-2:]
    parts = []
    for layer in layers:
        count, channels, height, width = layer.shape
        values = F.unfold(layer, 3, padding=1).transpose(1, 2).reshape(count, height, width, channels * 9)
        values = values.permute(0, 3, 1, 2)  # each value of a neighbourhood is interpolated by itself
        values = F.interpolate(values, grid, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
        parts.append(F.adaptive_avg_pool1d(values.reshape(-1, 1, channels * 9), 1024)[:, 0])
    together = torch.stack(parts, 1).reshape(len(parts[0]), 1, -1)
    rows = F.adaptive_avg_pool1d(together, dim)[:, 0]
    return rows.view(len(layers[0]), *grid, dim).permute(0, 3, 1, 2)


def test_the_target_is_the_patch_embedding():
    source = torch.Generator().manual_seed(0)
    layers = [torch.randn(2, 10, 8, 8, generator=source), torch.randn(2, 30, 4, 4, generator=source)]
    found = PatchTarget((10, 30), 48)(layers, 8)
    torch.testing.assert_close(found, direct_embedding(layers, 48), rtol=1e-4, atol=1e-5)


def test_a_view_follows_from_its_number_and_the_first_are_the_whole_images(folder):
    pool, again, other = (ViewPool(str(folder), 40, 48, seed) for seed in (0, 0, 1))
    assert len(pool) == 40
    assert torch.equal(pool[30], again[30])
    assert not torch.equal(pool[30], other[30])
    assert len(ViewPool(str(folder), 0, 48, 0)) == 4
    whole = np.array(Image.open(folder / "below/1.png").resize((48, 48)), np.float32)
    shown = pool[1].permute(1, 2, 0).float().numpy()
    assert np.corrcoef(whole.ravel(), shown.ravel())[0, 1] > 0.95
    assert pool[30].shape == (3, 48, 48)
    grey = [bool((pool[n][0] == pool[n][1]).all()) for n in range(40)]
    assert 0 < sum(grey) < 14
    assert ViewPool("", 7, 48, 0)[6].float().std() > 0


def test_a_step_compares_each_output_with_the_target_of_its_place(backbone, folder, tmp_path):
    recipe = Recipe(**{**QUICK, "crop": 3})
    made = Distillation(backbone, str(folder), recipe, tmp_path / "t.safetensors")
    made.mean, made.deviation = torch.full((12,), 0.1), torch.full((12,), 2.0)
    made.network.double()
    rng = np.random.default_rng([0, 1, 5])
    losses = []
    for view, target in made._seen(made._drawn(5)):
        top, left = rng.integers(8 - 3 + 1, size=2)
        with torch.no_grad():
            whole = made.network(view[None].double() / 255)[0]  # (12, 8, 8); the target has 16 x 16
        wanted = ((target.double() - 0.1) / 2)[:, 4:12, 4:12]
        losses.append((whole - wanted)[:, top : top + 3, left : left + 3].square().mean())
    made.network.float()
    assert made._step(5) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)


def test_statistics_are_those_of_all_targets(backbone, folder, tmp_path):
    made = Distillation(backbone, str(folder), Recipe(**QUICK, views=9), tmp_path / "t.safetensors")
    made._fit_statistics()
    values = torch.stack([t for _, t in made._seen(range(9))]).double()
    torch.testing.assert_close(made.mean, values.mean((0, 2, 3)))
    torch.testing.assert_close(made.deviation, values.std((0, 2, 3), unbiased=False))


def test_every_view_comes_once_in_an_epoch(backbone, folder, tmp_path):
    made = Distillation(backbone, str(folder), Recipe(**QUICK, views=7), tmp_path / "t.safetensors")
    drawn = [n for step in range(14) for n in made._drawn(step)]
    assert all(sorted(drawn[k : k + 7]) == list(range(7)) for k in range(0, 42, 7))
    assert drawn[:7] != drawn[7:14]


def test_the_loss_falls_and_the_file_says_what_it_is(backbone, folder, tmp_path):
    recipe = Recipe(**QUICK, steps=80, views=12, schedule="cosine")
    heard = []
    with progress.listening(heard.append):
        card = Distillation(backbone, str(folder), recipe, tmp_path / "new/t.safetensors").run()
    losses = [report.value for report in heard if report.phase == "loss"]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    assert [(r.done, r.total) for r in heard if r.phase == "distil"][-1] == (80, 80)
    assert [(r.done, r.total) for r in heard if r.phase == "targets"] == [(8, 12), (12, 12)]
    assert card["source"]["fingerprint"] == backbone.fingerprint
    assert card["images"].startswith("4 images, ")
    assert (card["steps_done"], card["views"], card["loss"]) == (80, 12, round(float(np.mean(losses)), 4))
    assert json.loads((tmp_path / "new/t.json").read_text()) == card
    with safe_open(tmp_path / "new/t.safetensors", "pt") as file:
        assert json.loads(file.metadata()["card"]) == card
        assert file.get_tensor("source_mean").shape == (12,)
    assert read_pdn(tmp_path / "new/t.safetensors").width == 12
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"t.safetensors", "t.json"}


@pytest.mark.parametrize("stop", [0, 1, 5])
def test_interrupted_and_repeated_it_gives_the_same_weights(backbone, folder, tmp_path, monkeypatch, stop):
    """With a checkpoint after every step; the interruption comes after step ``stop`` and before its checkpoint."""
    recipe = Recipe(**QUICK, steps=8, views=10)
    whole = Distillation(backbone, str(folder), recipe, tmp_path / "whole.safetensors")
    whole.run()
    monkeypatch.setattr(distillation, "CHECKPOINT_SECONDS", -1)
    first = Distillation(backbone, str(folder), recipe, tmp_path / "cut.safetensors")

    def interrupt(report):
        if report.phase == "distil" and report.done > stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), progress.listening(interrupt):
        first.run()
    assert first.checkpoint.is_file()
    again = Distillation(backbone, str(folder), recipe, tmp_path / "cut.safetensors")
    steps = []
    with progress.listening(lambda report: steps.append(report.done) if report.phase == "distil" else None):
        card = again.run()
    assert steps == list(range(stop + 1, 9))
    assert card["loss"] == whole.card()["loss"]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_a_checkpoint_of_another_distillation_is_refused(backbone, folder, tmp_path):
    file = tmp_path / "t.safetensors"
    Distillation(backbone, str(folder), Recipe(**QUICK), file)._save_checkpoint()
    for other in (Recipe(**QUICK, seed=1), Recipe(**{**QUICK, "batch": 4})):
        with pytest.raises(BadConfig, match="is of another distillation"):
            Distillation(backbone, str(folder), other, file).run()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "more.png")
    made = Distillation(backbone, str(folder), Recipe(**QUICK), file)
    with pytest.raises(BadConfig, match="delete the file to start anew"):
        made.run()
    made.checkpoint.write_bytes(b"cut off")
    with pytest.raises(BadConfig, match="damaged"):
        made.run()


def test_what_does_not_fit_into_memory_is_computed_again_with_the_same_result(backbone, folder, tmp_path):
    recipe = Recipe(**QUICK, steps=4, views=10)
    rich, poor = (
        Distillation(backbone, str(folder), recipe, tmp_path / f"{b}.safetensors", budget=b) for b in (2**30, 40_000)
    )
    assert rich.run()["loss"] == poor.run()["loss"]
    assert (len(rich._views), len(poor._views)) == (10, 2)


def test_bfloat16_stays_near(backbone, folder, tmp_path):
    exact, rounded = (
        Distillation(backbone, str(folder), Recipe(**QUICK, steps=5, precision=p), tmp_path / f"{p}.safetensors").run()
        for p in ("fp32", "bf16")
    )
    assert rounded["loss"] == pytest.approx(exact["loss"], rel=0.02)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"steps": 0}, "must be above 0"),
        ({"side": 100}, "multiple of 32"),
        ({"crop": 9, "side": 64}, "has 8 positions"),
    ],
)
def test_impossible_recipes_are_refused(wrong, sentence):
    with pytest.raises(BadConfig, match=sentence):
        Recipe(**wrong)


def test_wrong_files_are_refused(backbone, tmp_path):
    with pytest.raises(BadConfig, match="written as .safetensors"):
        Distillation(backbone, "", Recipe(**QUICK), tmp_path / "t.pth")
    with pytest.raises(BadConfig, match="there is no image in"):
        Distillation(backbone, str(tmp_path), Recipe(**QUICK), tmp_path / "t.safetensors")


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "is_writable", lambda folder: folder != tmp_path)
    with pytest.raises(BadConfig, match="is read-only. Give another file with --out FILE"):
        Distillation(None, "", Recipe(**QUICK), tmp_path / "t.safetensors")


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "t.safetensors").mkdir()
    with pytest.raises(OSError):  # noqa: PT011
        distillation._write(tmp_path / "t.safetensors", {"a": torch.zeros(2)}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def test_the_paper_is_the_default():
    recipe = Recipe()
    assert (recipe.steps, recipe.batch, recipe.side, recipe.learning_rate) == (60_000, 16, 256, 1e-4)
    assert recipe.positions == PDN("S", 4)(torch.zeros(1, 3, 256, 256)).shape[-1] == 56
