import pytest

from iadbe.cli import UsageError, prediction_inputs
from iadbe.errors import BadConfig


def test_options_of_the_data_are_taken_and_others_stay():
    others, data = prediction_inputs.take(
        ["MODEL", "--data", "mvtec_ad", "--data.root=DIR", "--data.category", "bottle", "--format", "csv", "x.png"]
    )
    assert others == ["MODEL", "--format", "csv", "x.png"]
    assert (data.name, data.params) == ("mvtec_ad", {"root": "DIR", "category": "bottle"})


def test_a_config_names_data_and_model(tmp_path):
    (tmp_path / "c.yaml").write_text("ckpt_path: runs/x\nmodel: padim\ndata: {class_path: anomalib.data.MVTec}\n")
    others, data = prediction_inputs.take(["--config", str(tmp_path / "c.yaml")])
    assert (others, data.checkpoint) == ([], "runs/x")
    assert data.configured == {"class_path": "anomalib.data.MVTec"}


@pytest.mark.parametrize("arguments", [["--data"], ["--data.root"], ["--config"]])
def test_a_value_is_needed(arguments):
    with pytest.raises(UsageError, match="needs a value"):
        prediction_inputs.take(arguments)


@pytest.mark.parametrize(
    ("text", "is_data"),
    [("toy", True), ("anomalib.data.MVTec", True), ("x.yaml", True), ("x.png", False), ("", False), ("parts", False)],
)
def test_data_is_told_from_images(text, is_data):
    assert prediction_inputs.is_data(text) is is_data


def test_test_images_of_a_dataset():
    _, data = prediction_inputs.take(["--data", "toy", "--data.category", "metal"])
    images = prediction_inputs.images_of([], data)
    assert len(images) > 4
    assert images[0].read(None)[0].ndim == 3
    _, data = prediction_inputs.take(["--data", "toy", "--data.category", "wood"])
    with pytest.raises(BadConfig, match="no category 'wood'"):
        prediction_inputs.images_of([], data)


def test_nothing_is_a_mistake():
    with pytest.raises(UsageError, match="which images"):
        prediction_inputs.images_of([], prediction_inputs.DataOptions())
