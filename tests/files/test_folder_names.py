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
        ("no_defects", "defects"), ("no-defect", "with defect"), ("GoodImages", "BadImages"), ("okparts", "ngparts"),
        ("ok1", "NG2"), ("train_good", "test_bad"), ("OKs", "NGs"), ("acceptable", "unacceptable"),
        ("good", "non_good"),
        ("undamaged", "damaged"), ("OK", "NO_OK"), ("nominal", "anomalous"), ("inlier", "outlier"),
        ("benign", "malignant"),
        ("ohne Fehler", "mit Fehler"), ("fehlerfrei", "fehlerhaft"), ("Gutbilder", "Schlechtbilder"),
        ("Gute", "n.i.O. Teile"),
        ("sin defectos", "con defectos"), ("sans défaut", "avec défauts"), ("senza difetti", "con difetti"),
        ("pièces bonnes", "pièces mauvaises"), ("correctas", "incorrectas"), ("bez wad", "złe"), ("dobré", "špatné"),
        ("hibátlan", "hibás"), ("без дефектов", "бракованные"), ("норма", "аномалия"), ("felfria", "felaktiga"),
        ("正常图片", "异常图片"), ("良品画像", "不良品画像"), ("无瑕疵", "有瑕疵"), ("異常なし", "異常あり"),
        ("無欠陥", "欠陥あり"),
        ("合格件", "不合格件"), ("결함없음", "불량품"), ("양품", "비정상"), ("سليم", "معيب"), ("תקין", "פגום"),
        ("अच्छा", "खराब"),
        ("ปกติ", "ผิดปกติ"),
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


@pytest.mark.parametrize("pair", [("00", "01"), ("class_0", "class_1"), ("label0", "label1"), ("G", "NG"), ("P", "F")])
def test_pairs_of_numbers_and_initials_count_only_as_a_pair(pair):
    good, bad = pair
    assert folder_names.is_good(good, pair)
    assert folder_names.is_bad(bad, pair)
    assert not folder_names.is_good(good)


@pytest.mark.parametrize(
    "pair",
    [
        ("ok_front", "def_front"),
        ("bottle-good", "bottle-bad"),
        ("good_v2", "bad_v2"),
        ("缸体OK", "缸体NG"),
        ("轴承正常", "轴承异常"),
    ],
)
def test_words_that_all_folders_have_say_nothing(pair):
    good, bad = pair
    assert folder_names.is_good(good, pair)
    assert not folder_names.is_good(bad, pair)
    assert folder_names.is_bad(bad, pair)


@pytest.mark.parametrize(
    "pair", [("good_scratch", "good_dent"), ("step", "stone"), ("cats", "dogs"), ("class_1", "class_2")]
)
def test_the_rest_of_other_names_says_nothing(pair):
    assert not any(folder_names.is_good(name, pair) for name in pair)


@pytest.mark.parametrize(
    "name", ["mask", "Ground-Truth", "Defect_Masks", "masks_test", "gt 01", "标注", "マスク", "Masken"]
)
def test_folders_of_masks(name):
    assert folder_names.is_mask_folder(name)


@pytest.mark.parametrize("name", ["label_0", "mask_ok", "with_mask", "images", "scratch", "01"])
def test_folders_of_images_are_no_masks(name):
    assert not folder_names.is_mask_folder(name)


def test_folders_of_splits():
    assert all(map(folder_names.is_split, ("train", "Training", "01_test", "训练集", "テスト", "prueba")))
    assert folder_names.is_split("训练", "train")
    assert not folder_names.is_split("训练", "test")
    assert not folder_names.is_split("train_good")
    assert folder_names.is_for_test("test_good")
    assert not folder_names.is_for_test("contest")


def test_no_name_is_both():
    good, bad = ({n for names in t.values() for n in map(folder_names.simplified, names.split())} for t in TABLES)
    assert not good & bad


@pytest.mark.parametrize(
    "name", ["scratch", "bottle", "train", "images", "goods", "2", "01", "part_2", "good_scratch", "品", "N", "_"]
)
def test_other_names_say_nothing(name):
    assert not folder_names.is_good(name)
    assert not folder_names.is_bad(name)
