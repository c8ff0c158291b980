import json

from dataset_trees import draw
from iadbe.files import annotation_files
from iadbe.types import Sample

LABELME = {"version": "5.4.1", "shapes": [], "imagePath": "0.png"}
COCO = {"images": [], "annotations": [], "categories": []}


def samples(root, count=1):
    for number in range(count):
        draw(root / f"bad/{number}.png")
    return [Sample(f"c/{n}", "c", "test", "bad", f"bad/{n}.png") for n in range(count)]


def test_each_kind_is_told_from_other_files(tmp_path):
    some = samples(tmp_path)
    (tmp_path / "bad/0.json").write_text(json.dumps(LABELME), encoding="utf-8-sig")
    (tmp_path / "instances.json").write_text(json.dumps(COCO))
    (tmp_path / "bad/0.xml").write_text("<annotation><object></object></annotation>")
    for name, content in {"a.json": "[1]", "b.json": "{", "c.json": '{"images": 1}', "d.xml": "<svg/>"}.items():
        (tmp_path / "bad" / name).write_text(content)
    found = annotation_files.find(tmp_path, some)
    assert [(f.kind, f.count, f.example) for f in found] == [
        ("COCO", 1, "instances.json"),
        ("LabelMe", 1, "bad/0.json"),
        ("Pascal VOC", 1, "bad/0.xml"),
    ]
    assert found[2].sentence.endswith("turn them into masks, NAME_mask.png, and name their folder with mask_dir.")
    assert [f.kind for f in annotation_files.find(tmp_path, some, {"instances.json"})] == ["LabelMe", "Pascal VOC"]
    assert found[0].sentence.startswith("1 COCO file holds annotations that are not read (for example instances.json)")


def test_many_files_are_counted_though_few_are_read(tmp_path, monkeypatch):
    some = samples(tmp_path, 6)
    for number in range(6):
        (tmp_path / f"bad/{number}.json").write_text(json.dumps(LABELME))
    monkeypatch.setattr(annotation_files, "READ", 2)
    (found,) = annotation_files.find(tmp_path, some)
    assert found.count == 6


def test_without_any_there_are_none(tmp_path):
    assert annotation_files.find(tmp_path, samples(tmp_path)) == ()
