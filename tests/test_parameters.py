import json

import pytest

from iadbe.errors import BadConfig, UnknownName
from iadbe.parameters import (
    NEEDS_DEPTH,
    complete,
    current_names,
    original_names,
    why_not_exportable,
    with_paths,
    without_paths,
)
from iadbe.registry import card, names

PADIM = card("detectors", "padim")


def test_defaults_are_filled_in_as_plain_values():
    found = complete(PADIM, {"dims": 50})
    assert found["dims"] == 50
    assert found["layers"] == [1, 2, 3]
    assert found == json.loads(json.dumps(found))


@pytest.mark.parametrize("registry_name", ["detectors", "datasets", "settings"])
def test_every_default_is_of_its_own_type(registry_name):
    for name in names(registry_name):
        own = card(registry_name, name)
        given = {p.name: p.default for p in own.parameters if not p.required}
        assert complete(own, given) == complete(own, {})


def test_a_wrong_name_is_reported_with_a_suggestion():
    with pytest.raises(UnknownName, match=r"padim has no parameter 'dim'. Did you mean dims\?"):
        complete(PADIM, {"dim": 1})


@pytest.mark.parametrize(("name", "value"), [("dims", "many"), ("layers", "x"), ("sigma", [1])])
def test_a_wrong_type_is_one_sentence(name, value):
    with pytest.raises(BadConfig, match=f"padim.{name} takes"):
        complete(PADIM, {name: value})


def test_files_are_named_by_content_not_by_place(tmp_path):
    for folder, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.pth").write_bytes(content)
    one, two, three = (without_paths({"weights": str(tmp_path / f / "w.pth"), "k": 3}) for f in "abc")
    assert one[0] == two[0]
    assert one[0] != three[0]
    assert str(tmp_path) not in json.dumps(one[0])
    assert with_paths(*one) == {"weights": str(tmp_path / "a/w.pth"), "k": 3}
    with pytest.raises(BadConfig, match=r"the file w\.pth is not known"):
        with_paths(one[0], {})


@pytest.mark.parametrize(
    ("registry_name", "name", "key", "value", "plain"),
    [
        ("detectors", "padim", "layers", "1,2", [1, 2]),
        ("detectors", "padim", "layers", "[1, 2]", [1, 2]),
        ("detectors", "padim", "layers", 3, [3]),
        ("detectors", "padim", "layers", "3", [3]),
        ("detectors", "padim", "layers", (1, 2), [1, 2]),
        ("detectors", "padim", "dims", "50", 50),
        ("detectors", "padim", "sigma", "2", 2.0),
        ("detectors", "padim", "sigma", 2, 2.0),
        ("detectors", "dfm", "score", "nll", "nll"),
        ("datasets", "folder", "normal_dir", "a,b", ["a", "b"]),
        ("datasets", "folder", "normal_dir", "a", "a"),
        ("datasets", "folder", "mask_dir", "null", None),
        ("datasets", "folder", "mask_dir", None, None),
        ("datasets", "folder", "extensions", ".png", [".png"]),
        ("datasets", "folder", "name", "001", "001"),
    ],
)
def test_text_from_the_command_line_and_values_from_files_mean_the_same(registry_name, name, key, value, plain):
    found = complete(card(registry_name, name), {key: value})[key]
    assert found == plain
    assert type(found) is type(plain)


@pytest.mark.parametrize(
    ("registry_name", "name", "key", "value", "sentence"),
    [
        ("detectors", "padim", "dims", True, "padim.dims takes a whole number, not True"),
        ("detectors", "padim", "dims", 1.5, "a whole number"),
        ("detectors", "padim", "sigma", float("nan"), "padim.sigma takes a number, not nan"),
        ("detectors", "padim", "sigma", 10**400, "padim.sigma takes a number, not a number of 1329 bits"),
        ("detectors", "padim", "dims", 10**30, "padim.dims takes a whole number"),
        ("detectors", "padim", "layers", "1,x", "a list of whole numbers, such as 1,2,3, not '1,x'"),
        ("detectors", "padim", "weights", None, "padim.weights takes a text, not None"),
        ("detectors", "dfm", "score", "fra", "takes one of fre, nll, not 'fra'. Did you mean fre?"),
        ("datasets", "folder", "name", 7, "folder.name takes a text, not 7"),
        ("datasets", "folder", "mask_dir", 7, "takes a list of texts, such as a,b, a text or null, not 7"),
    ],
)
def test_a_wrong_value_is_reported_in_words(registry_name, name, key, value, sentence):
    with pytest.raises(BadConfig) as caught:
        complete(card(registry_name, name), {key: value})
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(f"See `iadbe show {name}`.")


def test_old_names_and_values_are_read_as_those_of_today():
    assert complete(card("datasets", "real_iad"), {"pictures": "realiad_512"})["images"] == "realiad_512"
    assert complete(card("datasets", "mtd"), {"split": "picture"})["split"] == "image"
    shared = {"range": [], "channels": [], "roi": "", "ignore": ""}  # which every dataset takes, later than the others
    assert current_names("datasets", "mtd", {"split": "picture", "seed": 1}) == {**shared, "split": "image", "seed": 1}
    assert original_names("datasets", "mtd", {**shared, "split": "image"}) == {"split": "picture"}
    assert complete(card("datasets", "folder"), {"intensity": [0, 4095]})["range"] == [0.0, 4095.0]
    assert original_names("datasets", "folder", {"range": [0.0, 4095.0]}) == {"intensity": [0.0, 4095.0]}
    assert original_names("datasets", "mtd", {"split": "image"}) == {"split": "picture"}
    assert original_names("datasets", "of an absent plug-in", {"a": 1}) == {"a": 1}


def test_an_added_parameter_stands_for_the_earlier_behaviour():
    assert current_names("detectors", "reconpatch", {"balance": 0.3}) == {"alpha": 0.3, "rescale": True}
    assert original_names("detectors", "reconpatch", {"alpha": 0.3, "rescale": True}) == {"balance": 0.3}
    assert original_names("detectors", "reconpatch", {"rescale": False}) == {"rescale": False}


def test_an_added_parameter_is_no_part_of_the_identity_until_it_is_used():
    given = complete(card("datasets", "folder"), {"root": "x"})
    assert "group" in given
    assert "group" not in original_names("datasets", "folder", given)
    assert original_names("datasets", "folder", {**given, "group": "lot"})["group"] == "lot"


@pytest.mark.parametrize(
    ("name", "params", "reason"),
    [
        ("padim", {}, ""),
        ("devnet", {}, "gradient of the score"),
        ("anogan", {}, "encoder=true needs no search"),
        ("anogan", {"encoder": True}, ""),
        ("ast", {}, ""),
        ("ast", {"inputs": "depth"}, NEEDS_DEPTH),
        ("rkde", {"proposals": "rcnn"}, "Faster R-CNN"),
    ],
)
def test_why_a_detector_cannot_be_exported_depends_on_its_parameters(name, params, reason):
    own = card("detectors", name)
    found = why_not_exportable(own, complete(own, params))
    assert reason in found
    assert bool(found) == bool(reason)
