import json

import pytest

from iadbe.errors import BadConfig, UnknownName
from iadbe.parameters import complete, with_paths, without_paths
from iadbe.registry import card, names

PADIM = card("detectors", "padim")


def test_defaults_are_filled_in_as_plain_values():
    found = complete(PADIM, {"dims": 50})
    assert found["dims"] == 50
    assert found["layers"] == [1, 2, 3]
    assert found == json.loads(json.dumps(found))


@pytest.mark.parametrize("shelf", ["detectors", "datasets", "settings"])
def test_every_default_is_of_its_own_type(shelf):
    for name in names(shelf):
        own = card(shelf, name)
        given = {p.name: p.default for p in own.parameters if not p.required}
        assert complete(own, given) == complete(own, {})


def test_a_wrong_name_is_told_with_a_suggestion():
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
