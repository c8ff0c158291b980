from iadbe.cli import main


def test_an_address_is_needed(capsys):
    assert main(["worker"]) == 2
    assert "address" in capsys.readouterr().err
