from iadbe.cli import main


def test_everything_of_one_thing(capsys):
    assert main(["show", "padim"]) == 0
    said = capsys.readouterr().out
    assert "2011.08785" in said
    assert "dims" in said
    assert "100" in said


def test_an_unknown_name_is_told(capsys):
    assert main(["show", "padm"]) == 1
    assert "Did you mean padim" in capsys.readouterr().err
