import pytest

from iadbe.files import folder_names

TABLES = (folder_names.GOOD, folder_names.BAD)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("good", "bad"), ("OK", "NG"), ("ok", "nok"), ("OK", "KO"), ("pass", "fail"), ("Passed", "Failed"),
        ("negative", "positive"), ("non_defective", "defective"), ("Non-Defective", "Defective"), ("IO", "NIO"),
        ("i.O.", "n.i.O."), ("normal", "abnormal"), ("normal", "anomaly"), ("conforming", "nonconforming"),
        ("conforme", "non_conforme"), ("accepted", "rejected"), ("defect free", "defects"), ("Gut", "Ausschuss"),
        ("正常", "异常"), ("良品", "不良品"), ("合格", "不合格"), ("양품", "불량"), ("годен", "брак"),
        ("bon", "défaut"), ("0_good", "1_bad"), ("01 OK", "02-NG"), ("ok_images", "images-ng"),
        ("IO-Teile", "NIO-Teile"),
        ("good parts", "Bad Parts"), ("OK", "nicht OK"), ("OK品", "NG品"), ("良好", "缺陷品"), ("goed", "slecht"),
        ("godkänd", "underkänd"), ("hyvä", "huono"), ("négatif", "positif"),
        ("buenas", "malas"), ("aprobado", "rechazado"),
        ("buone", "cattive"), ("aprovado", "reprovado"), ("dobra", "zla"), ("jó", "rossz"), ("iyi", "hatalı"),
        ("καλό", "κακό"), ("хорошо", "плохо"), ("tốt", "lỗi"), ("ดี", "เสีย"), ("baik", "cacat"), ("良", "不具合"),
    ],
)  # fmt: skip
def test_pairs_of_names_are_told_apart(good, bad):
    assert folder_names.is_good(good)
    assert not folder_names.is_bad(good)
    assert folder_names.is_bad(bad)
    assert not folder_names.is_good(bad)


def test_0_and_1_count_only_as_a_pair():
    assert folder_names.is_good("0", ("0", "1"))
    assert folder_names.is_bad("1", ("0", "1"))
    assert not folder_names.is_good("0")
    assert not folder_names.is_good("0", ("0", "1", "2"))
    assert not folder_names.is_bad("1", ("1", "2"))


def test_no_name_is_both():
    good, bad = ({n for names in t.values() for n in map(folder_names.simplified, names)} for t in TABLES)
    assert not good & bad


@pytest.mark.parametrize(
    "name", ["scratch", "bottle", "train", "images", "goods", "2", "01", "part_2", "good_scratch", "品", "N", "_"]
)
def test_other_names_say_nothing(name):
    assert not folder_names.is_good(name)
    assert not folder_names.is_bad(name)
