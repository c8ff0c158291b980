import pytest

from iadbe.results.style import Style, label, lower_is_better, number


class TestNumbers:
    @pytest.mark.parametrize(
        ("style", "value", "text"),
        [
            (Style(), 0.98765, "0.988"),
            (Style(digits=4), 0.98765, "0.9877"),
            (Style(percent=True), 0.98765, "98.8"),
            (Style(percent=True, digits=2), 1.0, "100.00"),
            (Style(), -0.0001, "0.000"),
            (Style(), -0.05, "−0.050"),
        ],
    )
    def test_shares(self, style, value, text):
        assert style.share(value) == text

    def test_differences_have_a_sign_but_nothing_has_none(self):
        assert Style().share(0.0123, signed=True) == "+0.012"
        assert Style().share(-0.0123, signed=True) == "−0.012"
        assert Style().share(0.0001, signed=True) == "0.000"

    @pytest.mark.parametrize(("value", "text"), [(1.234, "1.23"), (9.996, "10.0"), (99.96, "100"), (1234.5, "1234")])
    def test_costs(self, value, text):
        assert Style().cost(value) == text

    def test_labels(self):
        assert label("pixel_aupro@5%") == "pixel AUPRO@5%"
        assert label("image_auroc") == "image AUROC"
        assert number("−0.5 ± 0.1") == -0.5


def test_labels_of_dialects_and_thresholds():
    assert label("pixel_aupro.rd4ad.touched@5%") == "pixel AUPRO@5% (rd4ad, touched)"
    assert label("image_overkill") == "image FPR (overkill) at escape 0%"
    assert label("image_escape@1%") == "image FNR (escape) at overkill 1%"
    assert label("image_escape.held_out@1%") == "image escape (threshold from held-out, 1%)"
    assert label("pixel_iou_max") == "pixel IoU-max"
    assert lower_is_better("image_escape.held_out@1%")
    assert not lower_is_better("mad")
