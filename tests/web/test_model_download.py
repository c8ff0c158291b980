"""A model's folder as a ZIP file."""

import io
import zipfile

from iadbe import api
from iadbe.web import model_download


def test_the_folder_arrives_whole_and_can_be_used(serve, fitted, tmp_path):
    client = serve(fitted.store)
    response = client.get(f"/api/v1/models/{fitted.run}/download")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/zip"
    folder = response.headers["content-disposition"].partition("filename=")[2].strip('"').removesuffix(".zip")
    assert folder.endswith(fitted.run)
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    source = fitted.store.root / folder / "model"
    for file in source.iterdir():
        assert (tmp_path / folder / file.name).read_bytes() == file.read_bytes()
    assert api.load(tmp_path / folder).name == "padim"


def test_a_run_without_a_model_has_nothing_to_download(client, ids):
    response = client.get(f"/api/v1/models/{ids.of('padim', 'cable')}/download")
    assert response.status_code == 404
    assert "no stored model" in response.json()["detail"]


def test_links_do_not_lead_out_of_the_folder(tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_bytes(b"x" * (model_download.CHUNK + 7))
    (folder / "b").symlink_to(tmp_path / "secret")
    (folder / "c").mkdir()
    (folder / "c" / "page").write_text("page")
    (folder / "d").symlink_to(tmp_path)
    chunks = list(model_download.zipped(folder, "m"))
    assert max(map(len, chunks)) <= model_download.CHUNK + 1000
    with zipfile.ZipFile(io.BytesIO(b"".join(chunks))) as archive:
        assert archive.namelist() == ["m/a", "m/c/page"]
        assert len(archive.read("m/a")) == model_download.CHUNK + 7
