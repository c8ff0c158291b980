import math
import subprocess
import sys

import pytest

from iadbe.cli import UsageError, options
from iadbe.cli.options import AXES, parse
from iadbe.errors import BadConfig, Missing, UnknownName
from part_images import draw_mvtec, draw_parts


def add(parser):
    options.add_spec(parser)
    options.add_running(parser)


def read(*tokens):
    return parse("train", "About.", tokens, add, AXES)


class TestDottedOptions:
    def test_have_the_types_of_the_card(self):
        found = read("--detector", "padim", "--detector.dims", "50", "--detector.layers=2,3", "--detector.sigma", "2")
        assert found.entry("detector") == {"name": "padim", "params": {"dims": 50, "layers": [2, 3], "sigma": 2.0}}
        assert found.entry("setting") == {"name": "vanilla", "params": {}}

    def test_may_stand_before_the_name_and_the_last_counts(self):
        found = read("--detector.dims=1", "--detector=dfm", "--detector", "padim", "--detector.dims=2")
        assert found.entry("detector") == {"name": "padim", "params": {"dims": 2}}

    @pytest.mark.parametrize(
        ("tokens", "error", "sentence"),
        [
            (["--detector", "padm"], UnknownName, "Did you mean padim"),
            (["--detector", "padim", "--detector.dim", "1"], UnknownName, "Did you mean dims"),
            (["--detector", "padim", "--detector.dims", "x"], BadConfig, "padim.dims takes a whole number"),
            (
                ["--detector", "dfm", "--detector.score", "fra"],
                BadConfig,
                "one of fre, nll, not 'fra'. Did you mean fre",
            ),
            (["--detector", "padim", "--detector.dims"], UsageError, "--detector.dims needs a value"),
            (["--detector"], UsageError, "--detector needs a value"),
            (["--detector.dims", "3"], UsageError, "says nothing without --detector NAME"),
            (["--data.root", "x"], UsageError, "says nothing without --data NAME"),
            (["--setting", "vanila"], UnknownName, "Did you mean vanilla"),
            (["--detectr", "padim"], UsageError, "has no option --detectr"),
            (["--category", "bottle"], UsageError, r"has no option --category\. Write --data\.category\."),
            (["--data", "toyy"], UnknownName, "Did you mean toy"),
            (["--data", "toy", "--data.count", "x"], BadConfig, "toy.count takes a whole number"),
            (["--config"], UsageError, "--config needs a file"),
        ],
    )
    def test_mistakes_are_one_sentence(self, tokens, error, sentence):
        with pytest.raises(error, match=sentence):
            read(*tokens)

    def test_an_axis_that_is_missing_is_asked_for(self):
        with pytest.raises(UsageError, match="which detector.* --detector patchcore"):
            read("--data", "toy").entry("detector")
        with pytest.raises(UsageError, match="which data"):
            read("--detector", "padim").entry("data")

    def test_of_a_class_of_ones_own(self, elsewhere):
        (elsewhere / "own_options.py").write_text(
            '"""Mine."""\n\n\nclass Mine:\n    """Mine."""\n\n    def __init__(self, power: float = 2.0) -> None:\n'
            '        """Make.\n\n        Args:\n            power: of it\n        """\n'
        )
        found = read("--detector", "own_options:Mine", "--detector.power", "3")
        assert found.entry("detector") == {"name": "own_options:Mine", "params": {"power": 3.0}}


class TestData:
    def test_a_folder_is_recognised(self, elsewhere):
        draw_parts(elsewhere / "parts", good=3, bad=1)
        found = read("--data", "parts", "--data.name", "screw", "--data.seed", "7")
        entry = found.entry("data")
        assert entry["name"] == "folder"
        assert (entry["params"]["name"], entry["params"]["seed"]) == ("screw", 7), "a parameter may be called name"
        assert "parts looks like folders of your own" in found.notes[0]

    @pytest.mark.parametrize("how", ["--data.category a,b", "--data.categories=a,b", "--data.category [a,b]"])
    def test_categories(self, how):
        assert read("--data", "toy", *how.split()).entry("data")["categories"] == ["a", "b"]

    def test_a_class_of_anomalib(self, elsewhere):
        draw_mvtec(elsewhere / "mv")
        found = read(
            *[
                "--data",
                "anomalib.data.MVTec",
                "--data.category",
                "nut",
                "--data.root",
                "mv",
                "--data.train_batch_size",
                "8",
            ]
        )
        assert found.entry("data") == {"name": "mvtec_ad", "params": {"root": "mv"}, "categories": ["nut"]}
        assert "train_batch_size (the run decides)" in found.notes[0]


class TestConfig:
    def write(self, folder, text):
        (folder / "c.yaml").write_text(text)
        return "c.yaml"

    def test_yields_to_options_wherever_it_stands(self, elsewhere):
        self.write(elsewhere, "detector: {name: padim, dims: 5, layers: [1, 2]}\nseed: 3\nsize: 64\nkeep_maps: true\n")
        for tokens in (["--seed", "4", "--config", "c.yaml"], ["--config=c.yaml", "--seed", "4"]):
            found = read(*tokens, "--detector.dims", "9")
            assert (found.values["seed"], found.values["size"], found.values["keep_maps"]) == (4, 64, True)
            assert found.entry("detector")["params"] == {"dims": 9, "layers": [1, 2]}

    def test_of_another_detector_gives_no_parameters(self, elsewhere):
        self.write(elsewhere, "detector: {name: padim, dims: 5}\ndata: toy\nmetrics: [image_auroc, image_ap]\n")
        found = read("--config", "c.yaml", "--detector", "dfm")
        assert found.entry("detector") == {"name": "dfm", "params": {}}
        assert found.entry("data") == {"name": "toy", "params": {}}
        assert found.values["metrics"] == "image_auroc,image_ap"

    def test_of_an_anomalib_based_tool(self, elsewhere):
        draw_mvtec(elsewhere / "mv")
        self.write(
            elsewhere,
            "model:\n  class_path: anomalib.models.Padim\n"
            "  init_args: {layers: [layer1, layer2], n_features: 50, pre_trained: true, input_size: null}\n"
            "data:\n  class_path: anomalib.data.MVTec\n"
            "  init_args: {root: mv, category: nut, image_size: [256, 256], num_workers: 8}\n"
            "metrics: {pixel: [AUROC]}\nnormalization: {normalization_method: MIN_MAX}\n"
            "trainer: {max_epochs: 1}\nseed_everything: true\n",
        )
        found = read("--config", "c.yaml")
        assert found.entry("detector") == {"name": "padim", "params": {"layers": [1, 2], "dims": 50}}
        data = found.entry("data")
        assert (data["name"], data["categories"]) == ("mvtec_ad", ["nut"])
        output = " ".join(found.notes)
        for name in ("metrics", "normalization", "trainer", "image_size", "num_workers", "padim.input_size"):
            assert name in output

    def test_an_options_category_wins_over_the_files(self, elsewhere):
        """The commands of the earlier tool loop over categories, with one config file for all."""
        draw_mvtec(elsewhere / "mv")
        self.write(elsewhere, "data: {class_path: anomalib.data.MVTec, init_args: {root: mv, category: bolt}}\n")
        found = read("--data", "anomalib.data.MVTec", "--data.category", "nut", "--config", "c.yaml")
        data = found.entry("data")
        assert data["categories"] == ["nut"]
        assert data["params"]["root"].endswith("mv")

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("seeed: 1", "c.yaml has 'seeed', which is no option. Did you mean seed"),
            ("- a", "holds no options"),
            ("a: [", "cannot be read as YAML"),
            ("detector: {name: padim, dim: 5}", "Did you mean dims"),
        ],
    )
    def test_mistakes_are_one_sentence(self, elsewhere, text, sentence):
        self.write(elsewhere, text)
        with pytest.raises((BadConfig, UnknownName), match=sentence):
            read("--config", "c.yaml")

    def test_a_file_that_is_not_there(self):
        with pytest.raises(BadConfig, match="there is no config file c.yaml"):
            read("--config", "c.yaml")


class TestHelp:
    def test_shows_the_parameters_of_what_was_chosen(self, capsys):
        with pytest.raises(SystemExit) as ended:
            read("--detector", "padim", "--data", "folder", "--setting", "few_shot", "--help")
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert "--detector.dims N" in text
        assert "(default: 100)" in text
        assert "--data.abnormal_dir TEXT,…" in text
        assert "--data.category A,B,…" in text
        assert "--setting.k N" in text

    def test_is_given_even_where_the_data_is_not_there(self, capsys):
        with pytest.raises(SystemExit):
            read("--data", "nowhere/at/all", "--help")
        assert "--data NAME" in capsys.readouterr().out

    def test_needs_neither_torch_nor_numpy(self):
        code = (
            "import sys; from iadbe.cli import main; assert main(['train', '--detector', 'padim', '--help']) == 0\n"
            "assert not {'torch', 'numpy', 'rich'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(("text", "value"), [("", None), ("90", 90), ("90s", 90), ("1.5h", 5400), ("10 min", 600)])
def test_times(text, value):
    assert options.seconds(text) == value


@pytest.mark.parametrize(("text", "value"), [("", None), ("500MB", 5 * 10**8), ("4 GB", 4 * 10**9), ("1GiB", 2**30)])
def test_sizes(text, value):
    assert options.size(text) == value


@pytest.mark.parametrize("text", ["soon", "10 years", "-3s", "1.2.3s"])
def test_what_is_no_time(text):
    with pytest.raises(UsageError, match="is not a time such as 90s"):
        options.seconds(text)


def test_limits_of_nothing_and_a_file_for_the_feature_store_are_refused(tmp_path):
    (tmp_path / "file").touch()
    for given, said in (
        (("--time-limit", "0s"), "--time-limit takes a time above 0"),
        (("--memory-limit", "0"), "at least 1 byte"),
        (("--features", str(tmp_path / "file")), "file is a file. Give the folder of the feature store"),
    ):
        with pytest.raises(UsageError, match=said):
            options.options_of(read(*given).values)
    assert options.options_of(read("--features", str(tmp_path / "new")).values).features == str(tmp_path / "new")


@pytest.mark.parametrize("name", ["threads", "jobs"])
def test_a_negative_number_of_threads_or_jobs_is_refused_not_ignored(name):
    with pytest.raises(UsageError, match=f"--{name} takes a number of at least 0, not -3"):
        options.options_of(read(f"--{name}", "-3").values)


def test_limits_reach_the_runs(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/iadbe", "benchmark", "--data", "my parts"])
    found = options.options_of(
        read("--time-limit", "2m", "--memory-limit", "1GB", "--keep-maps").values, keep_model=True
    )
    assert (found.time_limit, found.memory_limit, found.keep_maps, found.keep_model) == (120, 10**9, True, True)
    assert found.command == "iadbe benchmark --data 'my parts'"
    assert found.checkpoints == 45
    assert options.options_of(read("--checkpoints", "off").values).checkpoints == math.inf
    assert options.options_of(read("--checkpoints", "2m").values).checkpoints == 120


class TestWhereClientsLearn:
    def test_is_an_option_that_is_checked_before_anything_runs(self, monkeypatch):
        assert options.options_of(read("--data", "toy").values).federation == "local"
        with pytest.raises(UsageError, match="--federation is local or flower, not 'flour'"):
            options.options_of(read("--federation", "flour").values)
        monkeypatch.setattr(options, "find_spec", lambda name: None)
        with pytest.raises(Missing, match=r"pip install 'iadbe\[flower\]'"):
            options.options_of(read("--federation", "flower").values)
        monkeypatch.setattr(options, "find_spec", lambda name: name == "flwr")
        assert options.options_of(read("--federation", "flower").values).federation == "flower"
