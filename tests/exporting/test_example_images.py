"""Which images a file is compared on."""

from dataclasses import replace

import numpy as np

from exported_models import golden, random_image
from iadbe.data.images import read_view
from iadbe.datasets.toy import Toy
from iadbe.exporting.example_images import DRAWN, GIVEN, LEARNT, given_or_learnt
from iadbe.files.input_images import inputs_of


def learnt():
    toy, view = Toy(), golden().detector.view
    samples = [s for s in toy.samples() if s.category == "metal" and s.split == "train"]
    keys = frozenset(read_view(toy, s, view)[1][:16] for s in samples)
    return replace(golden(), about={"dataset": "toy", "task": "metal"}, learnt=keys), toy.image(samples[0])


def test_given_images_come_first():
    images, source = given_or_learnt(golden(), inputs_of([random_image(20, 30, n) for n in range(5)]), 3)
    assert (len(images), source) == (3, GIVEN)


def test_training_images_are_found_by_the_name_of_the_data():
    fitted, first = learnt()
    images, source = given_or_learnt(fitted, count=4)
    assert (len(images), source) == (4, LEARNT)
    assert np.array_equal(images[0], first)


def test_images_that_the_model_has_not_learnt_are_not_taken():
    fitted, _ = learnt()
    assert given_or_learnt(replace(fitted, learnt=frozenset("ab"))) == ([], DRAWN)
    assert given_or_learnt(replace(fitted, about={"dataset": "toy", "task": "none"})) == ([], DRAWN)


def test_a_card_names_neither_a_path_nor_code(tmp_path):
    fitted, _ = learnt()
    for name in (str(tmp_path), "os:system", "mvtec_ad"):
        assert given_or_learnt(replace(fitted, about={"dataset": name, "task": "metal"})) == ([], DRAWN)
