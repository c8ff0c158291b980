import io
import sys

from iadbe.cli import console


def streams_of(monkeypatch):
    made = [io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline="") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", made[0])
    monkeypatch.setattr(sys, "stderr", made[1])
    console.escape_unknown_characters()
    return made


def text(stream):
    stream.flush()
    return stream.buffer.getvalue().decode("cp1252")


def test_what_the_encoding_lacks_is_escaped_and_told(monkeypatch):
    streams = streams_of(monkeypatch)
    print("裂纹_1.png", "é", "\U0001f600")
    console.report_escaped_characters()
    assert text(streams[0]).split() == [r"\u88c2\u7eb9_1.png", "é", r"\U0001f600"]
    assert text(streams[1]).startswith("note: this console (cp1252) cannot show some characters")


def test_typographic_characters_are_spelt_without_a_word(monkeypatch):
    streams = streams_of(monkeypatch)
    print("a ≥ b → c −1 ² …")
    console.report_escaped_characters()
    assert text(streams[0]).strip().startswith("a >= b -> c -1 ")
    assert text(streams[1]) == ""


def test_text_that_can_be_shown_stays_as_it_is(monkeypatch):
    streams = streams_of(monkeypatch)
    print("—“naïve”…")
    assert text(streams[0]).strip() == "—“naïve”…"
