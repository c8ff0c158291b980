import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_trees import draw, draw_mask, folder, mvtec_3d, mvtec_ad, real
from iadbe.data import check, resolve
from iadbe.dataset import Dataset
from iadbe.types import Sample


def check_folder(root, **params):
    return check.check(resolve.make("mvtec_ad", {"root": str(root), **params}))


def messages(report, grade):
    return [p.sentence for p in report.problems if p.grade == grade]


@pytest.fixture
def root(tmp_path):
    mvtec_ad(tmp_path, ("bolt",), train=12)
    return tmp_path


def test_a_sound_dataset_has_no_problems_and_its_counts(root):
    report = check_folder(root)
    assert report.ok
    assert report.problems == ()
    assert report.counts == {"bolt": {"train": {"good": 12}, "test": {"bent": 2, "good": 3, "scratch": 2}}}
    assert report.sizes == {"20x28": 19}
    assert report.masks == {"present": 4, "missing": 0, "empty": 0, "other_size": 0}
    assert report.defect_share == {"bolt": pytest.approx(40 / 560)}
    assert report.unused == {}
    assert json.loads(json.dumps(report.as_dict()))["ok"] is True
    lines = report.lines()
    assert "bolt: 12 train (12 good); 7 test (2 bent, 3 good, 2 scratch)" in lines
    assert lines[-1] == "0 errors, 0 warnings"


def test_every_file_that_cannot_be_read_is_named(root):
    (root / "bolt/train/good/003.png").write_bytes(b"")
    cut = root / "bolt/test/good/001.png"
    cut.write_bytes(cut.read_bytes()[:300])
    (root / "bolt/ground_truth/bent/000_mask.png").write_text("no image")
    report = check_folder(root)
    assert not report.ok
    errors = messages(report, "error")
    assert len(errors) == 3
    for name, error in zip(
        ("train/good/003.png", "test/good/001.png", "000_mask.png"), sorted(errors)[::-1], strict=False
    ):
        assert any(name in e for e in errors), error
    assert sum(report.sizes.values()) == 17


def test_the_same_image_on_both_sides_is_an_error_even_in_another_format(root):
    Image.open(root / "bolt/train/good/000.png").save(root / "bolt/test/good/copy.bmp")
    shutil.copy(root / "bolt/test/good/001.png", root / "bolt/test/bent/twin.png")
    shutil.copy(root / "bolt/train/good/005.png", root / "bolt/train/good/again.png")
    report = check_folder(root)
    errors = messages(report, "error")
    assert len(errors) == 2
    assert (
        "bolt/train/good/000.png (train) and bolt/test/good/copy.bmp (test) are the same image" in errors[0] + errors[1]
    )
    assert any("one of the two labels is wrong" in e for e in errors)
    assert any("1 image occurs more than once" in w for w in messages(report, "warning"))
    assert len(report.duplicates) == 3


def test_of_many_equal_images_some_are_named_and_the_others_counted(root):
    for n in range(9):
        shutil.copy(root / f"bolt/train/good/{n:03}.png", root / f"bolt/test/good/copy{n}.png")
    errors = messages(check_folder(root), "error")
    assert len(errors) == 5
    assert errors[-1] == "5 more images are the same in the same way."


def test_files_of_formats_that_are_not_read_are_named(root):
    (root / "bolt/train/good/a.heic").write_bytes(b"x")
    (root / "bolt/train/good/b.TGA").write_bytes(b"x")
    (root / "bolt/train/good/Thumbs.db").write_bytes(b"x")
    (warning,) = messages(check_folder(root), "warning")
    assert warning == "2 files (.heic, .tga) are not read: save images as PNG, TIFF or JPEG."


def test_a_validation_split_has_words_of_its_own(tmp_path):
    places = {"train": "train/good/rgb/000.png", "val": "validation/good/rgb/001.png", "test": "test/good/rgb/002.png"}
    wrong = {
        ("train", "val"): "chosen on a training image",
        ("val", "test"): "tested on an image that it was chosen on",
    }
    for n, ((one, other), sentence) in enumerate(wrong.items()):
        given = mvtec_3d(tmp_path / str(n))
        shutil.copy(tmp_path / str(n) / "bagel" / places[one], tmp_path / str(n) / "bagel" / places[other])
        report = check.check(resolve.make("mvtec_3d", given))
        (error,) = [e for e in messages(report, "error") if "are the same image" in e]
        assert report.lines()[-1].startswith("1 error, ")
        assert f"({one})" in error
        assert f"({other})" in error
        assert sentence in error
        assert "bagel: 3 train (3 good); 3 val (3 good); 6 test (3 good, 3 hole)" in report.lines()
        (counted,) = [w for w in messages(report, "warning") if w.startswith("bagel has 3 to train")]
        assert (
            "3 to train, 6 good to validate and test and 3 defective, but published are 244 to train, 44 good"
            in counted
        )


def test_masks_are_checked(root):
    (root / "bolt/ground_truth/bent/000_mask.png").unlink()
    draw_mask(root / "bolt/ground_truth/bent/001_mask.png", value=0)
    draw_mask(root / "bolt/ground_truth/scratch/000_mask.png", size=(40, 56))  # the same proportions: fine
    draw_mask(root / "bolt/ground_truth/scratch/001_mask.png", size=(28, 20))
    report = check_folder(root)
    assert report.ok
    assert report.masks == {"present": 3, "missing": 1, "empty": 1, "other_size": 2}
    warnings = messages(report, "warning")
    assert len(warnings) == 3
    assert warnings[0].startswith("1 of 4 defects of bolt (for example bolt/test/bent/000.png) has no mask")
    assert "empty mask" in warnings[1]
    assert "1 mask of bolt (for example bolt/test/scratch/001.png) has other proportions" in warnings[2]


def test_what_was_converted_is_counted_and_dark_deep_images_are_told(root):
    for i, scale in enumerate((1, 1 / 16)):
        deep = (np.random.default_rng(i).random((20, 28)) * 65535 * scale).astype(np.uint16)
        Image.fromarray(deep).save(root / f"bolt/train/good/{i:03d}.png")
    draw(root / "bolt/train/good/002.png", mode="L")
    draw(root / "bolt/train/good/003.png", mode="P")
    Image.new("RGB", (28, 20), (9, 9, 9)).save(root / "bolt/train/good/004.png")
    report = check_folder(root)
    assert report.converted == {"16-bit grey": 2, "grey": 1, "palette": 1}
    assert report.intensity == "0 is black and 65535 is white, learnt from 2 normal images"
    warnings = messages(report, "warning")
    assert len(warnings) == 2
    assert warnings[0].startswith("1 deep image (for example bolt/train/good/001.png) is nearly black")
    assert "one colour" in warnings[1]


@pytest.mark.parametrize("shape", [(20, 28), (20, 28, 3)])
def test_12_bits_in_16_are_scaled_by_what_the_normal_images_hold_and_not_black(tmp_path, shape):
    tifffile = pytest.importorskip("tifffile")
    rng = np.random.default_rng(0)
    (tmp_path / "good").mkdir()
    for i in range(12):
        tifffile.imwrite(tmp_path / f"good/{i}.tif", rng.integers(0, 4096, shape).astype(np.uint16))
    found = resolve.find(str(tmp_path))
    report = check.check(resolve.make(found.name, found.params))
    kind = "16-bit RGB" if len(shape) == 3 else "16-bit grey"
    assert report.converted == {kind: 12}
    assert any(line.startswith("deep images: 0 is black and 4095 is white") for line in report.lines())
    assert not [w for w in messages(report, "warning") if "black" in w]


def test_masks_of_labels_are_whole_and_it_is_told_how_they_were_read(root):
    mask = np.zeros((20, 28), np.uint8)
    mask[2:6, 2:8] = 100
    mask[10:14, 10:18] = 255
    Image.fromarray(mask).save(root / "bolt/ground_truth/bent/000_mask.png")
    report = check_folder(root)
    assert report.mask_reading == {"two values": 3, "labels 100, 255": 1}
    assert "masks read as: 3 two values, 1 labels 100, 255" in report.lines()
    assert report.defect_share["bolt"] == pytest.approx((3 * 40 + 24 + 32) / 4 / 560)


def test_masks_that_vanish_in_the_view_and_images_that_shrink_or_are_long_are_told(root):
    pixels = np.random.default_rng(0).integers(0, 256, (2600, 700, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "bolt/test/bent/000.png")
    mask = np.zeros((2600, 700), np.uint8)
    mask[1001:1003, 300:302] = 255
    Image.fromarray(mask).save(root / "bolt/ground_truth/bent/000_mask.png")
    warnings = messages(check_folder(root), "warning")
    assert len(warnings) == 3
    assert "has a mask that vanishes in the view of 256x256: left out of pixel metrics" in warnings[0]
    assert "up to 2600 pixels long, which the view of 256 shrinks 10 times" in warnings[1]
    assert "up to 3.7 times as long as wide" in warnings[2]


class TestNearCopies:
    def textured(self, root, number):
        rng = np.random.default_rng(number)
        return rng.normal(128, 30, (64, 64, 3)).clip(0, 255).astype(np.uint8).repeat(2, 0).repeat(2, 1)

    def write(self, root):
        for i in range(16):
            (root / "bolt/train/good").mkdir(parents=True, exist_ok=True)
            (root / "bolt/test/good").mkdir(parents=True, exist_ok=True)
            Image.fromarray(self.textured(root, i)).save(root / f"bolt/train/good/{i:03d}.png")
            if i < 6:
                Image.fromarray(self.textured(root, 100 + i)).save(root / f"bolt/test/good/{i:03d}.png")
        (root / "bolt/test/bent").mkdir()
        Image.fromarray(self.textured(root, 200)).save(root / "bolt/test/bent/000.png")
        return root

    def test_other_parts_are_none(self, tmp_path):
        report = check_folder(self.write(tmp_path))
        assert report.near_copies == ()

    def test_a_recompressed_and_flipped_training_image_in_the_test_is_found(self, tmp_path):
        self.write(tmp_path)
        flipped = Image.fromarray(self.textured(tmp_path, 3)[:, ::-1])
        flipped.save(tmp_path / "bolt/test/good/copy.jpg", quality=70)
        report = check_folder(tmp_path)
        assert report.near_copies == (("bolt/train/good/003.png", "bolt/test/good/copy.jpg"),)
        (warning,) = [w for w in messages(report, "warning") if "nearly the same" in w]
        assert "1 test image is nearly the same as a train image" in warning
        assert "image metrics and the false positive rate look better than they are" in warning
        assert report.ok

    def test_copies_within_the_test_make_intervals_too_narrow_unless_they_share_a_group(self, tmp_path):
        for number in range(16):
            draw_part = self.textured(tmp_path, number)
            (tmp_path / "good").mkdir(exist_ok=True)
            (tmp_path / "later").mkdir(exist_ok=True)
            Image.fromarray(draw_part).save(tmp_path / f"good/{number}.png")
        for copy in "ab":
            brighter = (self.textured(tmp_path, 50) * (0.9 if copy == "b" else 1.0)).astype(np.uint8)
            Image.fromarray(brighter).save(tmp_path / f"later/lot50_{copy}.png")
        given = {"root": str(tmp_path), "normal_test_dir": "later"}
        (pair,) = {tuple(sorted(p)) for p in check.check(resolve.make("folder", given)).near_copies}
        assert [name.rpartition("/")[2] for name in pair] == ["lot50_a.png", "lot50_b.png"]
        grouped = resolve.make("folder", {**given, "group": r"lot(\d+)|good()"})
        assert check.check(grouped).near_copies == ()


def test_labels_of_other_tools_beside_the_images_are_noticed(root):
    for name in ("000", "001"):
        shapes = {"version": "5.4.1", "shapes": [], "imagePath": f"{name}.png"}
        (root / f"bolt/test/bent/{name}.json").write_text(json.dumps(shapes))
    (root / "bolt/annotations.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    warnings = messages(check_folder(root), "warning")
    assert len(warnings) == 2
    assert "1 COCO file holds annotations that are not read (for example bolt/annotations.json)" in warnings[0]
    assert "2 LabelMe files hold annotations that are not read (for example bolt/test/bent/000.json)" in warnings[1]


class TestRegions:
    def report(self, tmp_path, value=255, size=(20, 28), rows=6):
        given = folder(tmp_path)
        region = np.zeros(size, np.uint8)
        region[:rows] = value
        Image.fromarray(region).save(tmp_path / "roi.png")
        return check.check(resolve.make("folder", {**given, "roi": "roi.png"}))

    def test_the_share_that_counts_is_stated(self, tmp_path):
        report = self.report(tmp_path)
        assert report.counted == pytest.approx({tmp_path.name: 0.3})
        assert f"{tmp_path.name}: 30 % of an image counts on average (region of interest)" in report.lines()
        assert report.ok
        assert check.check(resolve.make("folder", {"root": str(tmp_path), "abnormal_dir": "bad"})).counted == {}

    def test_defects_wholly_outside_are_a_warning(self, tmp_path):
        said = messages(self.report(tmp_path, rows=4), "warning")
        assert any("4 defects of" in s and "lie wholly outside of the region" in s for s in said)
        assert not any("wholly outside" in s for s in messages(self.report(tmp_path, rows=5), "warning"))

    def test_a_region_without_a_pixel_is_an_error(self, tmp_path):
        (error,) = messages(self.report(tmp_path, value=0), "error")
        assert "12 images of" in error
        assert "have a region in which no pixel counts" in error

    def test_one_of_another_size_is_one_error(self, tmp_path):
        (error,) = messages(self.report(tmp_path, size=(30, 28)), "error")
        assert "roi.png is a region of 30x28 (height x width), but an image is 20x28" in error


def test_sides_that_are_missing_are_reported(tmp_path):
    folder(tmp_path)
    report = check.check(resolve.make("folder", {"root": str(tmp_path), "normal_split_ratio": 0}))
    assert messages(report, "warning") == [
        f"{tmp_path.name} has 8 good images to train on: many detectors need more.",
        f"{tmp_path.name} has no defects to test: image metrics are not defined.",
        f"{tmp_path.name} has no good images to test: image metrics are not defined.",
    ]
    assert report.unused == {"bad/dent": 2, "bad/stain": 2, "masks/dent": 2, "masks/stain": 2}


def test_a_published_dataset_that_is_incomplete_is_a_warning(tmp_path):
    mvtec_ad(tmp_path, ("bottle",), train=12)
    assert messages(check_folder(tmp_path), "warning") == [
        "bottle has 12 to train, 3 good and 4 defective to test, but published are 209 to train, 20 good and 63 "
        "defective to test: it is incomplete, or not the published data."
    ]


def test_a_dataset_without_files_can_be_inspected(monkeypatch, tmp_path):
    class Drawn(Dataset):
        root = Path()

        def __init__(self):
            pass

        categories = ("dot",)

        def samples(self):
            splits = [("train", "good")] * 12 + [("test", "good"), ("test", "dot")]
            return tuple(Sample(f"dot/{i}", "dot", *s, f"dot/{i}.png") for i, s in enumerate(splits))

        def image(self, sample):
            return np.random.default_rng(int(sample.id[4:])).integers(0, 256, (8, 8, 3), dtype=np.uint8)

        def mask(self, sample):
            return np.eye(8, dtype=bool) if sample.is_anomaly else None

    draw(tmp_path / "other.png")
    monkeypatch.chdir(tmp_path)
    report = check.check(Drawn())
    assert report.problems == ()
    assert report.unused == {}
    assert report.masks["present"] == 1
    assert report.lines()[0] == "Drawn, rendered, not read from files"


def test_synthetic_defects_and_progress_work(tmp_path):
    for i in range(15):
        draw(tmp_path / f"{i}.png")
    found = resolve.find(str(tmp_path))
    seen = []
    report = check.check(resolve.make(found.name, found.params), lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 15) for i in range(15)]
    assert report.ok
    assert report.masks["present"] == 1


def test_the_real_bottles_have_no_masks_and_are_complete():
    report = check_folder(real("mvtec_ad/bottle"))
    assert report.ok
    assert messages(report, "warning") == ["no defect of bottle has a mask: image metrics only."]
