import pytest

from browser import listening
from iadbe.running.store import Store
from iadbe.web.drawn_regions import DrawnRegions
from part_images import draw_mvtec


@pytest.fixture
def nuts(tmp_path):
    draw_mvtec(tmp_path / "nuts")
    with listening(Store(tmp_path / "runs"), data_roots={"nuts": tmp_path / "nuts"}) as address:
        yield f"{address}/data/nuts"


@pytest.fixture
def stored(tmp_path):
    """Return the kinds, forms and points that are stored, in order."""

    def found():
        region = DrawnRegions(tmp_path / "runs").of("nuts").get("nut")
        return [(s.kind, s.form, s.points) for s in region.shapes] if region else []

    return found


def place(page, x, y):
    box = page.locator("#canvas svg").bounding_box()
    return box["x"] + x / 64 * box["width"], box["y"] + y / 64 * box["height"]


def drag(page, start, end):
    page.mouse.move(*place(page, *start))
    page.mouse.down()
    page.mouse.move(*place(page, *end), steps=2)
    page.mouse.up()


def save(page):
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved").wait_for()


def test_draw_move_undo_and_save_with_the_mouse(visit, nuts, stored):
    page = visit(nuts)
    page.get_by_role("link", name="Draw what counts in images of nut").click()
    page.get_by_text("every pixel counts").wait_for()
    page.get_by_role("button", name="Region of interest").click()
    drag(page, (4, 4), (60, 60))
    page.get_by_role("button", name="Ignored").first.click()
    page.get_by_role("button", name="Polygon").click()
    for corner in ((20, 20), (30, 20), (30, 30), (20, 20)):
        page.mouse.click(*place(page, *corner))
    save(page)
    page.get_by_text("% of the pixels count.").wait_for()
    triangle = ("ignore", "polygon", ((20, 20), (30, 20), (30, 30)))
    assert stored() == [("roi", "rectangle", ((4, 4), (60, 60))), triangle]
    drag(page, (30, 30), (34, 36))  # a corner
    page.get_by_role("button", name="Move").click()
    drag(page, (28, 24), (30, 25))  # the smaller one of two
    save(page)
    assert stored()[1] == ("ignore", "polygon", ((22, 21), (32, 21), (36, 37)))
    for _ in range(2):
        page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Delete: Region of interest").click()
    save(page)
    assert stored() == [triangle]
    page.goto(nuts)
    page.get_by_role("link", name="Draw what counts in images of nut").filter(has_text="98.4 % of pixels").wait_for()


def test_the_keyboard_alone_is_enough(visit, nuts, stored):
    page = visit(f"{nuts}/regions?category=nut")
    page.locator("#canvas svg").focus()
    for key in ("Enter", "Tab", "ArrowRight", "ArrowDown", "Tab", "Shift+ArrowLeft", "Tab", "Tab", "ArrowRight"):
        page.keyboard.press(key)
    save(page)
    assert stored() == [("ignore", "rectangle", ((16, 17), (50, 49)))]
    page.locator("#canvas svg").focus()
    for key in ("Tab", "Delete"):
        page.keyboard.press(key)
    page.get_by_text("every pixel counts").wait_for()
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Shift+z")
    save(page)
    assert stored() == []


def test_an_image_can_be_enlarged_by_buttons_keys_and_wheel(visit, nuts, stored):
    page = visit(f"{nuts}/regions?category=nut", width=390)

    def scale():
        return page.locator("#canvas svg").bounding_box()["width"] / 64

    fit = scale()
    page.get_by_role("button", name="100 %").click()
    assert scale() == pytest.approx(1)
    assert page.get_by_role("button", name="100 %").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Fit").click()
    assert scale() == pytest.approx(fit, rel=1e-3)
    page.get_by_role("button", name="Larger").click()
    assert scale() == pytest.approx(min(1.25 * fit, 16), rel=1e-3)
    page.locator("#canvas svg").focus()
    for key in ("+", "+", "+"):
        page.keyboard.press(key)
    assert scale() == pytest.approx(min(1.25**4 * fit, 16), rel=1e-3)
    before, large = place(page, 32, 32), scale()
    page.mouse.move(*before)
    page.keyboard.down("Control")
    page.mouse.wheel(0, 100)
    page.keyboard.up("Control")
    for _ in range(100):  # the page hears of the wheel later
        page.wait_for_timeout(20)
        if scale() < large - 0.1:
            break
    assert place(page, 32, 32) == pytest.approx(before, abs=2)
    drag(page, (30, 30), (34, 36))  # what is drawn lies where the pointer is
    save(page)
    assert stored() == [("ignore", "rectangle", ((30, 30), (34, 36)))]
    page.locator("#canvas svg").focus()
    page.keyboard.press("0")
    assert scale() == pytest.approx(fit, rel=1e-3)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_two_people_do_not_overwrite_one_another(visit, nuts, stored):
    first, second = visit(f"{nuts}/regions"), visit(f"{nuts}/regions")
    for page, end in ((first, (20, 20)), (second, (40, 40))):
        drag(page, (4, 4), end)
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Saved" if page is first else "Load the page again").first.wait_for()
    assert stored() == [("ignore", "rectangle", ((4, 4), (20, 20)))]
    second.complaints.clear()  # the browser names the refused request


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_the_page_fits_the_screen(visit, nuts, width, dark):
    page = visit(f"{nuts}/regions", width=width, dark=dark)
    page.get_by_text("1 of 14").wait_for()
    page.get_by_role("button", name="Next").click()
    page.get_by_text("2 of 14").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_an_unknown_category_is_not_found(client):
    assert client.get("/data/toy/regions?category=cog").status_code == 404
    assert client.get("/data/none/regions").status_code == 404
