import json
import math

import pytest

from fake_results import result, scores
from iadbe.cli import main
from iadbe.errors import BadData
from iadbe.running import result_fields
from iadbe.running.store import RESULT, Store, to_json

HOSTILE = (None, True, -1, 10**400, "", "../../x", [], {}, [[]], {"a": 1}, {"a": None}, float("inf"))
NESTED = ("versions", "seconds", "cpu_seconds", "memory", "features", "steps", "images", "latency_range_ms", "rows")
FULL = {"seconds": {"fit": 1.0, "total": 2.0}, "cpu_seconds": {"fit": 1.0}, "steps": {"done": 3, "planned": 4}}


def paths():
    """Return where values stand: every field of the result and of its spec, and the first value inside each."""
    raw = to_json(result(**FULL, scores=scores("bottle", seed=1)))
    found = [(key,) for key in raw] + [("spec", key) for key in raw["spec"]]
    for *before, key in list(found):
        value = raw[before[0]][key] if before else raw[key]
        if key in NESTED and value:
            found.append((*before, key, next(iter(value)) if isinstance(value, dict) else 0))
    return found + [("rows", 0, column) for column in range(4)]


@pytest.mark.parametrize("path", paths(), ids=lambda path: ".".join(map(str, path)))
def test_one_result_from_elsewhere_never_hides_the_others(path, tmp_path, capsys):
    store = Store(tmp_path)
    store.save(result("padim"))
    folder = store.save(result("patchcore", **FULL))
    raw = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    for value in HOSTILE:
        changed = json.loads(json.dumps(raw))
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (folder / RESULT).write_text(json.dumps(changed), encoding="utf-8")
        assert main(["results", "--store", str(tmp_path)]) == 0, (path, value)
        output = capsys.readouterr()
        assert "padim" in output.out, (path, value)
        assert "bug" not in output.err


def test_what_is_written_is_right():
    raw = to_json(result(**FULL))
    result_fields.check(raw)
    result_fields.check({key: value for key, value in raw.items() if key not in ("steps", "images")})


def test_the_field_is_named_and_a_damaged_result_is_one_sentence(tmp_path):
    store = Store(tmp_path)
    folder = store.save(result("padim"))
    raw = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="seed is '0'"):
        result_fields.check({**raw, "spec": {**raw["spec"], "seed": "0"}})
    with pytest.raises(ValueError, match="a row is"):
        result_fields.check({**raw, "rows": [[0, "bottle", "image_auroc", "0.9"]]})
    for text in (json.dumps({**raw, "steps": 3}), "[" * 100_000, "[]"):
        (folder / RESULT).write_text(text, encoding="utf-8")
        with pytest.raises(BadData, match="is damaged"):
            store.load(folder.name)


def test_a_time_that_was_not_measured_is_nan_again(tmp_path):
    store = Store(tmp_path)
    folder = store.save(result("padim", seconds={"fit": math.nan, "total": 2.0}))
    assert math.isnan(store.load(folder.name).seconds["fit"])
