import re
from dataclasses import replace

import pytest

import dataset_trees
from iadbe.errors import BadConfig, IadbeError, UnknownName
from iadbe.running import plan
from iadbe.seeds import run_id
from part_images import draw_parts

TOY = {"name": "toy", "categories": ["metal", "board"]}


def test_the_grid_is_the_product_of_its_axes():
    found = plan.expand({"detectors": ["padim", "dfm"], "data": [TOY], "seeds": [0, 1]})
    assert len(found.runs) == 8
    assert len({run_id(s) for s in found.runs}) == 8
    assert {s.task for s in found.runs} == {"metal", "board"}
    assert found.skipped == ()


def test_equal_cells_run_once():
    found = plan.expand({"detectors": ["padim", {"name": "padim", "dims": 100}], "data": [TOY]})
    assert len(found.runs) == 2


def test_a_sweep_multiplies_an_entry():
    grid = {"detectors": [{"name": "padim", "sweep": {"dims": [10, 20], "sigma": [0, 4]}}], "data": [TOY]}
    assert len(plan.expand(grid).runs) == 8
    assert grid["detectors"][0]["sweep"], "the grid is left as it was"


def test_what_cannot_run_is_skipped_with_the_reason():
    found = plan.expand({"detectors": ["padim"], "data": [TOY], "settings": [{"name": "few_shot", "k": 500}]})
    assert found.runs == ()
    assert "has 40 good training images" in str(found.skipped[0])


def test_defaults_are_part_of_a_spec_and_paths_are_not(tmp_path):
    (spec, _) = plan.expand({"detectors": ["padim"], "data": [TOY]}).runs
    assert spec.detector_params["dims"] == 100
    assert spec.setting_params == {}
    assert spec.data
    assert run_id(replace(spec, place={"root": "x"})) == run_id(spec)


def test_a_region_is_a_part_of_the_data_and_its_file_of_the_place(tmp_path):
    dataset_trees.mvtec_ad(tmp_path / "a")
    region = tmp_path / "a/roi.yaml"
    region.write_text("[[[0, 0], [20, 0], [20, 15], [0, 15]]]")
    data = {"name": "mvtec_ad", "root": str(tmp_path / "a")}

    def only(**more):
        (spec, *_) = plan.expand({"detectors": ["padim"], "data": [{**data, **more}]}).runs
        return spec

    whole, part = only(), only(roi="roi.yaml")
    assert part.dataset_params == whole.dataset_params
    assert not {"root", "roi", "ignore"} & set(part.dataset_params)
    assert part.place == {**whole.place, "roi": str(region)}
    assert run_id(part) != run_id(whole)
    region.rename(tmp_path / "moved.yaml")
    assert run_id(only(roi=str(tmp_path / "moved.yaml"))) == run_id(part)
    with pytest.raises(IadbeError, match="there is no file or folder"):
        only(roi="roi.yaml")


def test_the_paper_protocol_takes_the_papers_parameters_where_none_are_given():
    own = [{"name": "padim", "dims": 7}]
    (spec, _) = plan.expand({"detectors": own, "data": [TOY], "protocol": "paper"}).runs
    assert spec.detector_params["backbone"] == "wide_resnet50_2.tv_in1k"
    assert spec.detector_params["dims"] == 7


def test_the_paper_protocol_takes_what_the_paper_used_for_a_category(tmp_path):
    dataset_trees.mvtec_ad(tmp_path, ("bottle", "carpet"))
    grid = {"detectors": ["cpr"], "data": [{"name": "mvtec_ad", "root": str(tmp_path)}]}
    steps = {s.task: s.detector_params["steps"] for s in plan.expand({**grid, "protocol": "paper"}).runs}
    assert steps == {"bottle": 40000, "carpet": 500}
    kinds = {s.task: s.detector_params["kind"] for s in plan.expand(grid).runs}
    assert kinds == {"bottle": "object", "carpet": "object"}  # by default all are treated alike
    given = {**grid, "protocol": "paper", "detectors": [{"name": "cpr", "steps": 7}]}
    assert {s.detector_params["steps"] for s in plan.expand(given).runs} == {7}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"detector": ["padim"]}, "Did you mean detectors"),
        ({"detectors": ["padm"]}, "Did you mean padim"),
        ({"detectors": [{"name": "padim", "dim": 1}]}, "Did you mean dims"),
        ({"detectors": [{"dims": 1}]}, "a name"),
        ({"detectors": []}, "the grid needs detectors"),
        ({"data": [{"name": "toy", "categories": ["metl"]}]}, "Did you mean metal"),
        ({"settings": ["vanila"]}, "Did you mean vanilla"),
        ({"protocol": "unifrom"}, "There are uniform"),
        ({"protocol": "uniform@9"}, "at least 32 pixels"),
        ({"metrics": ["image_aurok"]}, "Did you mean image_auroc"),
    ],
)
def test_a_mistake_is_one_sentence(change, sentence):
    with pytest.raises(IadbeError, match=sentence):
        plan.expand({"detectors": ["padim"], "data": [TOY], **change})


def test_a_grid_file_that_is_none_is_one_sentence(tmp_path):
    with pytest.raises(BadConfig, match="there is no grid file"):
        plan.read(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(BadConfig, match="is not a grid"):
        plan.read(tmp_path / "list.yaml")


def test_unknown_detector_class():
    with pytest.raises(UnknownName):
        plan.expand({"detectors": ["no_module_of_this_name:X"], "data": [TOY]})


def test_parameters_may_stand_apart_from_the_name(tmp_path):
    """So that a dataset may have a parameter called name."""
    draw_parts(tmp_path, good=4, bad=1)
    params = {"root": str(tmp_path), "abnormal_dir": "scratch", "name": "screw"}
    (spec,) = plan.expand({"detectors": ["padim"], "data": [{"name": "folder", "params": params}]}).runs
    assert spec.task == "screw"
    assert spec.place["root"] == str(tmp_path)
    assert "root" not in spec.dataset_params


@pytest.mark.parametrize("categories", ["all", ["all"], None, []])
def test_all_categories(categories):
    grid = {"detectors": ["padim"], "data": [{"name": "toy", "categories": categories}]}
    assert len(plan.expand(grid).runs) == 4


def test_seeds_from_the_command_line_are_numbers():
    assert [s.seed for s in plan.expand({"detectors": ["padim"], "data": [TOY], "seeds": ["0", "7"]}).runs] == [
        0,
        0,
        7,
        7,
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seeds": [0, "x"]}, "a seed is a whole number, not 'x'"),
        ({"seeds": True}, "a seed is a whole number, not True"),
        ({"seeds": [0, -1]}, "a seed is a whole number, not -1; 0 is the smallest"),
        ({"detectors": [{"padim": {"dims": 5}}]}, "a mapping such as {name: padim, dims: 50}"),
        ({"detectors": [5]}, "each of detectors is a name"),
        ({"detectors": [{"name": "padim", "sweep": [1]}]}, "sweep of padim must be names with lists"),
        ({"detectors": [{"name": "padim", "sweep": {"dims": []}}]}, "sweep of padim must be names with lists"),
        ({"detectors": [{"name": "padim", "sweep": {"dim": [1]}}]}, "Did you mean dims"),
        ({"detectors": [{"name": "padim", "params": 3}]}, "params of padim must be names with values"),
        ({"data": [{"name": "toy", "categories": [1]}]}, "there is no category '1'"),
        ({"protocol": "paper@300"}, "There are uniform"),
    ],
)
def test_a_malformed_grid_is_one_sentence(change, sentence):
    with pytest.raises(IadbeError, match=re.escape(sentence)):
        plan.expand({"detectors": ["padim"], "data": [TOY], **change})


def test_data_that_gives_no_metrics_is_reported_beforehand(tmp_path):
    draw_parts(tmp_path / "parts", good=5, bad=2)
    found = plan.expand({"detectors": ["padim"], "data": [str(tmp_path / "parts")]})
    assert any("there are no masks" in note for note in found.notes)
    assert any("looks like folders of your own" in note for note in found.notes)


def test_the_run_that_needs_most_layers_of_a_backbone_goes_first():
    """So that the others find their layers in the feature store."""
    detectors = ["autoencoder", {"name": "dfm", "layer": 3}, "patchcore", {"name": "padim", "layers": [1, 2, 3]}]
    planned = plan.expand({"detectors": detectors, "data": [TOY]}).runs
    assert list(dict.fromkeys(s.detector for s in planned)) == ["padim", "patchcore", "dfm", "autoencoder"]


@pytest.mark.parametrize(
    ("detector", "setting", "reason"),
    [
        ("dfkde", "zero_shot", "the setting demands zero-shot, which the detector cannot do"),
        ("dfkde", "federated", "the setting demands merge or continue, which the detector cannot do"),
        ("padim", "federated", ""),
        ("stfpm", "federated", ""),
        ("padim", {"name": "few_shot", "others": True}, "the setting demands meta-learning"),
        ("padim", "few_shot", ""),
        ("musc", {"name": "zero_shot", "transductive": True}, ""),
    ],
)
def test_what_a_setting_demands_may_depend_on_its_parameters(detector, setting, reason):
    found = plan.expand({"detectors": [detector], "data": [TOY], "settings": [setting]})
    assert bool(found.runs) == (not reason)
    assert all(reason in str(skip) for skip in found.skipped)
    assert bool(found.skipped) == bool(reason)


def test_a_task_of_several_categories_holds_those_that_were_chosen():
    def tasks(categories, setting="multi_class"):
        data = {"name": "toy", "categories": categories}
        return [s.task for s in plan.expand({"detectors": ["padim"], "data": [data], "settings": [setting]}).runs]

    assert tasks(["metal", "board"]) == ["metal+board"]
    assert tasks("all") == ["all"]
    assert tasks(["metal", "board"], "transfer") == ["metal to board"]


def test_precision_and_accumulation_belong_to_the_protocol():
    grid = {"detectors": ["padim"], "data": [{"name": "toy", "categories": ["metal"]}]}
    for more in ({"precision": "bf16", "accumulate": 2}, {"protocol": "uniform+bf16", "accumulate": "2"}):
        (spec,) = plan.expand({**grid, **more}).runs
        assert spec.protocol == "uniform+bf16+2batches"
    (plain,) = plan.expand(grid).runs
    (same,) = plan.expand({**grid, "precision": "fp32", "accumulate": 1}).runs
    assert run_id(same) == run_id(plain) != run_id(spec)
    with pytest.raises(BadConfig, match="another precision"):
        plan.expand({**grid, "protocol": "uniform+bf16", "precision": "fp16"})
    with pytest.raises(BadConfig, match="accumulate is a number of batches"):
        plan.expand({**grid, "accumulate": "many"})
    with pytest.raises(BadConfig, match="precision is fp32"):
        plan.expand({**grid, "precision": "fp8"})


def test_labels_are_needed_unless_a_parameter_lifts_the_need():
    grid = {"data": ["toy"], "detectors": ["devnet", {"name": "devnet", "anomalies": "synthetic"}]}
    found = plan.expand({**grid, "settings": ["vanilla", "semi"]})
    told = [(spec.setting, spec.detector_params["anomalies"]) for spec in found.runs]
    assert set(told) == {("vanilla", "synthetic"), ("semi", "synthetic"), ("semi", "labelled")}
    assert {skip.reason for skip in found.skipped} == {
        "it needs labels, which neither the data nor the setting gives. The settings semi and supervised label "
        "anomalies."
    }


def test_a_budget_belongs_to_the_protocol():
    grid = {"detectors": ["padim"], "data": [{"name": "toy", "categories": ["metal"]}]}
    for more in (
        {"budget": "10m"},
        {"budget": 600},
        {"protocol": "uniform+600s"},
        {"protocol": "uniform+600s", "budget": "10m"},
    ):
        (spec,) = plan.expand({**grid, **more}).runs
        assert spec.protocol == "uniform+600s"
    with pytest.raises(BadConfig, match="another budget"):
        plan.expand({**grid, "protocol": "uniform+600s", "budget": "5m"})
    with pytest.raises(BadConfig, match="not a time"):
        plan.expand({**grid, "budget": "soon"})
