"""Where the files of judged images go."""

from iadbe import system
from iadbe.watching.placement import escaped, free_prefix, move, target_of


def test_a_name_that_is_taken_gets_a_number(tmp_path):
    (tmp_path / "good").mkdir()
    assert target_of("a.png", "good", tmp_path) == tmp_path / "good/a.png"
    (tmp_path / "good/a.png").touch()
    (tmp_path / "good/a_2.png").touch()
    assert target_of("a.png", "good", tmp_path).name == "a_3.png"


def test_images_of_another_result_are_not_written_over(tmp_path):
    assert free_prefix(tmp_path, "a").name == "a"
    (tmp_path / "a_heat.png").touch()
    (tmp_path / "ab_heat.png").touch()
    assert free_prefix(tmp_path, "a").name == "a_2"
    (tmp_path / "a_2_mask.png").touch()
    assert free_prefix(tmp_path, "a").name == "a_3"
    assert free_prefix(tmp_path, "b").name == "b"


def test_a_file_moves_once(tmp_path):
    source, target = tmp_path / "a.png", tmp_path / "good" / "a.png"
    source.write_text("x")
    move(source, target)
    move(source, target)
    assert target.read_text() == "x"
    assert not source.exists()


def test_to_another_disk_it_is_copied_whole(tmp_path, monkeypatch):
    source, target = tmp_path / "a.png", tmp_path / "good" / "a.png"
    source.write_text("x")

    def refused(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(system, "rename", refused)
    move(source, target)
    assert target.read_text() == "x"
    assert not source.exists()
    assert [path.name for path in target.parent.iterdir()] == ["a.png"]


def test_names_that_are_no_text_get_printable_places(tmp_path):
    for name, expected in (("a\nb.png", "a_b.png"), ("x\udcff.png", "x_.png"), ("d\x1b/ä 日.png", "d_/ä 日.png")):
        assert target_of(name, "good", tmp_path) == tmp_path / "good" / expected
    assert free_prefix(tmp_path, "a\udcff") == tmp_path / "a_"
    assert escaped("a\nb\x1b[0m\udcff ä") == "a\\nb\\x1b[0m\\udcff ä"
