import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from fake_results import MACHINE, NAN, result, save, scores
from iadbe.errors import BadConfig
from iadbe.evaluation.confidence import auroc
from iadbe.report import page as report
from iadbe.report.summary import image_cases
from iadbe.results.comparison import compare
from iadbe.results.index import RunQuery
from iadbe.running.store import Store
from iadbe.types import Row

HOSTILE = '<script>alert("x")</script>'
VOID = {"meta", "img", "link", "br", "hr", "input", "rect", "line", "path"}


class Page(HTMLParser):
    """What a browser would make of a page: its tags must balance."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loads, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.loads += [v for k, v in attrs if k in ("src", "srcset", "data", "action", "poster") and v is not None]
        self.loads += [v for k, v in attrs if tag == "link" and k == "href"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag):
        return [attrs for t, attrs in self.tags if t == tag]


def run(detector, shift, category="bottle", **more):
    made = scores(category, shift=shift, good=30, bad=30)
    (cases,) = image_cases(compare([result(detector, category, scores=made)])[0].entries[0]).values()
    values = {"image_auroc": auroc(cases[0]), "pixel_aupro": NAN if detector == "dfkde" else 0.8}
    return result(detector, category, values, scores=made, metrics=tuple(values), versions={}, **more)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "runs")
    for detector, shift, ms in (("patchcore", 3.0, 40.0), ("padim", 1.5, 12.0), ("dfkde", 0.5, 8.0)):
        for category in ("bottle", "cable"):
            store.save(run(detector, shift, category, latency_ms=ms))
    store.save(result("stfpm", "bottle", error="out of memory", metrics=("image_auroc", "pixel_aupro"), versions={}))
    return store


def page(store, tmp_path, which=None, **more):
    path = report.write(store, which, tmp_path / "out" / "report.html", **more)
    text = path.read_text(encoding="utf-8")
    return Page(text), text


class TestContent:
    def test_question_answer_numbers_and_reasons(self, store, tmp_path):
        shown, _ = page(store, tmp_path, skipped=["winclip on mvtec_ad: it needs prompts"])
        text = shown.text
        assert "Which detector finds the defects of mvtec_ad?" in text
        assert "patchcore finds the defects best: image AUROC 1.000, " in text
        assert "protocol uniform" in text
        assert "out of memory" in text
        assert "winclip on mvtec_ad: it needs prompts" in text
        assert "iadbe benchmark grid.yaml" in text
        assert "AMD EPYC" in text
        assert "no significant difference from the best" in text
        assert re.search(r"1\.000 \(0\.9\d\d–1\.000\)", text)  # the interval beside the number

    def test_charts_are_there_and_described(self, store, tmp_path):
        shown, _ = page(store, tmp_path)
        described = [a.get("aria-label", "") for a in shown.all("svg") if a.get("role") == "img"]
        assert any(d.startswith("Accuracy over time") and "padim" in d for d in described)
        assert sum("30 good, 30 defective" in d for d in described) == 6
        assert len(shown.all("path")) > 6

    def test_tables_can_be_read_aloud(self, store, tmp_path):
        shown, _ = page(store, tmp_path)
        assert len(shown.all("table")) == len(shown.all("caption"))
        assert all(a.get("scope") in ("col", "row") for a in shown.all("th"))
        assert all(a.get("alt") for a in shown.all("img"))
        assert shown.all("html")[0]["lang"] == "en"

    def test_images_of_all_detectors(self, store, tmp_path):
        save(store, "padim", dataset="other")
        save(store, "stfpm", dataset="other")
        shown, text = page(store, tmp_path, RunQuery(dataset=("other",)))
        assert len(shown.all("img")) == 6 * 3 + 4  # input and two heats each, four with a mask
        assert "caught" in text
        assert len(text) < 400_000

    def test_each_protocol_has_its_own_part(self, store, tmp_path):
        store.save(run("padim", 1.0, protocol="paper"))
        shown, _ = page(store, tmp_path)
        parts = [a["id"] for a in shown.all("section") if re.fullmatch(r"part\d", a.get("id", ""))]
        assert parts == ["part1", "part2"]

    def test_only_what_is_meant(self, store, tmp_path):
        shown, _ = page(store, tmp_path, RunQuery(detector=("padim",)))
        assert "patchcore" not in shown.text

    def test_one_category_of_a_run_of_many(self, store, tmp_path):
        rows = tuple(Row(0, c, "image_auroc", 0.8) for c in ("bottle", "cable"))
        made = (*scores("bottle"), *scores("cable"))
        task = {"task": "bottle+cable", "setting": "multi_class", "dataset": "both"}
        store.save(result("padim", rows=rows, scores=made, **task))
        shown, _ = page(store, tmp_path, RunQuery(dataset=("both",), category=("cable",)))
        assert "50 test images" in shown.text
        assert "1 category" in shown.text

    def test_published_numbers_only_where_there_are_any(self, store, tmp_path):
        shown, _ = page(store, tmp_path)
        assert "Published numbers" in shown.text  # PatchCore's paper has bottle and cable
        shown, _ = page(store, tmp_path, RunQuery(detector=("dfkde",)))
        assert "Roth" not in shown.text

    def test_other_machines_draw_no_times(self, store, tmp_path):
        store.save(run("cflow", 2.0, environment={**MACHINE, "device": "H200"}))
        shown, _ = page(store, tmp_path)
        assert not any("Accuracy over time" in a.get("aria-label", "") for a in shown.all("svg"))
        assert "compare no times" in shown.text


class TestRanks:
    @pytest.fixture
    def many(self, tmp_path):
        store = Store(tmp_path / "many")
        for detector, shift in (("patchcore", 1.6), ("padim", 1.5), ("dfkde", 0.2)):
            for c in range(9):
                store.save(run(detector, shift, f"c{c}", dataset="nine"))
        return store

    def test_with_enough_categories_there_is_a_diagram_of_ranks(self, many, tmp_path):
        shown, text = page(many, tmp_path)
        described = [a["aria-label"] for a in shown.all("svg") if a.get("aria-label", "").startswith("Mean ranks")]
        assert len(described) == 1
        assert all(name in described[0] for name in ("patchcore", "padim", "dfkde 3.00"))
        assert "detectors that share a letter do not differ significantly" in shown.text
        assert "http://" not in text

    def test_with_few_there_is_none(self, store, tmp_path):
        shown, _ = page(store, tmp_path)
        assert "Ranks over categories" not in shown.text

    def test_as_a_file_of_its_own(self, many, tmp_path):
        (comparison,) = compare(list(many))
        text = report.rank_image(comparison, "image_auroc")
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        words = " ".join(t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}text"))
        assert "dfkde (3.00)" in words
        with pytest.raises(BadConfig, match="three categories"):
            report.rank_image(compare([result()])[0], "image_auroc")


class TestSelfContained:
    def test_it_loads_nothing_from_anywhere(self, store, tmp_path):
        save(store, "padim", dataset="other")
        shown, text = page(store, tmp_path)
        assert shown.loads
        assert all(load.startswith("data:image/jpeg;base64,") for load in shown.loads)
        assert "http://" not in text
        assert "https://" not in text
        assert "@import" not in text
        assert "url(" not in text
        assert all(a["href"].startswith("#") for a in shown.all("a"))
        policy = next(a["content"] for a in shown.all("meta") if a.get("http-equiv"))
        assert policy.startswith("default-src 'none'; img-src data:;")

    def test_hostile_names_stay_text(self, tmp_path):
        store = Store(tmp_path / "runs")
        more = {"notes": (HOSTILE,), "environment": {**MACHINE, "command": HOSTILE, "processor": HOSTILE}}
        store.save(run("padim", 1.0, HOSTILE, **more))
        store.save(run(HOSTILE, 0.5, HOSTILE, dataset=HOSTILE, setting=HOSTILE))
        store.save(result("stfpm", HOSTILE, error=HOSTILE, versions={}))
        shown, text = page(store, tmp_path, skipped=[HOSTILE], title=HOSTILE)
        assert len(shown.all("script")) == 1  # our own
        assert HOSTILE not in text
        assert shown.text.count(HOSTILE) > 8

    def test_the_same_runs_give_the_same_file(self, store, tmp_path):
        _, first = page(store, tmp_path)
        _, second = page(store, tmp_path)
        assert first == second

    def test_results_may_be_given(self, store, tmp_path):
        shown, _ = page(store, tmp_path, [r for r in store if r.spec.detector == "padim"])
        assert "padim reaches an image AUROC" in shown.text


class TestTrouble:
    def test_no_runs(self, tmp_path):
        with pytest.raises(BadConfig, match="no runs"):
            report.write(Store(tmp_path), None, tmp_path / "x.html")

    def test_a_run_whose_scores_are_damaged_is_named_and_left_out(self, store, tmp_path):
        damaged = next(f for f in store.folders() if f.name.startswith("padim-mvtec_ad-cable"))
        (damaged / "scores.csv").write_text("step,test,sample,category,defect,score\n0,cable,x,cable,good,much\n")
        shown, _ = page(store, tmp_path)
        assert f"{damaged.name}/result.json is damaged" in shown.text
        assert "Mean over 1 of 2 categories, so not ranked; missing: cable." in shown.text
        (damaged / "result.json").write_text("{")
        shown, _ = page(store, tmp_path)
        assert f"{damaged.name}/result.json is damaged" in shown.text

    @pytest.mark.parametrize(
        "runs",
        [
            [result(error="boom")],
            [result(values={"image_auroc": NAN}, scores=scores(good=0))],
            [result(values={"image_auroc": NAN}, scores=scores(bad=0))],
            [result(latency_ms=NAN, seconds={}, memory={})],
            [result(metrics=("pixel_auroc",), values={"pixel_auroc": 0.5}, versions={})],
            [result(environment={})],
        ],
        ids=["failed", "no good", "no defects", "no costs", "no image metric", "no environment"],
    )
    def test_whatever_is_missing_it_is_written(self, tmp_path, runs):
        store = Store(tmp_path / "runs")
        for one in runs:
            store.save(one)
        assert page(store, tmp_path)[0].text


def test_metrics_without_a_value_have_no_table(tmp_path):
    store = Store(tmp_path / "runs")
    store.save(result("padim", metrics=("image_auroc", "pixel_auroc"), versions={}))
    shown, _ = page(store, tmp_path)
    assert "image AUROC by category" in shown.text
    assert "pixel AUROC by category" not in shown.text


class TestInABrowser:
    @pytest.mark.parametrize("width", [320, 400, 800, 1280])
    def test_the_page_does_not_scroll_sideways(self, store, tmp_path, visit, width):
        long = {"backbone": "tf_efficientnet_lite0.in1k", "weights": "some_file_of_a_long_name.pth"}
        for number in (1, 2):
            store.save(run("padim", 3.1, detector_params={**long, "dims": number}, data_name="a" * 60))
        path = report.write(store, None, tmp_path / "report.html")
        shown = visit(path.as_uri(), width=width)
        wide, window = shown.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide == window
        assert shown.complaints == []
        names = [name.bounding_box()["width"] for name in shown.locator(".entry:visible").all()]
        assert 100 < max(names) <= min(320, 0.38 * width + 1)  # numbers stay beside a sticky name


class TestLead:
    def lead(self, store, tmp_path):
        shown, _ = page(store, tmp_path)
        return re.search(r"Lead \S+ (over \w+: [^0-9]*?categories|over \w+: [^0-9]*?images)", shown.text)[1]

    def test_a_significant_lead(self, store, tmp_path):
        assert self.lead(store, tmp_path) == "over padim: significant on these images"

    def test_a_lead_that_is_significant_on_images_but_not_over_categories_says_both(self, tmp_path):
        store = Store(tmp_path / "few")
        for category in ("bottle", "cable", "pill"):
            for detector, shift in (("patchcore", 3.0), ("padim", 1.0)):
                store.save(run(detector, shift, category))
        shown, _ = page(store, tmp_path)
        assert "over padim: significant on these images, but not over categories" in shown.text
        assert "no difference can be significant" in shown.text

    def test_unfinished_training_is_left_out_of_the_charts(self, store, tmp_path):
        for category in ("bottle", "cable"):
            store.save(run("fastflow", 5.0, category, steps={"done": 1, "planned": 4800}))
        shown, text = page(store, tmp_path)
        assert "Unfinished, so not ranked: fastflow (1 of 4 800 training steps)." in shown.text
        assert "Left out because training is unfinished: fastflow." in shown.text
        assert "1 of 4 800, unfinished" in shown.text
        assert "fastflow: 0." not in text.partition("Confidence intervals")[2].partition("Accuracy and time")[0]

    def test_ones_own_data_is_called_by_its_folder(self, tmp_path):
        store = Store(tmp_path / "own")
        own = {"dataset": "folder", "dataset_params": {"abnormal_dir": ["dirt", "scratch"]}, "data_name": "screws"}
        store.save(run("padim", 2.0, "screws", **own))
        store.save(result("dfm", "screws", error="out of memory", **own))
        shown, text = page(store, tmp_path)
        assert "Which detector finds the defects of screws?" in shown.text
        assert "dfm on screws screws" in shown.text
        assert "dirt+scratch" not in text
