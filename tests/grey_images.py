"""Images of one grey whose masks are given, for tests of what counts as a defect."""

import numpy as np

from iadbe.data.images import Images, View
from iadbe.dataset import Dataset
from iadbe.types import Sample, TrainingImage


class GreyImages(Dataset):
    """Images of one grey, with masks as given: an array, None for a missing one."""

    def __init__(self, masks):
        self.masks = masks

    categories = ("c",)

    def samples(self):
        return tuple(
            Sample(str(i), "c", "test", "good" if m is False else "spot", f"{i}.png", None if m is None else "m.png")
            for i, m in enumerate(self.masks)
        )

    def image(self, sample):
        return np.full((64, 64, 3), 90, np.uint8)

    def mask(self, sample):
        return self.masks[int(sample.id)]


SPOT = np.zeros((64, 64), bool)
SPOT[10:20, 30:40] = True
EMPTY = np.zeros((64, 64), bool)


def images(*masks):
    made = GreyImages(masks)
    return Images(made, [TrainingImage(s) for s in made.samples()], View(64))
