import numpy as np
import pytest

from dataset_trees import draw, mvtec_like, visa
from iadbe.datasets.visa import VisA
from iadbe.errors import BadData


def test_the_split_is_that_of_the_table(tmp_path):
    dataset = VisA(**visa(tmp_path))
    mine = [(s.split, s.defect, s.image, s.mask) for s in dataset.samples() if s.category == "pcb1"]
    start = "pcb1/Data/Images"
    assert mine == [
        *(("train", "good", f"{start}/Normal/000{i}.JPG", None) for i in range(3)),
        *(("test", "anomaly", f"{start}/Anomaly/00{i}.JPG", f"pcb1/Data/Masks/Anomaly/00{i}.png") for i in range(2)),
        *(("test", "good", f"{start}/Normal/000{i}.JPG", None) for i in (3, 4)),
    ]


def test_numbers_of_kinds_are_defects(tmp_path):
    dataset = VisA(**visa(tmp_path))
    for sample in [s for s in dataset.samples() if s.mask]:  # of the values 1 and 2
        assert np.array_equal(np.argwhere(dataset.mask(sample))[[0, -1]], [[4, 5], [7, 14]])


def test_categories_that_are_not_there_are_left_out(tmp_path):
    given = visa(tmp_path)
    (tmp_path / "candle").rename(tmp_path / "elsewhere")
    assert VisA(**given).categories == ("pcb1",)
    (tmp_path / "pcb1").rename(tmp_path / "nowhere")
    with pytest.raises(BadData, match="none of the categories"):
        VisA(**given).samples()


def test_the_converted_layout_is_read_too(tmp_path):
    mvtec_like(tmp_path, ("candle", "pcb1"), ("bad",))
    assert VisA.recognise(tmp_path) == ("the VisA layout (2 categories)", {}, False, True)
    dataset = VisA(str(tmp_path))
    assert dataset.categories == ("candle", "pcb1")
    assert {(s.split, s.defect) for s in dataset.samples()} == {("train", "good"), ("test", "good"), ("test", "bad")}


def test_a_missing_or_broken_table_is_reported(tmp_path):
    given = visa(tmp_path)
    table = tmp_path / "split_csv/1cls.csv"
    text = table.read_text()
    table.write_text(text.replace("test,normal", "tset,normal", 1))
    with pytest.raises(BadData, match=r"1cls\.csv, line 5: split is train or test"):
        VisA(**given).samples()
    table.write_text("image,mask\na,b\n")
    with pytest.raises(BadData, match="no table with the columns object, split, label"):
        VisA(**given).samples()
    table.unlink()
    with pytest.raises(BadData, match=r"neither split_csv/1cls\.csv nor CATEGORY/train/good"):
        VisA(**given)
    assert VisA.recognise(tmp_path) is None


def test_a_table_without_folders_is_not_recognised(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text("object,split,label,image,mask\n")
    assert VisA.recognise(tmp_path) is None


def test_all_lines_that_cannot_be_used_are_named_and_may_be_left_out(tmp_path):
    visa(tmp_path)
    file = tmp_path / "split_csv/1cls.csv"
    lines = file.read_text().splitlines()
    count = len(VisA(str(tmp_path)).samples())
    for number in (1, 3):
        lines[number] = lines[number].replace("train", "trian").replace("test", "tset")
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(BadData) as error:
        VisA(str(tmp_path)).samples()
    assert str(error.value).startswith(f"2 lines cannot be read: {file}, line 2; line 4: split is train or test")
    assert len(VisA(str(tmp_path), bad_labels="drop").samples()) == count - 2
