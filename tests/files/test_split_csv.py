import pytest

from dataset_trees import draw, draw_mask
from iadbe.errors import BadData
from iadbe.files import split_csv
from iadbe.files.bad_labels import BadLabels
from iadbe.files.split_csv import Line


@pytest.fixture
def root(tmp_path):
    for name in "abcd":
        draw(tmp_path / f"images/{name}.png")
    draw_mask(tmp_path / "masks/c.png")
    return tmp_path


def read(root, text):
    (root / "split.csv").write_text(text, encoding="utf-8-sig")
    return split_csv.read(root, "split.csv")


def test_every_column_is_read_whatever_its_order_and_case(root):
    text = "Kind,group,LABEL,path,note,Split,mask\n,lot1,good,images\\a.png,x,Training,\n\n"
    text += "dent,lot2,NG,./images/c.png,,test,masks/c.png\n"
    assert read(root, text) == (
        Line("images/a.png", "train", False, "", "lot1", ""),
        Line("images/c.png", "test", True, "dent", "lot2", "masks/c.png"),
    )


@pytest.mark.parametrize(
    ("label", "kind", "expected"),
    [
        ("0", "", (False, "")),
        ("1", "", (True, "")),
        ("OK", "", (False, "")),
        ("anomaly", "", (True, "")),
        ("scratch", "", (True, "scratch")),  # the label is the kind
        ("", "good", (False, "")),
        ("", "dent", (True, "dent")),
        ("bad", "dent", (True, "dent")),
        ("", "", (None, "")),
    ],
)
def test_labels_and_kinds_are_words_of_the_field(root, label, kind, expected):
    (line,) = read(root, f"image,set,label,kind\nimages/a.png,val,{label},{kind}\n")
    assert (line.label, line.kind) == expected
    assert line.split == "val"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no column path and no column split"),
        ("path,label\nimages/a.png,good\n", "has no column split. It has: path, label"),
        ("path,split\n", "names no images"),
        ("path,split\nimages/z.png,test\n", "line 2 names images/z.png, which is not in"),
        ("path,split\n../a.png,test\n", r"line 2 names '../a.png': paths are from the data folder and stay in it"),
        ("path,split\n/etc/passwd,test\n", "line 2 names '/etc/passwd'"),
        ("path,split\nC:\\a.png,test\n", "stay in it"),
        ("path,split,mask\nimages/a.png,test,../m.png\n", "stay in it"),
        ("path,split,mask\nimages/a.png,test,m.png\n", "line 2 names the mask m.png, which is not in"),
        ("path,split\nimages/a.png,later\n", "line 2 has the split 'later', not one of train, val, test"),
        ("path,split\nimages/a.png,test\n\nimages/a.png,train\n", "line 4 names images/a.png a second time"),
        (
            "path,split,label,kind\nimages/a.png,test,good,dent\n",
            "2 contradicts itself: label 'good', kind 'dent'",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_reported_with_its_line(root, text, said):
    with pytest.raises(BadData, match=said):
        read(root, text)


def test_a_file_that_is_missing_is_reported(tmp_path):
    with pytest.raises(BadData, match="split.csv cannot be read as a split"):
        split_csv.read(tmp_path, "split.csv")


def test_all_lines_that_cannot_be_used_are_named_and_may_be_left_out(tmp_path):
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    text = "path,split\na.png,train\nb.png,tset\nc.png,test\nb.png,test\na.png,test\n"
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(BadData) as error:
        split_csv.read(tmp_path, "split.csv")
    assert all(f"line {number}" in str(error.value) for number in (3, 4, 6))
    found = split_csv.read(tmp_path, "split.csv", BadLabels("drop", "folder.bad_labels"))
    assert [(line.path, line.split) for line in found] == [("a.png", "train"), ("b.png", "test")]
