from iadbe.cli import main


def test_the_model_is_kept_and_the_next_step_is_said(store, model, plates, capsys):
    again = ["train", "--detector", "padim", "--detector.dims=16", "--data", str(plates), "--size", "64"]
    before = (model / "result.json").stat().st_mtime_ns
    assert main([*again, "--store", str(store), "--features", "off"]) == 0
    said = capsys.readouterr().out
    assert "iadbe predict" in said
    assert "1.000" in said
    assert (model / "result.json").stat().st_mtime_ns == before, "what is done is not done again"
    assert (model / "model/weights.safetensors").is_file()


def test_a_config_yields_to_the_options_beside_it(plates, tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text("detector: {name: padim, dims: many}\nseed: 3\n")
    asked = ["train", "--data", str(plates), "--store", str(tmp_path / "s"), "--config", str(config)]
    assert main(asked) == 1
    assert "dims" in capsys.readouterr().err


def test_mistakes_are_one_sentence_and_an_exit_code(plates, tmp_path, capsys):
    data = ["--data", str(plates), "--store", str(tmp_path / "s")]
    for asked, code, sentence in (
        (["--detector", "padm", *data], 1, "Did you mean padim"),
        (["--detector", "padim", "--detector.dim", "4", *data], 1, "Did you mean dims"),
        (["--detector", "padim", "--data", "toi"], 1, "toi"),
        (["--detector", "padim", "--data", str(plates), "--data.category", "plte"], 1, "Did you mean plate"),
        (["--detector", "padim", *data, "--time-limit", "soon"], 2, "10m"),
        (data, 1, "which detector"),
    ):
        assert main(["train", *asked]) == code, asked
        said = capsys.readouterr().err
        assert sentence in said
        assert "Traceback" not in said


def test_help_shows_the_parameters_of_the_chosen_detector(capsys):
    assert main(["train", "--detector", "padim", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--detector.dims" in said
    assert "--data" in said
