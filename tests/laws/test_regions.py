"""What does not count is neither learnt nor scored: beyond the pixels that layers see, it changes nothing at all."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from drawn_images import Drawn, parts
from iadbe.data.images import Images, View
from iadbe.parameters import complete
from iadbe.registry import card, load
from iadbe.types import TrainingImage

NEAR = {  # detectors that learn within the region, with layers of a small receptive field
    "patchcore": {"layers": (0,), "coreset": 0.2},
    "padim": {"layers": (0,), "dims": 0},
    "softpatch": {"layers": (0,), "coreset": 0.2},
    "dfm": {"layer": 0},
    "dfkde": {"layer": 0},
    "spade": {"layers": (0,), "pooled_layer": 0},
    "orthoad": {"layers": (0,), "k": 8},
    "golden": {},
    "graphcore": {"layers": (0,), "coreset": 0.2, "max_rotated": 0},
    "subspacead": {"layers": (0,)},
    "anomalydino": {"layer": 0, "rotations": 2, "masking": "never"},
    "reconpatch": {"layers": (0,), "epochs": 1, "coreset": 0.2},
    "cfa": {"layers": (0,), "epochs": 1},
    "pni": {"layers": (0,), "epochs": 1, "coreset": 0.2, "width": 16, "refine": 0.0},
    "simplenet": {"layers": (0,), "epochs": 6, "width": 16},
    "glass": {"layers": (0,), "epochs": 1, "width": 16, "distribution": "hypersphere", "foreground": False},
    "cflow": {"layers": (0,), "epochs": 1},
}


class HalfCounts(Drawn):
    """Images of which the left 32 columns count. The others are not filled, so that layers alone leave them out."""

    filled = True

    def region(self, sample):
        region = np.zeros((64, 64), bool)
        region[:, :32] = True
        return region


def shown(others):
    """Return eight parts of which the right 8 columns, far from what counts, are those of other parts."""
    drawn = parts(8)
    for image, other in zip(drawn, others, strict=True):
        image[:, 56:] = other[:, 56:]
    dataset = HalfCounts(drawn)
    return Images(dataset, [TrainingImage(s) for s in dataset.samples()], View(64))


@pytest.mark.parametrize("name", NEAR)
def test_what_does_not_count_is_neither_learnt_nor_scored(name):
    scores = []
    for others in (parts(8), parts(8, seed=3, defective=True)):
        torch.manual_seed(0)
        own = card("detectors", name)
        detector = load("detectors", name)(
            **complete(own, {**({} if name == "golden" else {"weights": "none"}), **NEAR[name]})
        )
        detector.view = View(64)
        images = shown(others)
        detector.fit(images, np.random.default_rng(0))
        detector.eval()
        batch = next(images.batches(8))
        with torch.no_grad():
            scores.append(detector.predict(batch).score)
            whole = detector.predict(replace(batch, region=None)).score
        assert not torch.allclose(whole, scores[-1]), "the region makes no difference"
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-5)
