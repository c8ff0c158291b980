import csv
import errno
import json

import pytest

from iadbe.errors import BadConfig
from iadbe.watching.csv_file import COLUMNS, CsvFile


def line(number, **more):
    return json.dumps({
        "id": f"{number:032x}", "time": "2026-12-01T10:00:00.000+00:00", "path": f"in/{number}.png", "score": 0.5,
        "scaled": None, "threshold": 1.0, "error": None, "verdict": "good", "regions": [{}, {}], "moved_to": None,
        **more,
    })  # fmt: skip


def rows(file):
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def sent(file, *lines):
    sink = CsvFile(file)
    for one in lines:
        sink.send(one)
    sink.close()


def test_verdicts_are_appended_over_restarts(tmp_path):
    file = tmp_path / "new" / "shift.csv"
    sent(file, line(1), line(2))
    sent(file, line(3, verdict="reject", score=2.5))
    found = rows(file)
    assert [row["path"] for row in found] == ["in/1.png", "in/2.png", "in/3.png"]
    assert tuple(found[0]) == COLUMNS
    assert (found[2]["verdict"], found[2]["score"], found[2]["scaled"], found[2]["regions"]) == (
        "reject",
        "2.5",
        "",
        "2",
    )
    assert found[0]["images"] == "1"


def test_a_verdict_that_is_sent_again_is_not_written_again(tmp_path):
    file = tmp_path / "shift.csv"
    sent(file, line(1), line(2))
    sent(file, line(2), line(3))
    sent(file, line(3))
    assert [row["path"] for row in rows(file)] == ["in/1.png", "in/2.png", "in/3.png"]


def test_a_line_that_was_cut_off_is_written_anew_at_every_byte(tmp_path):
    file = tmp_path / "shift.csv"
    sent(file, line(1), line(2))
    whole = file.read_bytes()
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        done = max(0, whole[:end].count(b"\n") - 1)  # verdicts whose lines are complete
        sent(file, *[line(1), line(2)][max(0, done - 1) :])  # from the one that was not known to be taken
        assert file.read_bytes() == whole


def test_a_last_line_of_somebody_else_stays(tmp_path):
    file = tmp_path / "shift.csv"
    sent(file, line(1))
    with file.open("a") as opened:
        opened.write("note without an end")
    sent(file, line(2))
    assert file.read_text().splitlines()[2] == "note without an end"
    assert rows(file)[2]["path"] == "in/2.png"


@pytest.mark.parametrize("name", ["=1+1.png", "+x.png", "@a.png", "-2.png", "\t=x.png"])
def test_cells_are_no_formulas(tmp_path, name):
    sent(tmp_path / "a.csv", line(1, path=name, error=name))
    (row,) = rows(tmp_path / "a.csv")
    assert not row["path"].lstrip().startswith(("=", "+", "-", "@"))
    assert not row["error"].lstrip().startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize(
    "name", ["a\nb.png", "a\r\nb.png", 'a",b.png', "a\u2028b.png", "b\udcff.png", "ä日\x1b[0m.png"]
)
def test_names_of_all_kinds_are_one_line(tmp_path, name):
    sent(tmp_path / "a.csv", line(1, path=name), line(2))
    sent(tmp_path / "a.csv", line(2), line(3))
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 4
    assert "\x1b" not in text
    assert [row["id"] for row in rows(tmp_path / "a.csv")] == [f"{n:032x}" for n in (1, 2, 3)]


def test_a_part_is_a_line(tmp_path):
    record = {"id": "1", "part": "7", "images": [{}, {}, {}], "highest": "in/7_b.png", "verdict": "look", "score": 0.7}
    sent(tmp_path / "a.csv", json.dumps(record))
    (row,) = rows(tmp_path / "a.csv")
    assert (row["part"], row["images"], row["path"], row["verdict"]) == ("7", "3", "in/7_b.png", "look")


def test_another_table_is_not_written_to(tmp_path):
    (tmp_path / "a.csv").write_text("name,price\n")
    with pytest.raises(BadConfig, match="another table"):
        CsvFile(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "name,price\n"
    with pytest.raises(BadConfig, match="cannot be written"):
        CsvFile(tmp_path)


class FullDisk:
    """A file that takes some bytes and then has no space, until it is told that there is some."""

    def __init__(self, file, space):
        self._file, self.space = file, space

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        if not self.space:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._file.write(data[: self.space])
        self.space -= written
        return written


def test_a_full_disk_leaves_no_line_twice(tmp_path):
    sink = CsvFile(tmp_path / "a.csv")
    sink.send(line(1))
    sink._file = FullDisk(sink._file, 20)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            sink.send(line(2))
    sink._file.space = 10**6
    sink.send(line(2))
    sink.send(line(3))
    sink.close()
    assert [row["path"] for row in rows(tmp_path / "a.csv")] == ["in/1.png", "in/2.png", "in/3.png"]
