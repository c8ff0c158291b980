import re

import pytest

from dataset_trees import draw
from iadbe.dashboard.data import _categories
from iadbe.running.store import Store
from iadbe.types import UNLABELLED
from part_images import draw_mvtec, draw_parts


@pytest.fixture
def mine(serve, tmp_path):
    draw_mvtec(tmp_path / "nuts")
    return serve(Store(tmp_path / "runs"), data_roots={"nuts": tmp_path / "nuts"})


def test_the_list_has_usable_and_known_data(mine):
    text = mine.get("/data").text
    ready, known = text.split("Known datasets, not available here")
    assert re.findall(r'href="/data/(\w+)"', ready) == ["nuts", "elpv", "toy"]
    assert "14 images" in ready
    assert 'href="/data/mvtec_ad"' in known
    assert "5354" in known


def test_a_page_counts_and_shows_images(mine):
    text = mine.get("/data/nuts").text
    row = re.search(r">nut</a></th>(.*?)</tr>", text, re.DOTALL)[1]
    assert re.findall(r">(\d+)</td>", row) == ["8", "3", "3"]
    assert "spot 3" in row
    assert len(re.findall(r"<figure", text)) == 14
    bad = mine.get("/data/nuts", params={"defect": "any"}).text
    links = re.findall(r'<img src="(/api/[^"]+)"', bad)
    assert len(links) == 3
    assert all(link.endswith("/truth") and mine.get(link).status_code == 200 for link in links)
    assert "No image matches" in mine.get("/data/nuts", params={"category": "<x>"}).text


def test_unlabelled_images_have_a_column_of_their_own():
    kinds = [{"category": "can", "split": "test", "defect": d, "count": n} for d, n in (("good", 2), (UNLABELLED, 5))]
    (can,) = _categories(kinds).values()
    assert (can["good"], can["bad"], can["unlabelled"], can["defects"]) == (2, 0, 5, {})


def test_images_are_paged(mine, monkeypatch):
    monkeypatch.setattr("iadbe.dashboard.data.PAGE", 5)
    text = mine.get("/data/nuts", params={"split": "train", "offset": 5}).text
    assert "6 to 8 of 8" in text
    assert 'rel="next"' not in text
    assert 'href="/data/nuts?split=train&amp;offset=0#images"' in text


def test_a_known_dataset_says_how_to_get_it(mine):
    text = mine.get("/data/mvtec_ad").text
    assert "iadbe serve --data mvtec_ad=FOLDER" in text
    assert "CC BY-NC-SA" in text
    assert "<figure" not in text
    assert mine.get("/data/none").status_code == 404


def test_upload_check_and_remove(visit, serve, tmp_path):
    from browser import listening
    from uploads import zip_folder

    draw_parts(tmp_path / "parts", 6, 3)
    archive = zip_folder(tmp_path / "parts", tmp_path / "My Parts.zip")
    (tmp_path / "bad.zip").write_bytes(b"nothing")
    with listening(Store(tmp_path / "runs")) as address:
        page = visit(f"{address}/data")
        page.get_by_role("button", name="Upload images").click()
        page.get_by_label("Zip archive").set_input_files(tmp_path / "bad.zip")
        page.get_by_role("button", name="Upload", exact=True).click()
        page.get_by_text("Bad is not a zip archive.").wait_for()
        page.complaints.clear()  # the browser names the refused request
        page.get_by_label("Name").fill("")
        page.get_by_label("Zip archive").set_input_files(archive)
        page.get_by_role("button", name="Upload", exact=True).click()
        page.wait_for_url("**/data/my-parts")
        page.get_by_text("64x64: 9").wait_for()  # from the data check
        page.get_by_label("defect").select_option("any")
        page.get_by_text("3 images", exact=True).wait_for()
        assert page.locator("figure img").count() == 3
        page.wait_for_function("() => [...document.images].every(i => i.complete && i.naturalWidth)")
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Remove this data").click()
        page.wait_for_url("**/data")
        assert page.get_by_role("link", name="my-parts").count() == 0


def test_many_sizes_are_a_range(visit, tmp_path):
    for n in range(9):
        draw(tmp_path / "parts/good" / f"{n}.png", size=(20 + n, 40 - 2 * n))
    from browser import listening

    with listening(Store(tmp_path / "runs"), data_roots={"parts": tmp_path / "parts"}) as address:
        page = visit(f"{address}/data/parts")
        page.get_by_text("9 sizes, 20 to 28 high, 24 to 40 wide").wait_for()
