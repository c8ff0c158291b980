"""The card inside an exported file."""

import json

from exported_models import THRESHOLD, golden
from iadbe.exporting.card import card_of


def test_it_says_what_the_file_is_and_how_its_numbers_are_to_be_read():
    card = card_of(golden())
    assert (card["detector"], card["localises"], card["view"]["resize"]) == ("golden", True, 64)
    assert card["calibration"]["threshold"] == THRESHOLD
    assert card["about"] == {"dataset": "toy", "run": "0123"}
    assert card["training_images"]["count"] == 2
    assert len(card["training_images"]["sha256"]) == 64


def test_it_is_plain_json():
    card = card_of(golden())
    assert json.loads(json.dumps(card)) == card
