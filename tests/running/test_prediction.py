import numpy as np
import pytest
import torch

from iadbe.data.images import View
from iadbe.datasets.toy import Toy
from iadbe.detector import Detector
from iadbe.errors import BadDetector
from iadbe.running.prediction import images_for, predict
from iadbe.types import Prediction, TrainingImage

TOY = Toy()
SOME = [TrainingImage(s) for s in TOY.samples() if s.category == "metal" and s.split == "test"][:20]


class Brightness(Detector):
    def __init__(self, change=lambda score, map_: (score, map_)):
        super().__init__()
        self.view, self.change = View(32), change

    def fit(self, train, rng):
        pass

    def predict(self, batch):
        map_ = batch.image.mean(1)
        return Prediction(*self.change(map_.amax((1, 2)), map_))


def test_every_image_has_its_score_and_map():
    images = images_for(Brightness(), TOY, SOME)
    found = predict(Brightness(), images)
    assert (found.score.shape, found.map.shape) == ((20,), (20, 32, 32))
    np.testing.assert_array_equal(found.score, found.map.max(axis=(1, 2)))
    assert predict(Brightness(lambda score, map_: (score, None)), images).map is None
    assert predict(Brightness(), images_for(Brightness(), TOY, [])).score.shape == (0,)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s, m: (s[:1], m), "finite scores"),
        (lambda s, m: (s * torch.nan, m), "finite scores"),
        (lambda s, m: (s, m[:, :4]), "finite maps of the batch's size"),
        (lambda s, m: (s, m / 0), "finite maps"),
    ],
)
def test_a_detector_that_breaks_its_contract_is_named(change, why):
    with pytest.raises(BadDetector, match=f"Brightness must give .*{why}"):
        predict(Brightness(change), images_for(Brightness(), TOY, SOME))
