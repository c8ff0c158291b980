"""Laws that every detector keeps: parametrised over the registry, so a new file is tested at once.

Images are the toy ones at 64 x 64 with random weights where speed matters, and twice that size with real weights for
the one law about finding defects.
"""

import copy
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from iadbe.data.images import Images, View
from iadbe.datasets.toy import Toy
from iadbe.errors import Missing
from iadbe.evaluation.pixel_truth import ground_truth
from iadbe.metrics.auroc import AUROC
from iadbe.networks import feature_store
from iadbe.networks.backbone import Backbone
from iadbe.networks.feature_store import FeatureStore
from iadbe.networks.timm_loader import load_timm
from iadbe.parameters import complete, needs_with
from iadbe.registry import card, load, names
from iadbe.running import model_folder
from iadbe.types import TrainingImage, TrainingLabel

TOY, TOY_WITH_DEPTH = Toy(), Toy(depth=True)
SMALL = View(64)
# taken where the detector has such a parameter
QUICK = {"weights": "none", "epochs": 1, "steps": 4, "search_steps": 8, "width": 8}
# what does not depend on the number or size of images would be that of the paper
SMALL_SIZES = {
    "devnet": {"batch": 8},
    "dra": {"batch": 9},
    "dsr": {"codes": 64},  # among thousands, two are nearly as near, and rounding chooses
    "winclip": {"model": "ViT-S-32-alt"},
    "yolo": {"batch": 4},
    "diffusionad": {"size": 32, "attention": 8, "batch": 4},
    "realnet": {
        **{"size": 16, "attention": 8, "diffusion_batch": 4, "generated": 8, "selection": 2, "batch": 4},
        **{"channels": (12, 12, 12, 12), "residuals": 12},
    },
}
# steps of its 32 images take minutes, and a network of 8 channels cannot learn in them
LIGHT = {
    "anogan": {"batch": 16, "steps": 200, "width": 16, "size": 16, "learning_rate": 2e-3, "search_steps": 40},
    "ast": {"width": 128},
    "cutpaste": {"batch": 4, "steps": 40},
    "destseg": {"batch": 8, "steps": 100, "width": 32},
    "dne": {"batch": 8, "epochs": 4},
    "igd": {"size": 64, "patches": True},
    "draem": {"batch": 4, "epochs": 16, "learning_rate": 2e-3, "rotated": 0.0},
    "ganomaly": {"batch": 16, "steps": 120, "width": 16, "size": 32, "learning_rate": 1e-3},
    "nsa": {"batch": 4, "epochs": 25, "width": 16, "label": "binary", "learning_rate": 3e-3},
    "memseg": {"batch": 4, "steps": 100},
}
SCORE_OF_WHOLE_IMAGE = ("ganomaly", "winclip")  # as their cards say
LARGE = {
    "efficientad": "needs hundreds of steps at a teacher's width; its own test trains a narrow one on smaller images",
    "dsr": "needs its pre-trained autoencoder or many more steps; a test of its own trains one on smaller images",
    "diffusionad": "needs many more steps at that size; a test of its own trains it on smaller images",
    "anomalib": "needs the weights of its model's backbone, which no test downloads; see .ci/foreign",
    "yolo": "needs COCO's weights or many more steps; a test of its own trains one for longer",
    "realnet": "needs many more steps at that size; a test of its own trains it on smaller images",
    "winclip": "needs CLIP's weights, of 800 MB, which no test downloads",
}


def images(name, category="metal", split="train", count=8, view=SMALL):
    """Return images of a category; for detectors that need depth those of the one that has it, others for fabric.

    Detectors that need labels also get every fifth defective image to train on, which is not tested then.
    """
    own = card("detectors", name)
    needs = needs_with(own, complete(own, {}))
    toy, depth = TOY, "depth" in needs
    if depth:
        toy, split, category = TOY_WITH_DEPTH, "test" if category == "fabric" else split, "casting"
    here = [s for s in toy.samples() if s.category == category]
    labelled = [s for s in here if s.split == "test" and s.is_anomaly][::5] if "labels" in needs else []
    samples = [s for s in here if s.split == split and s not in labelled]
    step = max(1, len(samples) // count)
    items = [TrainingImage(s) for s in samples[::step][:count]]
    if split == "train":
        items += [TrainingImage(s, TrainingLabel.MASKED) for s in labelled]
    return Images(toy, items, view, depth=depth)


def quick(name):
    """Return parameters of a small detector that trains for a few steps."""
    known = {p.name for p in card("detectors", name).parameters}
    return {k: v for k, v in QUICK.items() if k in known} | SMALL_SIZES.get(name, {})


def make(name, seed=0, **params):
    own = card("detectors", name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = load("detectors", name)(**complete(own, {**quick(name), **params}))
    detector.view = SMALL
    return detector.eval()


def fitted(name, train=None, seed=0):
    detector = make(name)
    detector.fit(train or images(name), np.random.default_rng(seed))
    return detector.eval()


def scored(detector, images, size=4):
    with torch.no_grad():
        found = [detector.predict(b) for b in images.batches(size)]
    maps = None if found[0].map is None else torch.cat([f.map for f in found])
    return torch.cat([f.score for f in found]), maps


@pytest.fixture(scope="module", params=names("detectors"))
def name(request):
    try:
        load("detectors", request.param)
    except Missing as error:  # an extra
        pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="module")
def detector(name):
    return fitted(name)


@pytest.fixture(scope="module")
def tests(name):
    return images(name, split="test", count=6)


def test_no_strided_pointwise_convolution_is_torchs_own(detector):
    """Where a parameter makes one narrow, its gradient writes beyond its memory: see layers/…/strided_pointwise."""
    plain = [m for m in detector.modules() if type(m) in (torch.nn.Conv2d, torch.nn.ConvTranspose2d)]
    assert not [m for m in plain if m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels < 64]


def test_shapes_and_range(name, detector, tests):
    score, maps = scored(detector, tests)
    assert score.shape == (6,)
    assert score.dtype == torch.float32
    assert torch.isfinite(score).all()
    if maps is None:
        assert "localise" not in detector.can
    else:
        assert maps.shape == (6, 64, 64)
        assert torch.isfinite(maps).all()
        assert "localise" in detector.can


def test_a_score_does_not_depend_on_its_batch_or_order(detector, tests):
    together, maps = scored(detector, tests, 6)
    alone, alone_maps = scored(detector, tests, 1)
    back, _ = scored(detector, tests.subset([5, 4, 3, 2, 1, 0]), 3)
    torch.testing.assert_close(alone, together, rtol=2e-4, atol=1e-5)
    torch.testing.assert_close(back.flip(0), together, rtol=2e-4, atol=1e-5)
    if maps is not None:
        torch.testing.assert_close(alone_maps, maps, rtol=2e-3, atol=1e-4)


def test_only_what_counts_makes_the_score(name, detector, tests):
    """A region of all pixels changes nothing, and the quarters of an image do not have one score."""
    if name in SCORE_OF_WHOLE_IMAGE:
        reason = card("detectors", name).get("whole_image")
        assert "score" in reason
        pytest.skip(reason)
    batch = next(tests.batches(2))

    def score(region):
        with torch.no_grad():
            return detector.predict(replace(batch, region=region)).score

    counts = torch.ones(2, 64, 64, dtype=torch.bool)
    torch.testing.assert_close(score(counts), score(None), rtol=1e-4, atol=1e-6)
    quarters = []
    for rows, columns in product((slice(0, 32), slice(32, 64)), repeat=2):
        only = torch.zeros_like(counts)
        only[:, rows, columns] = True
        quarters.append(score(only))
        assert torch.isfinite(quarters[-1]).all()
    maps = scored(detector, tests.subset([0, 1]))[1]
    highest = [] if maps is None else F.adaptive_max_pool2d(maps, 2).flatten(1)
    if maps is None or not torch.equal(highest, highest[:, :1].expand(2, 4)):  # else there is nothing to tell apart
        assert not all(torch.equal(quarters[0], other) for other in quarters[1:])


def test_the_sides_of_a_view_may_differ_and_be_divided_by_nothing(name):
    view = View(72, resize_width=100, fit="pad")
    detector = make(name)
    detector.view = view
    detector.fit(images(name, count=3, view=view), np.random.default_rng(0))
    score, maps = scored(detector.eval(), images(name, split="test", count=2, view=view))
    assert torch.isfinite(score).all()
    assert maps is None or maps.shape == (2, 72, 100)


def test_same_seed_same_scores(name, detector, tests):
    torch.rand(3)  # the global random state must not matter
    assert torch.equal(scored(fitted(name), tests)[0], scored(detector, tests)[0])


def test_fit_forgets(name, detector, tests):
    again = make(name)
    again.fit(images(name, "fabric"), np.random.default_rng(7))
    again.fit(images(name), np.random.default_rng(0))
    assert torch.equal(scored(again.eval(), tests)[0], scored(detector, tests)[0])


def test_predict_leaves_no_trace(name, detector, tests):
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    first = scored(detector, tests)[0]
    scored(detector, images(name, "fabric", "test"))
    assert torch.equal(first, scored(detector, tests)[0])
    after = detector.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_saved_and_loaded_it_is_the_same(name, detector, tests, tmp_path):
    model_folder.save(tmp_path, detector, name, complete(card("detectors", name), quick(name)))
    loaded = model_folder.load(tmp_path)
    torch.testing.assert_close(scored(loaded.detector, tests)[0], scored(detector, tests)[0], rtol=1e-5, atol=1e-6)
    assert loaded.detector.weights() == detector.weights()
    assert loaded.detector.view == detector.view


def test_the_feature_store_changes_nothing(name, detector, tests, tmp_path):
    if not any(isinstance(m, Backbone) for m in detector.modules()):
        pytest.skip("has no backbone")
    with feature_store.using(FeatureStore(tmp_path)) as counters:
        first = fitted(name)
        scored(first, tests)
        second = fitted(name)  # now everything comes from disk
        computed = counters.computed
        stored_scores = scored(second, tests)[0]
        assert counters.computed == computed
    torch.testing.assert_close(stored_scores, scored(detector, tests)[0], rtol=1e-4, atol=1e-5)


def test_images_labelled_anomalous_are_not_learnt_as_normal(name, detector, tests):
    train = images(name)
    intruders = [TrainingImage(e.sample, TrainingLabel.ANOMALOUS) for e in images(name, "fabric", "train", 3).items]
    if "labelled" in detector.can:
        pytest.skip("learns from labelled anomalies")
    mixed = Images(train.dataset, [*train.items, *intruders], SMALL, depth=train.depth)
    assert torch.equal(scored(fitted(name, mixed), tests)[0], scored(detector, tests)[0])


def test_one_training_image_is_enough_for_finite_scores(name, tests):
    if name == "anomalib":
        pytest.skip("its PaDiM estimates a covariance of the images, which one does not have, and says so")
    score, _ = scored(fitted(name, images(name, count=1)), tests)
    assert torch.isfinite(score).all()


def test_a_copy_is_a_detector_of_its_own(name, detector, tests):
    twin = copy.deepcopy(detector)
    twin.fit(images(name, "fabric"), np.random.default_rng(1))
    assert not torch.equal(scored(twin.eval(), tests)[0], scored(detector, tests)[0])


def test_merging_copies_of_itself_keeps_the_ranking(name, detector, tests):
    if "merge" not in detector.can:
        pytest.skip("cannot merge")
    merged = copy.deepcopy(detector)
    merged.merge([copy.deepcopy(detector), copy.deepcopy(detector)])
    a, b = scored(merged.eval(), tests)[0], scored(detector, tests)[0]
    assert float(np.corrcoef(a, b)[0, 1]) > 0.9


def test_the_card_states_what_the_class_says(name):
    kind, own = load("detectors", name), card("detectors", name)
    assert own.get("needs") == kind.needs
    assert own.get("can") == kind.can
    assert own.get("kind")
    assert own.get("paper") or "baseline" in own.doc
    assert own.summary.endswith(".")
    assert all(p.doc for p in own.parameters), "every parameter is explained in an Args block"


@pytest.fixture(scope="session")
def seen(tmp_path_factory):
    """What the embedded backbone sees in the images, once for all detectors."""
    return FeatureStore(tmp_path_factory.mktemp("features"))


@pytest.mark.slow
def test_it_finds_toy_defects(name, seen):
    """With the embedded weights, trained ones for a few epochs: in one of two categories, clearly."""
    if name in LARGE:
        pytest.skip(LARGE[name])
    have = {p.name for p in card("detectors", name).parameters}
    params = {k: v for k, v in {"weights": "auto", "epochs": 10, "steps": 60}.items() if k in have}
    view = View(128)
    best = 0.0
    for category in ("washer", "metal"):
        detector = make(name, **{**params, **LIGHT.get(name, {})})
        detector.view = view
        with feature_store.using(seen):
            detector.fit(images(name, category, count=40, view=view), np.random.default_rng(0))
            test = images(name, category, "test", 39, view)
            score, maps = scored(detector.eval(), test)
        truth = np.array([e.sample.is_anomaly for e in test.items])
        best = max(best, AUROC()(truth, score.numpy()))
        if maps is not None:
            best = max(best, AUROC()(ground_truth(test)[0], maps.numpy()))
        if best > 0.7:
            return
    pytest.fail(f"neither images nor pixels are told apart: AUROC {best:.2f}")


def test_backbones_are_pinned_by_a_tag_that_timm_knows(name):
    """Without a tag the weights are the first that the installed timm lists, which differ between versions."""
    own = card("detectors", name)
    default = {p.name: p.default for p in own.parameters}
    for backbone in filter(None, (default.get("backbone"), own.get("paper_params").get("backbone"))):
        assert "." in backbone, f"{backbone} has no tag"
        assert load_timm().is_model_pretrained(backbone)
        assert load_timm().get_pretrained_cfg(backbone).tag == backbone.partition(".")[2]


def test_models_with_the_first_names_of_their_tensors_can_be_loaded(detector, tests):
    first = {_first_name(detector, key): value for key, value in detector.state_dict(keep_vars=True).items()}
    loaded = copy.deepcopy(detector)
    loaded.load_tensors({k: v.detach().clone().requires_grad_(v.requires_grad) for k, v in first.items()})
    assert torch.equal(scored(loaded, tests)[0], scored(detector, tests)[0])


def _first_name(module, name):
    """Undo ``renamed_tensors`` on the way to a tensor."""
    parts = []
    for part in name.split("."):
        first = {new: old for old, new in getattr(type(module), "renamed_tensors", {}).items()}
        parts.append(first.get(part, part))
        module = getattr(module, part, None)
    return ".".join(parts)
