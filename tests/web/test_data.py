import pytest

from iadbe.running.store import Store
from iadbe.web.policy import Policy
from part_images import draw_parts
from uploads import zip_folder


@pytest.fixture
def mine(serve, tmp_path):
    draw_parts(tmp_path / "parts", 4, 2)
    return serve(Store(tmp_path / "runs"), Policy(), data_roots={"parts": tmp_path / "parts"})


def send(client, path, name="mine"):
    return client.post("/api/v1/datasets", data={"name": name}, files={"file": ("x.zip", path.read_bytes())})


def test_the_list_marks_usable_data(mine):
    response = {d["name"]: d for d in mine.get("/api/v1/datasets").json()}
    assert [n for n, d in response.items() if d["usable"]] == ["parts", "elpv", "toy"]
    assert response["mvtec_ad"]["about"]["counts"]["bottle"]
    assert response["parts"]["dataset"] == "folder"
    assert response["parts"]["categories"]


def test_an_upload_from_beginning_to_end(mine, tmp_path):
    response = send(mine, zip_folder(tmp_path / "parts", tmp_path / "x.zip"))
    assert response.status_code == 201
    assert response.headers["location"] == "/api/v1/datasets/mine"
    assert str(tmp_path) not in response.text
    assert mine.get("/api/v1/datasets/mine").json()["counts"] == response.json()["counts"]
    plan = {"grid": {"detectors": ["padim"], "data": ["mine"]}}
    assert mine.post("/api/v1/plan", json=plan).json()["runs"] == 1
    looked = mine.get("/api/v1/datasets/mine/check").json()
    assert looked["sizes"] == {"64x64": 6}
    assert str(tmp_path) not in str(looked)
    mine.post("/api/v1/jobs", json=plan)
    assert mine.delete("/api/v1/datasets/mine").status_code == 400  # a job waits for it
    mine.post(f"/api/v1/jobs/{mine.get('/api/v1/jobs').json()['jobs'][0]['id']}/stop")
    assert mine.delete("/api/v1/datasets/mine").status_code == 204
    assert mine.get("/api/v1/datasets/mine").status_code == 404


def test_errors_of_an_upload_hide_server_paths(mine, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no zip")
    response = send(mine, tmp_path / "x.zip")
    assert response.status_code == 422
    assert "mine is not a zip archive" in response.json()["detail"]
    assert "/tmp" not in response.text
    assert send(mine, tmp_path / "x.zip", "../x").status_code == 400


def test_one_data_check_at_a_time(mine):
    with mine.server.check_lock:
        assert mine.get("/api/v1/datasets/parts/check").status_code == 503
    assert mine.get("/api/v1/datasets/parts/check").json()["ok"] in (True, False)


def test_a_data_check_is_cached_until_the_data_changes(mine, tmp_path):
    first = mine.get("/api/v1/datasets/parts/check").json()
    with mine.server.check_lock:  # nobody has to look again
        assert mine.get("/api/v1/datasets/parts/check").json() == first
    draw_parts(tmp_path / "parts", 5, 2)
    assert mine.get("/api/v1/datasets/parts/check").json()["sizes"] == {"64x64": 7}


def test_a_removed_folder_is_not_listed(mine, tmp_path):
    (tmp_path / "parts").rename(tmp_path / "gone")
    response = mine.get("/api/v1/datasets")
    assert response.status_code == 200
    assert "parts" not in [d["name"] for d in response.json()]


def test_data_of_the_operator_cannot_be_removed(mine, tmp_path):
    assert mine.delete("/api/v1/datasets/parts").status_code == 400
    assert mine.delete("/api/v1/datasets/mvtec_ad").status_code == 404
    assert (tmp_path / "parts").is_dir()


def test_a_known_dataset_that_is_not_available(mine):
    response = mine.get("/api/v1/datasets/mvtec_ad").json()
    assert not response["usable"]
    assert "root" in response["form"]["properties"]
    assert mine.get("/api/v1/datasets/mvtec_ad/check").status_code == 404
