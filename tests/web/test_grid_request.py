import pytest

from iadbe.errors import BadConfig, IadbeError, UnknownName
from iadbe.running import plan
from iadbe.running.store import Store
from iadbe.web.data_roots import DataRoots
from iadbe.web.grid_request import grid, options
from part_images import draw_parts


@pytest.fixture
def data_roots(tmp_path):
    draw_parts(tmp_path / "good-parts", 3, 2)
    return DataRoots(Store(tmp_path / "runs"), {"parts": tmp_path / "good-parts"})


def test_a_data_root_becomes_its_folder(data_roots, tmp_path):
    made = grid({"detectors": ["padim", {"name": "patchcore", "coreset": 0.1}], "data": ["parts", "toy"]}, data_roots)
    assert made["data"][0]["name"] == "folder"
    assert made["data"][0]["params"]["root"] == str(tmp_path / "good-parts")
    assert len(plan.expand(made).runs) == 2 * 5


@pytest.mark.parametrize(
    "asked",
    [
        {"detectors": ["padim"], "data": ["/etc"]},
        {"detectors": ["padim"], "data": ["../good-parts"]},
        {"detectors": ["padim"], "data": ["good-parts"]},
        {"detectors": ["padim"], "data": ["mvtec_ad"]},
        {"detectors": ["padim"], "data": [{"name": "mvtec_ad", "root": "/etc"}]},
        {"detectors": ["padim"], "data": [{"name": "toy", "params": {"root": "/etc"}}]},
        {"detectors": ["padim"], "data": [{"name": "parts", "normal_dir": "/etc"}]},
        {"detectors": ["padim"], "data": [{"name": "parts", "params": {"normal_dir": ["..", "x"]}}]},
        {"detectors": ["padim"], "data": [{"name": "parts", "sweep": {"abnormal_dir": ["scratch", "other"]}}]},
        {"detectors": ["padim"], "data": [{"name": "toy", "sweep": {"root": ["x"]}}]},
        {"detectors": ["padim"], "data": ["conftest:opened"]},
        {"detectors": ["conftest:opened"], "data": ["toy"]},
        {"detectors": [{"name": "os:system"}], "data": ["toy"]},
        {"detectors": [{"name": "padim", "weights": "evil"}], "data": ["toy"]},
        {"detectors": [{"name": "padim", "params": {"weights": "/etc/passwd"}}], "data": ["toy"]},
        {"detectors": [{"name": "padim", "sweep": {"weights": ["none", "evil"]}}], "data": ["toy"]},
        {"detectors": [{"name": "padim", "backbone": "local-dir:/etc"}], "data": ["toy"]},
        {"detectors": [{"name": "padim", "backbone": "hf-hub:evil/model"}], "data": ["toy"]},
        {"detectors": [{"name": "cpr", "textures": "runs"}], "data": ["toy"]},
        {"detectors": [{"name": "orthoad", "projection": "evil"}], "data": ["toy"]},
        {"detectors": [{"name": "rkde", "proposal_weights": "evil"}], "data": ["toy"]},
        {"detectors": ["padim"], "data": ["toy"], "settings": ["conftest:opened"]},
        {"detectors": ["padim"], "data": ["toy"], "metrics": ["image_conftest:opened"]},
        {"detectors": ["padim"], "data": ["toy"], "seeds": list(range(101))},
        {"detectors": ["padim"], "data": ["toy"], "store": "/etc"},
        {"detectors": [7], "data": ["toy"]},
        {"detectors": [{"name": "padim", "params": "x"}], "data": ["toy"]},
    ],
)
def test_no_request_names_a_file_a_folder_or_a_class(data_roots, asked, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil").write_text("weights")
    with pytest.raises((BadConfig, UnknownName)):
        grid(asked, data_roots)


def test_harmless_parameters_pass(data_roots):
    asked = {
        "detectors": [{"name": "padim", "backbone": "resnet18.tv_in1k", "weights": "none"}, "dfm"],
        "data": [{"name": "toy", "categories": ["fabric"], "count": 8}],
        "settings": ["vanilla", {"name": "few_shot", "k": 2}],
        "seeds": [0, 1],
        "protocol": "uniform@128",
        "metrics": ["image_auroc", "pixel_aupro@5%"],
    }
    assert len(plan.expand(grid(asked, data_roots)).runs) == 2 * 2 * 2


def test_planning_still_reports_other_errors_of_a_grid(data_roots):
    for asked, word in (
        ({"data": ["toy"]}, "needs detectors"),
        ({"detectors": [{"name": "padim", "dimz": 3}], "data": ["toy"]}, "dimz"),
    ):
        with pytest.raises(IadbeError, match=word):
            plan.expand(grid(asked, data_roots))


def test_options_are_validated():
    given = {"device": "cuda:1", "threads": 2, "time_limit": 60, "keep_model": False, "memory_limit": None}
    assert options(given) == {"device": "cuda:1", "threads": 2, "time_limit": 60, "keep_model": False}
    for wrong in (
        {"features": "/etc"},
        {"device": "cuda:1;x"},
        {"engine": "x"},
        {"threads": "2"},
        {"threads": -1},
        {"time_limit": float("nan")},
        {"command": "x"},
    ):
        with pytest.raises(BadConfig):
            options(wrong)
