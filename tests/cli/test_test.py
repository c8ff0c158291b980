import json
import shutil

import pytest


def test_a_model_gives_the_numbers_of_its_run(iadbe, workspace):
    own = json.loads((workspace.padim / "result.json").read_text())["rows"]
    output = iadbe("test", workspace.padim, "--data", workspace.mvtec, "--device", "cpu", "--json")
    assert output.code == 0
    found = json.loads(output.out)["nut"]
    assert found == pytest.approx({metric: value for _, _, metric, value in own}, abs=1e-6)


def test_a_table_by_category(iadbe, workspace):
    output = iadbe("test", workspace.padim, "--data", workspace.mvtec, "--metrics", "image_auroc", "--device", "cpu")
    assert output.out.splitlines() == [
        f"padim on {workspace.mvtec.name}",
        "category  image AUROC",
        "nut            1.0000",
    ]


def test_the_earlier_tools_options_work(iadbe, workspace):
    arguments = ["--model", "anomalib.models.Padim", "--ckpt_path", workspace.padim, "--data", "anomalib.data.MVTec"]
    output = iadbe(
        "test", *arguments, "--data.root", workspace.mvtec, "--data.category", "nut", "--metrics", "image_auroc"
    )
    assert output.code == 0
    assert "1.0000" in output.out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "which model?"),
        (["{padim}"], 2, "which data?"),
        (["{padim}", "--data", "{mvtec}", "--data.category", "nutt"], 1, "Did you mean nut"),
        (["{padim}", "--data", "{mvtec}", "--metrics", "image_aurok"], 1, "Did you mean image_auroc"),
        (["{mvtec}", "--data", "{mvtec}"], 1, "is not a model folder"),
    ],
)
def test_mistakes_are_one_sentence(iadbe, workspace, arguments, code, sentence):
    output = iadbe("test", *(word.format(**vars(workspace)) for word in arguments))
    assert output.code == code
    assert sentence in output.err


def test_what_pixel_metrics_leave_out_is_said(iadbe, workspace, elsewhere):
    data = elsewhere / "mvtec"
    shutil.copytree(workspace.mvtec, data)
    masks = sorted((data / "nut" / "ground_truth").rglob("*.png"))
    masks[0].unlink()
    output = iadbe("test", workspace.padim, "--data", data, "--metrics", "pixel_auroc", "--device", "cpu")
    assert output.code == 0
    assert f"note: nut: 1 of {len(masks)} defective images have no mask; pixel metrics leave them out." in output.err
