import json

from iadbe.cli import main


def test_the_machine_is_told(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert any("torch" in p for p in found["packages"])
    assert any("tf_efficientnet_lite0" in b for b in found["backbones"])
