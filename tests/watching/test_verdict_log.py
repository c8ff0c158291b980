"""The log of verdicts."""

from iadbe.watching.verdict_log import VerdictLog


def test_what_was_not_known_to_be_whole_is_written_anew(tmp_path):
    file = tmp_path / "verdicts.jsonl"
    log = VerdictLog(file, 0)
    end = log.append(["1", "2"])
    log.append(["3"])  # the journal does not hear of it
    log.close()
    with file.open("a") as half:
        half.write('{"ha')
    log = VerdictLog(file, end)
    assert log.append(["3", "é"]) == file.stat().st_size
    log.close()
    assert file.read_text(encoding="utf-8") == "1\n2\n3\né\n"


def test_a_log_that_was_taken_away_is_begun_anew(tmp_path):
    log = VerdictLog(tmp_path / "verdicts.jsonl", 1000)
    log.append(["4"])
    log.close()
    assert (tmp_path / "verdicts.jsonl").read_text() == "4\n"
