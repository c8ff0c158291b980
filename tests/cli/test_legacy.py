import pytest

from iadbe.cli import legacy
from iadbe.errors import UnknownName
from iadbe.registry import card

KNOWN = ("--seed", "--store", "--metrics", "--threshold")


def rewritten(text):
    tokens, notes = legacy.arguments(text.split(), KNOWN)
    return " ".join(tokens), " ".join(notes)


class TestArguments:
    @pytest.mark.parametrize(
        ("old", "ours"),
        [
            ("--model anomalib.models.Padim", "--detector anomalib.models.Padim"),
            ("--model=Padim --model.backbone x", "--detector=Padim --detector.backbone x"),
            (
                "--model.class_path Padim --model.init_args.layers=[layer1]",
                "--detector Padim --detector.layers=[layer1]",
            ),
            (
                "--data.class_path anomalib.data.MVTec --data.init_args.root D",
                "--data anomalib.data.MVTec --data.root D",
            ),
            ("--seed_everything 7", "--seed 7"),
            ("--seed_everything true --store x", "--store x"),
            ("--seed_everything=null --store x", "--store x"),
            ("--default_root_dir out", "--store out"),
            ("-c model.yaml", "--config model.yaml"),
        ],
    )
    def test_are_spelt_as_ours(self, old, ours):
        assert rewritten(old) == (ours, "")

    def test_without_a_counterpart_are_named_once(self):
        tokens, note = rewritten(
            "--trainer.max_epochs 3 --detector padim --task segmentation --return_predictions x.png "
            "--metrics.image=[AUROC] --task classification"
        )
        assert tokens == "--detector padim x.png"
        assert note.startswith("not used here: trainer.max_epochs, task, return_predictions, metrics.image (")

    def test_of_our_own_are_left_alone(self):
        ours = "--metrics image_auroc --threshold 0.5"
        assert rewritten(ours) == (ours, "")


def test_the_model_comes_first():
    tokens = ["--data", "x.png", "--model", "anomalib.models.Padim", "--ckpt_path=runs/a", "--out", "heat"]
    assert legacy.model_first(tokens) == ["runs/a", "--data", "x.png", "--out", "heat"]
    assert legacy.model_first(["runs/a", "x.png"]) == ["runs/a", "x.png"]


class TestConfig:
    def test_of_a_model_is_understood(self):
        found, (note,) = legacy.config(
            {
                "model": {"class_path": "anomalib.models.Padim", "init_args": {"n_features": 50}},
                "metrics": {"image": ["AUROC"]}, "normalization": None, "trainer": {"max_epochs": 1},
                "seed_everything": 4, "default_root_dir": "results",
            }
        )  # fmt: skip
        assert found == {
            "detector": {"class_path": "anomalib.models.Padim", "init_args": {"n_features": 50}},
            "seed": 4, "store": "results",
        }  # fmt: skip
        assert "metrics, trainer (" in note, "null says nothing"

    def test_a_class_path_at_the_top_says_what_it_is(self):
        assert list(legacy.config({"class_path": "anomalib.data.Folder", "init_args": {}})[0]) == ["data"]
        assert list(legacy.config({"class_path": "Padim"})[0]) == ["detector"]

    def test_of_our_own_is_left_alone(self):
        ours = {"detector": "padim", "metrics": ["image_auroc"], "time_limit": "10m"}
        assert legacy.config(ours) == (ours, [])


class TestDetectorName:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("padim", "padim"), ("Padim", "padim"), ("PaDiM", "padim"), ("anomalib.models.Padim", "padim"),
            ("anomalib.models.image.Patchcore", "patchcore"), ("STFPM", "stfpm"), ("my.module:Mine", "my.module:Mine"),
        ],
    )  # fmt: skip
    def test_is_known_in_any_spelling(self, text, name):
        assert legacy.detector_name(text) == name

    def test_unknown(self):
        with pytest.raises(UnknownName, match=r"anomalib\.models\.Nothere is not here \(yet\)\. There are: .*padim"):
            legacy.detector_name("anomalib.models.Nothere")
        with pytest.raises(UnknownName, match="Did you mean patchcore"):
            legacy.detector_name("Patchcor")


class TestParameters:
    @pytest.mark.parametrize(
        ("name", "given", "ours"),
        [
            ("padim", {"n_features": 50}, {"dims": 50}),
            ("padim", {"k": "50"}, {"dims": "50"}),
            ("orthoad", {"k": 50}, {"k": 50}),
            ("padim", {"layers": ["layer1", "layer2"]}, {"layers": ["1", "2"]}),
            ("padim", {"layers": "[layer1, 'layer3']"}, {"layers": "1, 3"}),
            ("padim", {"layers": [1, 2]}, {"layers": [1, 2]}),
            ("dfkde", {"layers": ["layer2", "layer4"], "n_pca_components": 8}, {"layer": "4", "components": 8}),
            ("dfm", {"layer": "layer3", "pooling_kernel_size": 4, "pca_level": 0.9, "score_type": "nll"},
             {"layer": "3", "pool": 4, "variance": 0.9, "score": "nll"}),
            ("patchcore", {"coreset_sampling_ratio": 0.01, "num_neighbors": 3}, {"coreset": 0.01, "neighbours": 3}),
            ("padim", {"pre_trained": True}, {}),
            ("padim", {"pre_trained": False}, {"weights": "none"}),
            ("padim", {"weights": "/data/layer2/w.pth"}, {"weights": "/data/layer2/w.pth"}),
        ],
    )  # fmt: skip
    def test_get_our_names(self, name, given, ours):
        assert legacy.parameters(name, given, foreign=True)[0] == ours

    def test_what_was_renamed_or_left_out_is_reported(self):
        ours, notes = legacy.parameters("padim", {"n_features": 5, "input_size": 256, "pre_processor": True}, False)
        assert ours == {"dims": 5}
        assert notes[0] == "padim: n_features is called dims here."
        assert "padim.input_size, padim.pre_processor" in notes[1]

    def test_what_only_other_tools_know_is_named_but_a_typing_error_is_not_hidden(self):
        given = {"max_training_points": 100, "dimz": 3}
        ours, (note,) = legacy.parameters("padim", given, foreign=True)
        assert ours == {"dimz": 3}, "for the card to refuse"
        assert "padim.max_training_points" in note
        assert legacy.parameters("padim", given, foreign=False) == (given, [])

    def test_null_leaves_it_to_the_tool(self):
        assert legacy.parameters("padim", {"n_features": None}, foreign=True)[0] == {}


def test_another_default_backbone_is_told():
    (note,) = legacy.backbone_notes("padim")
    assert "anomalib's default is resnet18: --detector.backbone resnet18 takes it" in note
    assert legacy.backbone_notes("cfa") == []
    for name in legacy.BACKBONES:
        assert any(p.name == "backbone" for p in card("detectors", name).parameters)


def test_a_config_of_anomalib_0_is_understood():
    section = {"format": "folder", "path": "x", "normal_dir": "good", "image_size": 256}
    found, notes = legacy.config({"dataset": section, "model": {"name": "padim"}})
    assert found["data"] == {"class_path": "folder", "init_args": {"root": "x", "normal_dir": "good"}}
    assert found["detector"] == {"name": "padim"}
    assert "dataset.image_size" in notes[0]
