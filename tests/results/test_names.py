from dataclasses import replace

from fake_results import result
from iadbe.registry import card
from iadbe.results.comparison import compare
from iadbe.results.names import changed_params, data_name, foreign_note, format_value, setting_name


def the_only(results):
    (comparison,) = compare(results)
    return comparison


def test_words():
    assert format_value(True) == "yes"
    assert format_value([1, 2]) == "1+2"
    assert format_value("file:net.pt#0123") == "net.pt"
    assert setting_name(replace(result().spec, setting_params={"k": 4, "x": None})) == "vanilla(k=4)"


def test_detectors_of_other_tools_are_foreign():
    assert foreign_note("anomalib") == "anomalib is foreign: code and training are those of anomalib, not of IADBE."
    assert "ultralytics" in foreign_note("yolo")
    assert foreign_note("padim") == foreign_note("nobody.knows:Me") == ""


def test_own_params_are_those_that_are_not_the_defaults():
    (entry,) = the_only([result(detector_params={"coreset": 0.5, "layers": [2, 3], "gone": 1})]).entries
    assert changed_params(entry) == {"coreset": 0.5, "gone": 1}
    (entry,) = the_only([result("nobody.knows:Me", detector_params={"x": 1})]).entries
    assert changed_params(entry) == {"x": 1}


def test_settings_are_named_by_their_number_and_what_is_not_the_default():
    complete = {"k": 4, "augment": [], "copies": 4, "others": False}
    names = [
        setting_name(result(setting=setting, setting_params=params).spec)
        for setting, params in [
            ("vanilla", {}),
            ("few_shot", complete),
            ("few_shot", {**complete, "k": 8, "augment": ["rotation"], "others": True}),
            ("zero_shot", {"transductive": False}),
            ("zero_shot", {"transductive": True}),
            ("continual", {"order": [], "shuffle": False}),
        ]
    ]
    assert names == [
        "vanilla", "few_shot(k=4)", "few_shot(augment=rotation, k=8, others=yes)",
        "zero_shot", "zero_shot(transductive=yes)", "continual",
    ]  # fmt: skip


def test_datasets_are_named_by_what_is_not_the_default():
    few, many = (result(dataset="toy", dataset_params={"count": c, "size": 256}) for c in (40, 80))
    defaults = {p.name: p.default for p in card("datasets", "toy").parameters}
    assert defaults["count"] == 40
    assert [c.dataset for c in compare([few, many])] == ["toy", "toy(count=80)"]


def test_ones_own_folder_has_its_name_and_a_published_dataset_its_reader(tmp_path):
    assert data_name("mvtec_ad", {"root": str(tmp_path / "screws")}, {"m4"}) == "screws"
    assert data_name("folder", {"root": str(tmp_path / "lots")}, {"lots"}) == "lots"
    assert data_name("mvtec_ad", {"root": str(tmp_path / "copy")}, {"bottle"}) == "mvtec_ad"
    assert data_name("toy", {}, {"board"}) == "toy"
