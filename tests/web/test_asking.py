import pytest

from iadbe.errors import BadConfig, IadbeError, UnknownName
from iadbe.running import plan
from iadbe.running.store import Store
from iadbe.web.asking import grid, how
from iadbe.web.places import Places
from part_images import draw_parts


@pytest.fixture
def places(tmp_path):
    draw_parts(tmp_path / "good-parts", 3, 2)
    return Places(Store(tmp_path / "runs"), {"parts": tmp_path / "good-parts"})


def test_a_place_becomes_its_folder(places, tmp_path):
    made = grid({"detectors": ["padim", {"name": "patchcore", "coreset": 0.1}], "data": ["parts", "toy"]}, places)
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
def test_no_request_names_a_file_a_folder_or_a_class(places, asked, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil").write_text("weights")
    with pytest.raises((BadConfig, UnknownName)):
        grid(asked, places)


def test_harmless_words_pass(places):
    asked = {
        "detectors": [{"name": "padim", "backbone": "resnet18.tv_in1k", "weights": "none"}, "dfm"],
        "data": [{"name": "toy", "categories": ["fabric"], "count": 8}],
        "settings": ["vanilla", {"name": "few_shot", "k": 2}],
        "seeds": [0, 1],
        "protocol": "uniform@128",
        "metrics": ["image_auroc", "pixel_aupro@5%"],
    }
    assert len(plan.expand(grid(asked, places)).runs) == 2 * 2 * 2


def test_what_is_wrong_with_a_grid_is_still_told_when_it_is_planned(places):
    for asked, word in (
        ({"data": ["toy"]}, "needs detectors"),
        ({"detectors": [{"name": "padim", "dimz": 3}], "data": ["toy"]}, "dimz"),
    ):
        with pytest.raises(IadbeError, match=word):
            plan.expand(grid(asked, places))


def test_how_to_run():
    given = {"device": "cuda:1", "threads": 2, "time_limit": 60, "keep_model": False, "memory_limit": None}
    assert how(given) == {"device": "cuda:1", "threads": 2, "time_limit": 60, "keep_model": False}
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
            how(wrong)
