import shlex

import fake_results
from iadbe.web.reproduction import command, non_default


def words(**more):
    return shlex.split(command(fake_results.result("padim", **more)))


def test_only_non_default_parameters_are_written():
    params = {"dims": 50, "layers": [1, 2], "sigma": 4.0}
    said = words(detector_params=params, seed=3, scores=fake_results.scores())
    assert said[:4] == ["iadbe", "train", "--detector", "padim"]
    assert said[said.index("--detector.dims") + 1] == "50"
    assert said[said.index("--detector.layers") + 1] == "[1, 2]"
    assert "--detector.sigma" not in said
    assert said[said.index("--data.category") + 1] == "bottle"
    assert said[said.index("--data.root") + 1] == "DIR"
    assert said[said.index("--seed") + 1] == "3"
    assert "--setting" not in said


def test_settings_and_data_without_a_folder():
    said = words(setting="few_shot", setting_params={"k": 4}, dataset="toy", task="metal")
    assert said[said.index("--setting") : said.index("--setting") + 2] == ["--setting", "few_shot"]
    assert "--data.root" not in said


def test_values_are_quoted_for_the_shell():
    text = command(fake_results.result("padim; rm -rf /", task="$(reboot)"))
    assert shlex.split(text)[3] == "padim; rm -rf /"
    assert "$(reboot)" in shlex.split(text)


def test_the_command_plans_the_same_run(tmp_path, monkeypatch):
    from iadbe.cli import main
    from iadbe.running import plan, pool
    from iadbe.seeds import run_id
    from iadbe.types import RunResult

    grid = {
        "detectors": [{"name": "padim", "dims": 50, "layers": [1, 2]}],
        "data": [{"name": "toy", "count": 20, "categories": ["metal"]}],
        "settings": [{"name": "few_shot", "k": 4}],
        "seeds": [3],
        "protocol": "uniform@64",
        "metrics": ["image_auroc", "pixel_aupro@5%"],
    }
    (asked,) = plan.expand(grid).runs
    done = RunResult(asked, scores=fake_results.scores("metal"))
    planned = []

    def caught(specs, *_, **__):
        planned.extend(specs)
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "run_all", caught)
    main([*shlex.split(command(done))[1:], "--store", str(tmp_path)])
    assert [run_id(s) for s in planned] == [run_id(asked)]


def test_all_parameters_are_written_without_a_card():
    assert non_default("detectors", "moon", {"a": 1}) == {"a"}
