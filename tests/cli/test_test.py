import json

from iadbe.cli import main


def test_a_model_is_tested_on_data(model, plates, capsys):
    asked = ["test", str(model), "--data", str(plates), "--metrics", "image_auroc,pixel_auroc", "--json"]
    assert main(asked) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["plate"]["image_auroc"] == 1.0
    assert rows["plate"]["pixel_auroc"] > 0.9
