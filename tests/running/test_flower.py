"""In an environment of its own, because Flower pins what others need newer; elsewhere this is skipped."""

import numpy as np
import pytest
import torch

pytest.importorskip("flwr", reason="Flower is not in this environment")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

from dataclasses import replace  # noqa: E402

from drawn_images import images, parts  # noqa: E402
from iadbe.detectors.padim import PaDiM  # noqa: E402
from iadbe.errors import BadDetector  # noqa: E402
from iadbe.running import flower, plan  # noqa: E402
from iadbe.running.run import run  # noqa: E402
from iadbe.types import Options, Step  # noqa: E402

DETECTORS = {
    "padim": {"weights": "none", "dims": 8},
    "patchcore": {"weights": "none", "coreset": 0.02},
    "autoencoder": {"size": 32, "latent": 4, "epochs": 4},
}
OPTIONS = Options(features="off", threads=1, device="cpu")


@pytest.mark.parametrize(
    ("detector", "params"),
    [
        ("padim", {}),
        ("patchcore", {"split": "dirichlet"}),
        ("autoencoder", {"aggregate": "fedprox", "mu": 1.0}),  # with fedavg's mean
        ("autoencoder", {"aggregate": "median"}),
    ],
)
def test_the_numbers_are_those_of_the_simulation_in_one_process(detector, params):
    grid = {
        "detectors": [{"name": detector, **DETECTORS[detector]}],
        "data": [{"name": "toy", "count": 9, "categories": ["metal"]}],
        "settings": [{"name": "federated", "clients": 3, "rounds": 2, **params}],
        "protocol": "uniform@32",
    }
    (spec,) = plan.expand(grid).runs
    here, there = run(spec, OPTIONS), run(spec, replace(OPTIONS, federation="flower"))
    assert here.error == there.error == ""
    assert here.rows == there.rows
    assert here.scores == there.scores


def test_a_client_that_fails_is_reported():
    detector = PaDiM(weights="none", dims=8)
    rng = np.random.default_rng(np.random.SeedSequence(0))
    nobody = images(parts(2)).subset([])
    with pytest.raises(BadDetector, match="a client failed in round 1"):
        flower.learn(detector, [images(parts(2)), nobody], Step((), {}), rng)
    assert torch.equal(detector.channels, PaDiM(weights="none", dims=8).channels)
