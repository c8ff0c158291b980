import math
from pathlib import Path

import pytest

from iadbe.errors import BadConfig
from iadbe.runtime.parts import Combination
from iadbe.runtime.scored_image import ScoredImage
from iadbe.watching.open_parts import OpenParts, PartRule, verdict_on


def member(parts, number, name, score=0.1, error=""):
    found = ScoredImage(Path("in") / name, math.nan if error else score, 1.0, error=error)
    made = parts.member_of(name, [found], [{"path": name}])
    made.number = number
    return made


@pytest.fixture
def now():
    return [0.0]


def opened(now, **rule):
    return OpenParts(PartRule(r"^(\d+)_", **rule), clock=lambda: now[0])


def test_a_part_is_complete_with_its_last_image(now):
    parts = opened(now, images=2)
    parts.add("1", member(parts, 1, "1_a.png"))
    parts.add("2", member(parts, 2, "2_a.png"))
    assert parts.complete() == []
    parts.add("1", member(parts, 3, "1_b.png", score=2.0))
    assert parts.complete() == ["1"]
    found, _ = parts.take("1")
    assert (found.name, found.score, found.verdict) == ("1", 2.0, "reject")
    assert len(parts) == 1


def test_a_part_is_complete_when_no_image_comes(now):
    parts = opened(now, images=3, seconds=5.0)
    parts.add("1", member(parts, 1, "1_a.png"))
    now[0] = 4.0
    parts.add("1", member(parts, 2, "1_b.png"))
    now[0] = 8.9
    assert parts.complete() == []
    now[0] = 9.0
    assert parts.complete() == ["1"]
    assert parts.complete(all_of_them=True) == ["1"]
    found, open_part = parts.take("1")
    assert verdict_on(found, open_part.notes, 3) == ("", "2 of 3 images have come")
    assert verdict_on(found, open_part.notes, 2) == ("good", "")


def test_a_part_that_lacks_images_is_still_rejected(now):
    parts = opened(now)
    parts.add("1", member(parts, 1, "1_a.png", score=3.0))
    found, _ = parts.take("1")
    assert verdict_on(found, set(), 2) == ("reject", "1 of 2 images have come")


def test_what_the_journal_keeps_is_taken_again(now):
    parts = opened(now, view=r"_(\w)\.")
    for number, (name, error) in enumerate([("1_a.png", ""), ("1_b.png", "broken"), ("2_a.png", "")], 1):
        parts.add(name[0], member(parts, number, name, error=error))
    again = opened(now)
    kept = [(m.number, m.name[0], m.body()) for name in ("1", "2") for m in parts._parts[name].members]
    again.load(kept)
    first, second = parts.take("1")[0], again.take("1")[0]
    assert [(v.path, v.view, v.error) for v in second.images] == [(v.path, v.view, v.error) for v in first.images]
    assert (second.score, second.verdict, second.error) == (first.score, first.verdict, first.error)
    assert second.images[0].view == "a"
    assert math.isnan(second.images[1].score)
    assert second.verdict == ""  # a part with an image that cannot be scored is not called good


def test_a_name_without_a_part_is_judged_alone(now):
    parts = opened(now, images=3)
    name, note = parts.rule.name_of("strange.png")
    assert name == "strange.png"
    assert "judged alone" in note
    parts.add(name, member(parts, 1, name), note)
    assert parts.complete() == [name]
    found, open_part = parts.take(name)
    verdict, error = verdict_on(found, open_part.notes, 3)
    assert verdict == "good"
    assert "judged alone" in error
    assert parts.rule.name_of("17_x.png") == ("17", "")


def test_views_are_combined(now):
    combination = Combination({"a": tuple(n / 10 for n in range(10)), "b": tuple(n / 10 for n in range(10))}, 2.0)
    parts = opened(now, view=r"_(\w)\.", combination=combination)
    for n, name in enumerate(["1_a.png", "1_b.png"]):
        parts.add("1", member(parts, n, name, score=0.95))
    assert parts.take("1")[0].verdict == "reject"  # each image alone is good
    parts.add("2", member(parts, 3, "2_c.png"))
    found, _ = parts.take("2")
    assert found.verdict == ""
    assert "view" in found.error


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"part": "("}, "not a regular expression"),
        ({"part": "none.csv:part"}, "there is no file none.csv"),
        ({"part": "x", "view": "["}, "not a regular expression"),
        ({"part": "x", "images": -1}, "at least one image"),
        ({"part": "x", "seconds": 0.0}, "more than 0 seconds"),
        ({"part": "x", "seconds": math.inf}, "more than 0 seconds"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(rule, message):
    with pytest.raises(BadConfig, match=message):
        PartRule(**rule)
