import json

import pytest

from fake_results import result
from iadbe.results.comparison import compare
from iadbe.results.ranking import by_category, ranking
from iadbe.results.shift import GROUPINGS, by_shift
from iadbe.results.table import FORMATS
from iadbe.types import Row, Score

KINDS = {"blur": (1, 3), "noise": (1, 3)}


def shifted(detector, task, clean, losses, metric="image_auroc", **more):
    """Return a run whose number under a change is ``clean`` less ``losses`` of its kind times its strength."""
    rows = [Row(0, task, metric, clean)]
    for kind, strengths in KINDS.items():
        rows += [Row(0, f"{task}, {kind} {n}", metric, clean - losses[kind] * n) for n in strengths if kind in losses]
    return result(detector, task, rows=tuple(rows), setting="shifted", metrics=(metric,), **more)


RUNS = [
    shifted("sharp", "a", 0.99, {"blur": 0.1, "noise": 0.01}),
    shifted("sharp", "b", 0.97, {"blur": 0.2, "noise": 0.03}),
    shifted("steady", "a", 0.9, {"blur": 0.01, "noise": 0.01}),
    shifted("steady", "b", 0.9, {"blur": 0.01, "noise": 0.01}),
]


def values(table):
    return {row[0].text: {c.name: cell.value for c, cell in zip(table.columns, row, strict=True)} for row in table.rows}


def texts(table):
    return " ".join(text for _, text in table.footnotes)


def test_the_ranking_is_of_unchanged_images_with_a_column_for_the_drop():
    (table,) = ranking(RUNS)
    found = values(table)
    assert found["sharp"]["image_auroc"] == pytest.approx(0.98)  # not the mean of 10 tests
    assert found["sharp"]["drop"] == pytest.approx(2 * (0.1 + 0.01 + 0.2 + 0.03) / 4)
    assert found["steady"]["drop"] == pytest.approx(0.02)
    assert "Numbers are of unchanged images" in texts(table)
    assert [row[0].text for row in table.rows] == ["sharp", "steady"]
    (table,) = by_category(RUNS)
    assert [c.name for c in table.columns] == ["detector", "a", "b", "mean"]


def test_other_settings_have_nothing_of_it():
    (table,) = ranking([result(), result("padim")])
    assert "drop" not in [c.name for c in table.columns]
    assert "unchanged" not in texts(table)
    assert by_shift([result()]) == []
    odd = result(rows=(Row(0, "left, blur 2", "image_auroc", 0.5), Row(0, "right", "image_auroc", 0.7)))
    assert compare([odd])[0].categories("image_auroc") == ("left, blur 2", "right")  # a category may be called so


def test_by_kind_by_strength_and_by_change():
    (table,) = by_shift(RUNS, grouping="kind")
    assert [c.name for c in table.columns] == ["detector", "unchanged", "blur", "noise", "changed", "drop"]
    assert [row[0].text for row in table.rows] == ["steady", "sharp"]  # the steadiest first
    sharp = values(table)["sharp"]
    assert sharp["blur"] == pytest.approx(0.98 - 0.15 * 2)
    assert sharp["noise"] == pytest.approx(0.98 - 0.02 * 2)
    assert sharp["changed"] == pytest.approx(sharp["unchanged"] - sharp["drop"])
    (table,) = by_shift(RUNS, grouping="strength")
    sharp = values(table)["sharp"]
    assert sharp["strength_3"] == pytest.approx(0.98 - 3 * (0.15 + 0.02) / 2)
    blur, noise = by_shift(RUNS, grouping="change")
    assert blur.title.startswith("image AUROC under blur: ")
    assert values(blur)["sharp"]["strength_3"] == pytest.approx(0.98 - 3 * 0.15)
    assert values(noise)["sharp"]["drop"] == pytest.approx(2 * 0.02)


def test_where_lower_is_better_what_is_lost_is_what_is_added():
    name = "image_overkill"
    runs = [shifted("loud", "a", 0.1, {"blur": -0.1}, name), shifted("calm", "a", 0.2, {"blur": -0.01}, name)]
    (table,) = by_shift(runs, name)
    assert values(table)["loud"]["drop"] == pytest.approx(0.2)
    assert [row[0].text for row in table.rows] == ["calm", "loud"]
    assert values(ranking(runs)[0])["calm"]["drop"] == pytest.approx(0.02)


def test_seeds_have_a_spread_and_what_is_missing_is_reported():
    again = [shifted("steady", task, 0.8, {"blur": 0.01, "noise": 0.01}, seed=1) for task in "ab"]
    (table,) = by_shift([*RUNS, *again])
    row = next(row for row in table.rows if row[0].text == "steady")
    cells = {c.name: cell for c, cell in zip(table.columns, row, strict=True)}
    assert cells["blur"].std == pytest.approx(0.1 / 2**0.5)
    (table,) = by_shift(RUNS[:-1])
    assert [row[0].text for row in table.rows] == ["sharp", "steady"]  # who lacks something comes after, however good
    row = table.rows[1]
    assert all(cell.marks for cell in row[2:5])
    assert not any(cell.best for cell in row)
    assert row[-1].value is None  # the drop would be of other categories
    assert "Mean over 2 of 4 changes of categories" in texts(table)


def test_scores_of_changed_images_do_not_narrow_the_intervals():
    scores = [
        Score(0, test, f"{test}{i}", "a", "good" if i % 2 else "hole", float(i))
        for test in ("a", "a, blur 1")
        for i in range(8)
    ]
    run = shifted("sharp", "a", 0.5, {"blur": 0.1}, scores=scores)
    assert list(compare([run])[0].entries[0].cases) == ["a"]


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_every_form_holds_it(grouping):
    tables = by_shift(RUNS, grouping=grouping)
    for form, write in FORMATS.items():
        text = write(tables)
        assert "sharp" in text
        assert "blur" in text or grouping == "strength"
        if form == "json":
            assert json.loads(text)[0]["metric"] == "image_auroc"


def test_unfinished_training_is_never_the_most_robust():
    short = {"steps": {"done": 9, "planned": 4800}}
    runs = [
        *RUNS,
        shifted("stfpm", "a", 0.5, {"blur": 0.0, "noise": 0.0}, **short),
        shifted("stfpm", "b", 0.5, {"blur": 0.0, "noise": 0.0}, **short),
    ]
    (table,) = ranking(runs)
    best = {row[0].text for row in table.rows for c, cell in zip(table.columns, row, strict=True) if cell.best}
    assert values(table)["stfpm"]["drop"] == 0.0
    assert best == {"sharp", "steady"}
    (table,) = by_shift(runs)
    assert [row[0].text for row in table.rows][-1] == "stfpm"
    assert not any(cell.best for cell in table.rows[-1])
    assert "unfinished: less than 50 % of the planned training steps, so not ranked." in texts(table)
