import pytest

from iadbe.data import resolve
from iadbe.data.anomalib_configs import converted, is_dataset
from part_images import draw_parts

OLD = {"name": "p", "format": "folder", "path": "x", "normal_dir": "good", "abnormal_dir": "scratch", "mask": None}


def test_a_section_becomes_a_class_and_its_parameters():
    section = {**OLD, "image_size": 256, "task": "segmentation", "split_ratio": 0.3, "normalization": None}
    found, left = converted(section)
    expected = {"name": "p", "root": "x", "normal_dir": "good", "abnormal_dir": "scratch", "normal_split_ratio": 0.3}
    assert found == {"class_path": "folder", "init_args": expected}
    assert left == ["image_size"]


@pytest.mark.parametrize(
    ("section", "is_one"),
    [
        (OLD, True),
        ({"format": "mvtec"}, True),
        ({"name": "mvtec", "path": "x"}, True),
        ({"class_path": "x"}, False),
        ("toy", False),
    ],
)
def test_it_is_known_by_its_format(section, is_one):
    assert is_dataset(section) is is_one


def test_a_file_of_it_gives_the_data(tmp_path):
    draw_parts(tmp_path / "x")
    text = "dataset: {format: folder, name: p, path: ./x, normal_dir: good, abnormal_dir: scratch, image_size: 64}\n"
    (tmp_path / "old.yaml").write_text(text + "model: {name: padim}\n")
    found = resolve.find(str(tmp_path / "old.yaml"))
    assert found.name == "folder"
    assert any("image_size" in note for note in found.notes)
    dataset = resolve.make(found.name, found.params)
    assert {s.defect for s in dataset.samples()} == {"good", "scratch"}


@pytest.mark.parametrize("line", ["format: mvtec, name: mvtec", "name: mvtec", "format: mvtec"])
def test_published_data_need_no_name(tmp_path, line):
    draw_parts(tmp_path / "mvtec" / "bottle" / "train")
    (tmp_path / "old.yaml").write_text(f"dataset: {{{line}, path: ./mvtec, category: bottle, task: segmentation}}\n")
    found = resolve.find(str(tmp_path / "old.yaml"))
    assert found.name == "mvtec_ad"
    assert found.params == {"root": str(tmp_path / "mvtec" / "bottle")}
