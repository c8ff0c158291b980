import pytest

from iadbe.errors import BadConfig, BadData
from iadbe.files.bad_labels import BadLabels


def collected(rule, *sentences):
    labels = BadLabels(rule, "yolo.bad_labels")
    read = []
    for number, sentence in enumerate(sentences):
        with labels.collected():
            if sentence:
                raise BadData(sentence)
            read.append(number)
    return labels, read


def message(*sentences):
    labels, _ = collected("error", *sentences)
    with pytest.raises(BadData) as error:
        labels.check("lines")
    return str(error.value)


def test_one_bad_label_is_one_sentence():
    assert message("", "/d/a.csv, line 3 is no split.") == (
        "/d/a.csv, line 3 is no split. Leave their images out with --data.bad_labels drop."
    )


def test_lines_of_one_reason_stand_together():
    text = message("/d/a.csv, line 3 is no split.", "/d/a.csv, line 9 is no split.", "/d/a.csv, line 4: it is empty.")
    assert text.startswith(
        "3 lines cannot be read: /d/a.csv, line 3; line 9 is no split. /d/a.csv, line 4: it is empty."
    )
    text = message("/d/a.csv, line 3 ('x') is no split.", "/d/a.csv, line 9 ('y, line 2') is no split.")
    assert "/d/a.csv, line 3 ('x'); line 9 ('y, line 2') is no split." in text


def test_every_file_is_named_however_many_there_are():
    text = message(*(f"/d/labels/train/{n}.txt, line {n} is outside." for n in range(60)))
    assert text.startswith("60 lines cannot be read: /d/labels/train/0.txt, line 0; train/1.txt, line 1; ")
    assert all(f"train/{n}.txt, line {n}" in text for n in range(60))
    text = message(*(f"/d/{n}.txt, line 1 is wrong in way {n}." for n in range(60)))
    assert all(f"{n}.txt, line 1" in text for n in range(60))
    text = message(*(f"/d/{n}.txt, line 1 is outside." for n in range(1000)))
    assert "and 900 more is outside." in text
    assert len(text) < 5000
    text = message(*(f"/d/{n}.json is not a list." for n in range(30)))
    assert text.startswith("30 lines cannot be read: /d/0.json is not a list. /d/1.json is")
    assert "And 20 more." in text
    text = message("/d/a.json, entry 3 of test is none.", "/d/a.json, entry 5 of train is none.")
    assert "/d/a.json, entry 3 of test; entry 5 of train is none." in text


def test_dropped_labels_raise_nothing_and_the_others_are_read():
    labels, read = collected("drop", "", "/d/a.csv, line 3 is no split.", "")
    labels.check()
    assert read == [0, 2]


def test_other_errors_are_not_collected():
    with pytest.raises(ZeroDivisionError), BadLabels("drop", "x").collected():
        raise ZeroDivisionError


def test_an_unknown_rule_is_refused():
    with pytest.raises(BadConfig, match=r"yolo\.bad_labels is 'ignore', not one of error, drop\."):
        BadLabels("ignore", "yolo.bad_labels")
