import dataclasses
import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from iadbe import registry
from iadbe.errors import BadConfig, BadData, UnknownName
from iadbe.evaluation.calibration import Calibration
from iadbe.evaluation.conformal import Rate
from iadbe.running import model_card
from iadbe.runtime.parts import Combination
from iadbe.runtime.regions import RegionRule
from iadbe.runtime.zones import Zone

CARD = {
    "format": 1,
    "detector": "padim",
    "params": {"dims": 8, "weights": "none"},
    "version": 1,
    "view": {"resize": 64, "crop": 0},
    "weights": [["abc", "nowhere"]],
    "calibration": {"how": "by hand", "threshold": 1.5, "width": 2.0, "overkill": {"value": 0.1, "low": 0, "high": 1}},
    "about": {},
    "learnt": None,
}


def written(folder, content):
    (folder / "detector.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_card_is_read_as_it_was_written(tmp_path):
    assert model_card.read(written(tmp_path, CARD)) == CARD
    model_card.write(tmp_path, {**CARD, "about": {"run": "x"}})
    assert model_card.read(tmp_path)["about"] == {"run": "x"}
    assert [p.name for p in tmp_path.iterdir()] == ["detector.json"]


def test_every_calibration_is_readable(tmp_path):
    rate = Rate(0.1, 0.0, 0.2, True)
    whole = Calibration("by hand", 1.5, 2.5, 0.0, 1.0, 2.0, 3, 4, rate, rate)
    zone = Zone.of_mask("edge", np.eye(4, dtype=bool), 0.5)
    ruled = replace(whole, rule=RegionRule(3, 1, (zone,)), look_threshold=1.0, look=rate, look_pixel_threshold=2.0)
    combined = replace(whole, combination=Combination({"a": (1.0, 2.0)}, 3.0))
    for one in (Calibration(), whole, ruled, combined):
        assert model_card.read(written(tmp_path, {**CARD, "calibration": asdict(one)}))


def test_a_card_may_lack_what_came_later(tmp_path):
    assert "learnt" not in model_card.read(written(tmp_path, {k: v for k, v in CARD.items() if k != "learnt"}))


ZONE = {"name": "a", "size": [3, 3], "runs": "1 2", "threshold": None}
DAMAGED = {
    "cut off": (json.dumps(CARD)[:100], "is not JSON"),
    "empty": ("", "is not JSON"),
    "too deep": ("[" * 100_000, "is not JSON"),
    "a list": ([CARD], "a list instead of an object"),
    "null": ("null", "nothing instead of an object"),
    "no format": ({k: v for k, v in CARD.items() if k != "format"}, "has no format"),
    "no detector": ({k: v for k, v in CARD.items() if k != "detector"}, "has no detector"),
    "no view": ({k: v for k, v in CARD.items() if k != "view"}, "has no view"),
    "detector is a list": ({**CARD, "detector": ["padim"]}, "must be the name of a detector"),
    "params are a list": ({**CARD, "params": [1]}, "must be names with values"),
    "unknown parameter": ({**CARD, "params": {"dimms": 3}}, "no parameter 'dimms'"),
    "wrong type of parameter": ({**CARD, "params": {"dims": "many"}}, "takes a whole number"),
    **{
        f"version {value!r}": ({**CARD, "version": value}, "version in detector.json must be the whole number")
        for value in ("text", {}, None, 1.5, True, -1, 10**30)
    },
    "view of text": ({**CARD, "view": {"resize": "64"}}, "resize, crop and fit, in whole pixels"),
    "huge view": ({**CARD, "view": {"resize": 10**9}}, "resize, crop and fit, in whole pixels"),
    "unknown fit": ({**CARD, "view": {"resize": 64, "fit": "zoom"}}, "resize, crop and fit, in whole pixels"),
    "strange view": ({**CARD, "view": {"zoom": 3}}, "resize, crop and fit, in whole pixels"),
    "weights of numbers": ({**CARD, "weights": [[1, 2]]}, "a list of pairs of texts"),
    "threshold of text": ({**CARD, "calibration": {"threshold": "high"}}, "names with finite numbers"),
    "unit of a number": ({**CARD, "calibration": {"unit": 3}}, "names with finite numbers"),
    "threshold of nan": (json.dumps({**CARD, "calibration": {"threshold": float("nan")}}), "finite numbers"),
    "no width": ({**CARD, "calibration": {"threshold": 1.0, "width": 0}}, "finite numbers"),
    "threshold of 400 digits": ({**CARD, "calibration": {"threshold": 10**400}}, "finite numbers"),
    "rule of text": ({**CARD, "calibration": {"rule": "none"}}, "finite numbers"),
    "rule without an area": ({**CARD, "calibration": {"rule": {"max_count": 0, "zones": []}}}, "finite numbers"),
    "zone that does not fill": (
        {**CARD, "calibration": {"rule": {"min_area": 1, "max_count": 0, "zones": [ZONE]}}},
        "finite numbers",
    ),
    "combination of text": (
        {**CARD, "calibration": {"combination": {"references": {"a": ["x"]}, "threshold": 1}}},
        "finite numbers",
    ),
    "combination of 400 digits": (
        {**CARD, "calibration": {"combination": {"references": {"a": [10**400]}, "threshold": 1}}},
        "finite numbers",
    ),
    "calibration is a list": ({**CARD, "calibration": []}, "finite numbers"),
    "about is null": ({**CARD, "about": None}, "must be names with values"),
    "region is a text": ({**CARD, "region": "all"}, "a size and run lengths"),
    "region without runs": ({**CARD, "region": {"size": [2, 2]}}, "a size and run lengths"),
    "region of minus": ({**CARD, "region": {"size": [2, 2], "runs": "-1 5"}}, "a size and run lengths"),
    "huge region": ({**CARD, "region": {"size": [2, 10**6], "runs": "1"}}, "a size and run lengths"),
    "digests are a number": ({**CARD, "learnt": 3}, "digests"),
}


WRONG = (True, -1, 1.5, 10**13, 10**400, "", "0.5", [], {}, {"a": 1}, {"value": 1}, [[]])
RIGHT = {"float | None": (-1, 1.5, 10**13), "str": ("", "0.5"), "int": ()}  # of these


@pytest.mark.parametrize("field", dataclasses.fields(Calibration), ids=lambda f: f.name)
def test_no_field_of_a_calibration_takes_a_value_of_another_type(tmp_path, field):
    for value in WRONG:
        if value not in RIGHT.get(field.type, ()):
            written(tmp_path, {**CARD, "calibration": {field.name: value}})
            with pytest.raises(BadData, match="cannot be read as a model: calibration"):
                model_card.read(tmp_path)


@pytest.mark.parametrize(("content", "why"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_card_is_one_sentence(tmp_path, content, why):
    with pytest.raises(BadData, match="cannot be read as a model") as raised:
        model_card.read(written(tmp_path, content))
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)


def test_another_format_is_one_sentence(tmp_path):
    with pytest.raises(BadConfig, match="another version"):
        model_card.read(written(tmp_path, {**CARD, "format": 99}))


def test_an_unknown_detector_is_one_sentence(tmp_path):
    with pytest.raises(UnknownName, match="cannot be loaded: no detector is named 'padmi'. Did you mean padim"):
        model_card.read(written(tmp_path, {**CARD, "detector": "padmi"}))


def test_a_class_must_be_trusted_and_its_parameters_are_checked_first(tmp_path, monkeypatch):
    (tmp_path / "card_evil.py").write_text("open('imported', 'w').close()\n\n\nclass Evil:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    written(tmp_path, {**CARD, "detector": "card_evil:Evil", "params": {"args": "x"}})
    with pytest.raises(UnknownName, match="add --trust card_evil:Evil"):
        model_card.read(tmp_path)
    registry.trust("card_evil:Evil")
    with pytest.raises(BadData, match="no parameter 'args'"):
        model_card.read(tmp_path)
    assert not (tmp_path / "imported").exists()
