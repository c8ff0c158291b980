import pytest

from iadbe.errors import BadConfig, BadData
from iadbe.files.groups import groups_of, in_groups_of

PATHS = ("good/lot1_a.png", "good/lot1_b.png", "bad/lot2_a.png")


def test_a_regular_expression_names_the_group(tmp_path):
    assert groups_of(tmp_path, r"lot(\d+)", PATHS, "folder.group") == dict(zip(PATHS, "112", strict=True))
    assert groups_of(tmp_path, r"lot\d+", PATHS, "folder.group")[PATHS[2]] == "lot2"
    assert groups_of(tmp_path, r"(good|bad)/(lot\d)", PATHS, "folder.group")[PATHS[0]] == "good/lot1"
    assert groups_of(tmp_path, "", PATHS, "folder.group") == {}


def test_an_empty_group_makes_the_image_its_own(tmp_path):
    assert groups_of(tmp_path, r"lot(1)|bad()", PATHS, "folder.group") == {PATHS[0]: "1", PATHS[1]: "1"}
    assert groups_of(tmp_path, r"lot(1)?", PATHS, "folder.group") == {PATHS[0]: "1", PATHS[1]: "1"}


@pytest.mark.parametrize("separator", ["/", "\\"])
def test_a_column_names_the_group_by_path_or_by_name(tmp_path, separator):
    rows = ["lot,file", f"a,good{separator}lot1_a.png", "a,lot1_b.png", "b,bad/lot2_a.png"]
    (tmp_path / "lots.csv").write_text("\n".join(rows), encoding="utf-8-sig")
    assert groups_of(tmp_path, "lots.csv:lot", PATHS, "folder.group") == dict(zip(PATHS, "aab", strict=True))


def test_what_is_not_covered_is_an_error(tmp_path):
    with pytest.raises(BadData, match=r"folder\.group 'lot\(1\)' matches 2 of 3 images, but not bad/lot2_a\.png"):
        groups_of(tmp_path, "lot(1)", PATHS, "folder.group")
    (tmp_path / "lots.csv").write_text("file,lot\nlot1_a.png,1\n")
    with pytest.raises(BadData, match=r"lots\.csv lists 1 of 3 images, but not good/lot1_b\.png"):
        groups_of(tmp_path, "lots.csv:lot", PATHS, "folder.group")
    with pytest.raises(BadData, match=r"no column 'lots' .* Did you mean lot\? It has: file, lot"):
        groups_of(tmp_path, "lots.csv:lots", PATHS, "folder.group")
    with pytest.raises(BadData, match="cannot be read as a table"):
        groups_of(tmp_path, "none.csv:lot", PATHS, "folder.group")
    with pytest.raises(BadConfig, match="not a regular expression"):
        groups_of(tmp_path, "lot(", PATHS, "folder.group")


def test_training_images_of_tested_groups_are_found():
    groups = {"a": "1", "b": "1", "c": "2"}
    assert in_groups_of(["a", "c", "x"], ["b", "y"], groups) == {"a"}


def test_a_table_with_semicolons_and_short_lines(tmp_path):
    (tmp_path / "lots.csv").write_bytes(b"\xef\xbb\xbffile;lot\r\na.png;1\r\n\r\nb.png\r\n")
    assert groups_of(tmp_path, "lots.csv:lot", ["a.png", "b.png"], "folder.group") == {"a.png": "1"}
