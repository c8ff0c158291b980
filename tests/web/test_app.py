import re
import subprocess
import sys

from iadbe.web.app import TAGS
from iadbe.web.problems import MEDIA


def test_openapi_contains_every_resource(client):
    schema = client.get("/api/v1/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    nouns = {path.removeprefix("/api/v1/").split("/")[0] for path in schema["paths"] if path.startswith("/api/v1/")}
    wanted = {"leaderboard", "runs", "images", "datasets", "detectors", "models", "predict", "jobs", "events"}
    assert wanted <= nouns
    used = {tag for ops in schema["paths"].values() for op in ops.values() for tag in op["tags"]}
    assert used == set(TAGS)
    ids = [op["operationId"] for ops in schema["paths"].values() for op in ops.values()]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"\w+", name) for name in ids)
    for operations in schema["paths"].values():
        for operation in operations.values():
            assert operation["description"]
            assert any(status.startswith("2") for status in operation["responses"])


def test_every_path_without_parameters_answers_as_described(client):
    schema = client.get("/api/v1/openapi.json").json()
    for path, operations in schema["paths"].items():
        if "get" not in operations or "{" in path or path.endswith("/events"):
            continue
        needed = [p for p in operations["get"].get("parameters", ()) if p["required"]]
        answer = client.get(path)
        assert answer.status_code == (422 if needed else 200), path
        assert answer.headers["content-type"] == (MEDIA if needed else "application/json"), path


def test_the_server_starts_without_torch():
    code = "import iadbe.web.app, sys; assert not {'torch', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_page_works_on_an_empty_store(serve, tmp_path):
    from iadbe.running.store import Store

    client = serve(Store(tmp_path / "new"))
    assert "There are no results yet" in client.get("/").text
    for path in ("leaderboard", "runs", "models", "jobs", "datasets", "detectors", "metrics"):
        assert client.get(f"/api/v1/{path}").status_code == 200
    for path in ("pie-data", "bar-data", "line-data", "radar-data", "advance-pie-dataset", "mvtec-benchmark"):
        assert client.get(f"/api/{path}").status_code == 200
