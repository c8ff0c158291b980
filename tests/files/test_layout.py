import pytest

from dataset_trees import draw
from iadbe.errors import BadConfig, BadData
from iadbe.files import layout


def test_only_images_are_listed_in_one_order(tmp_path):
    for name in ("b.PNG", "a.jpg", "C.tif", ".hidden.png", "._a.jpg", "Thumbs.db", "notes.txt"):
        (tmp_path / name).touch()
    draw(tmp_path / "deep/er/d.png")
    assert layout.images(tmp_path) == ("C.tif", "a.jpg", "b.PNG")
    assert layout.images(tmp_path, (".png",)) == ("b.PNG",)
    assert layout.images_below(tmp_path) == ("C.tif", "a.jpg", "b.PNG", "deep/er/d.png")
    assert layout.images_below(tmp_path, without=[tmp_path / "deep"]) == ("C.tif", "a.jpg", "b.PNG")
    assert layout.images(tmp_path / "nowhere") == layout.subfolders(tmp_path / "nowhere") == ()


def test_files_are_whatever_is_no_folder(tmp_path):
    for name in ("b.mp4", "a.txt", ".hidden"):
        (tmp_path / name).touch()
    draw(tmp_path / "deep/d.png")
    assert layout.files(tmp_path) == ("a.txt", "b.mp4")
    assert layout.files(tmp_path / "nowhere") == ()


def test_numbers_in_names_are_counted_and_not_spelt():
    names = ["f10.png", "f9.png", "f2b.png", "f2a.png", "f02.png", "10", "9", "x", ""]
    assert layout.natural_order(names) == ("", "9", "10", "f02.png", "f2a.png", "f2b.png", "f9.png", "f10.png", "x")
    assert layout.natural_order(reversed(names)) == layout.natural_order(names)


def test_what_lies_in_a_folder_is_named_in_short(tmp_path):
    assert layout.contents(tmp_path) == "nothing"
    for i in range(12):
        draw(tmp_path / f"{i:02d}.png")
    draw(tmp_path / "deep/d.png")
    assert layout.contents(tmp_path) == "deep/, 00.png, 01.png, 02.png, 03.png, 04.png, 05.png, 06.png"


def test_links_are_followed_but_not_in_circles(tmp_path):
    draw(tmp_path / "a/x.png")
    (tmp_path / "a/round").symlink_to(tmp_path, target_is_directory=True)
    outside = draw(tmp_path.parent / f"{tmp_path.name}-outside/y.png").parent
    (tmp_path / "link").symlink_to(outside, target_is_directory=True)
    assert layout.images_below(tmp_path) == ("a/x.png", "link/y.png")


def test_a_mask_belongs_to_the_stem_it_names(tmp_path):
    for name in ("000_mask.png", "001.png", "002_GT.bmp", "003.png", "003_mask.png", "my_label.png"):
        (tmp_path / name).touch()
    masks = layout.masks_by_stem(tmp_path)
    assert [masks[s] for s in ("000", "001", "002", "my")] == ["000_mask.png", "001.png", "002_GT.bmp", "my_label.png"]
    assert masks["003"] == "003_mask.png"  # the clearer name wins


def test_a_draw_depends_on_seed_and_names_only():
    names = [f"{i}.png" for i in range(100)]
    drawn = layout.hold_out(names, 0.2, seed=7)
    assert len(drawn) == 20
    assert drawn == layout.hold_out(names[::-1], 0.2, seed=7) != layout.hold_out(names, 0.2, seed=8)
    more = layout.hold_out([*names, "new.png"], 0.2, seed=7)
    assert len(more - drawn) <= 1  # a new image moves at most one other


def test_a_draw_never_takes_all_and_keeps_groups_whole():
    assert layout.hold_out(["a"], 0.9, 0) == layout.hold_out(["a", "b"], 0, 0) == set()
    assert len(layout.hold_out(["a", "b"], 0.01, 0)) == len(layout.hold_out(["a", "b"], 0.99, 0)) == 1
    assert len(layout.hold_out(["a", "b", "c"], 0.01, 0, least=2)) == 2
    groups = [["a", "b"], ["c", "d"], ["e", "f"]]
    for seed in range(5):
        drawn = layout.draw_groups(groups, 5, seed)
        assert len(drawn) == 4
        assert all(set(g) <= drawn or not set(g) & drawn for g in groups)


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, True, "0.2"])
def test_a_share_is_a_share(value):
    with pytest.raises(BadConfig, match=r"x\.ratio is .* below 1"):
        layout.check_share("x.ratio", value)


def test_yaml_that_cannot_be_used_names_file_and_line(tmp_path):
    file = tmp_path / "d.yaml"
    file.write_text("root: a\nname: [1, 2\n")
    with pytest.raises(BadData, match=r"d\.yaml is not valid YAML, line 3"):
        layout.read_yaml(file)
    file.write_text("- a\n- b\n")
    with pytest.raises(BadData, match="not list"):
        layout.read_yaml(file)


def test_groups_are_held_out_whole():
    names = [f"{part}{view}" for part in "abcdef" for view in range(3)]
    groups = {name: name[0] for name in names}
    for seed in range(5):
        held = layout.hold_out(names, 0.3, seed, groups=groups)
        assert len(held) == 3  # 30 % of 18 are 5: one part of three views fits
        assert len({groups[name] for name in held}) == 1
    assert layout.hold_out(names, 0.05, 0, groups=groups)  # at least one group
    assert layout.hold_out(names[:3], 0.5, 0, groups=groups) == set()  # the only one is never held out
    alone = {name: name for name in names}
    assert layout.hold_out(names, 0.3, 1, groups=alone) == layout.hold_out(names, 0.3, 1)


def test_a_windows_path_in_double_quotes_gets_a_hint(tmp_path):
    (tmp_path / "w.yaml").write_text('root: "C:\\Users\\me\\data"\n')
    with pytest.raises(BadData, match="A Windows path needs single quotes or forward slashes"):
        layout.read_yaml(tmp_path / "w.yaml")
    (tmp_path / "x.yaml").write_text("root: [\n")
    with pytest.raises(BadData) as raised:
        layout.read_yaml(tmp_path / "x.yaml")
    assert "Windows" not in str(raised.value)


@pytest.mark.parametrize("path", ["D:\\new\\test", "D:\\test", "C:\\bad", "data\\test"])
def test_a_windows_path_whose_escapes_are_valid_gets_it_too(tmp_path, path):
    (tmp_path / "w.yaml").write_text(f'data: [{{root: "{path}"}}]\n')
    with pytest.raises(BadData, match="backslashes were read as escapes. A Windows path needs single quotes"):
        layout.load_yaml(tmp_path / "w.yaml")


@pytest.mark.parametrize(
    "text", ["'D:\\new\\test'", "D:\\new\\test", "D:/new", '"two\\nlines"', '"note: two\\nlines"', "é"]
)
def test_other_texts_are_left_alone(tmp_path, text):
    (tmp_path / "w.yaml").write_text(f"root: {text}\n", encoding="utf-8")
    assert isinstance(layout.read_yaml(tmp_path / "w.yaml")["root"], str)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_may_be_separated_by_what_spreadsheets_write(tmp_path, mark, encoding):
    (tmp_path / "a.csv").write_text(f'path{mark}lot\r\n"a{mark}1.png"{mark}ü\r\n', encoding=encoding, newline="")
    assert layout.read_table(tmp_path / "a.csv") == [["path", "lot"], [f"a{mark}1.png", "ü"]]


def test_text_in_another_encoding_is_named_with_its_line(tmp_path):
    (tmp_path / "a.csv").write_bytes("path,lot\nä.png,1\n".encode("latin-1"))
    with pytest.raises(BadData, match=r"a\.csv, line 2 is not text in UTF-8\. Save the file in that encoding"):
        layout.read_text(tmp_path / "a.csv")


def test_a_name_that_is_no_text_is_one_sentence(tmp_path):
    try:
        (tmp_path / "bad\udcff.png").touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system has only names that are text")
    with pytest.raises(BadData, match=r"bad\\\\?udcff.png' is not in this system's encoding. Rename the file"):
        layout.images(tmp_path)
