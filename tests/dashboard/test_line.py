"""The page of the line."""

import pytest

from browser import chromium, listening, visit  # noqa: F401
from iadbe.dashboard.line import BOTTOM, HEIGHT, LEFT, WIDTH, chart
from watched_models import copied, use


@pytest.fixture
def line(fitted, tmp_path):
    return copied(fitted, tmp_path)


def test_without_watched_models_it_says_how(client):
    text = client.get("/line").text
    assert "No model is watched yet" in text
    assert "iadbe calibrate MODEL" in text


def test_an_alarm_and_a_model_that_holds(line, serve):
    use(line.model)
    text = serve(line.store).get("/line").text
    assert "alarm since" in text
    assert "the light" in text
    assert text.count("h UTC: 40 images") == 6
    use(line.model, dimming=1.0, hours=3, seed=1)
    text = serve(line.store).get("/line").text
    assert "alarm since" not in text
    assert "holds" in text


def test_damaged_hours_are_named(line, serve):
    use(line.model)
    (line.model / "drift.sqlite").write_bytes(b"damaged" * 100)
    text = serve(line.store).get("/line").text
    assert "not readable" in text
    assert "Remove it" in text


def test_the_chart_stays_within_its_frame():
    hours = [
        {"hour": f"2026-05-01T{n:02d}", "images": 5, "rejected": 0.0, "evidence": evidence}
        for n, evidence in enumerate((0.0, 1.0, 1e3, 1e300))
    ]
    found = chart(hours)
    heights = [y for _, y, _ in found.points]
    assert heights == sorted(heights, reverse=True)
    assert all(LEFT <= x <= WIDTH and 0 <= y <= HEIGHT - BOTTOM for x, y, _ in found.points)
    assert found.points[2][1] == found.alarm
    assert (found.first, found.last) == ("2026-05-01 00", "2026-05-01 03")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1366, True)])
def test_it_fits_the_window(line, visit, width, dark):  # noqa: F811
    use(line.model)
    with listening(line.store) as address:
        page = visit(f"{address}/line", width=width, dark=dark)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_role("link", name="padim").click()
        page.wait_for_url("**/runs/*")
        assert page.complaints == []
