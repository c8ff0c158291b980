from dataclasses import replace

import pytest

from iadbe import plan
from iadbe.errors import BadConfig, IadbeError, UnknownName
from iadbe.seeds import run_id

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
    assert "has 40 good training pictures" in str(found.skipped[0])


def test_defaults_are_part_of_a_spec_and_paths_are_not(tmp_path):
    (spec, _) = plan.expand({"detectors": ["padim"], "data": [TOY]}).runs
    assert spec.detector_params["dims"] == 100
    assert spec.setting_params == {}
    assert spec.data
    assert run_id(replace(spec, place={"root": "x"})) == run_id(spec)


def test_the_paper_protocol_takes_the_papers_parameters_where_none_are_given():
    own = [{"name": "padim", "dims": 7}]
    (spec, _) = plan.expand({"detectors": own, "data": [TOY], "protocol": "paper"}).runs
    assert spec.detector_params["backbone"] == "wide_resnet50_2.tv_in1k"
    assert spec.detector_params["dims"] == 7


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
        ({"protocol": "uniform@9"}, "There are uniform"),
        ({"metrics": ["image_aurok"]}, "Did you mean image_auroc"),
    ],
)
def test_a_mistake_is_one_sentence(change, sentence):
    with pytest.raises(IadbeError, match=sentence):
        plan.expand({"detectors": ["padim"], "data": [TOY], **change})


def test_uniform_at_256_is_uniform():
    assert plan.check_protocol("uniform@256") == "uniform"
    assert plan.check_protocol("uniform@512") == "uniform@512"


def test_a_grid_file_that_is_none_is_one_sentence(tmp_path):
    with pytest.raises(BadConfig, match="there is no grid file"):
        plan.read(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(BadConfig, match="is not a grid"):
        plan.read(tmp_path / "list.yaml")


def test_unknown_detector_class():
    with pytest.raises(UnknownName):
        plan.expand({"detectors": ["no_module_of_this_name:X"], "data": [TOY]})
