import json

import numpy as np
import pytest
import tifffile

from dataset_trees import draw, draw_mask, folder
from iadbe.datasets.folder import Folder
from iadbe.errors import BadConfig, BadData
from iadbe.files import image_io


def count(dataset, split, defect=None):
    return sum(s.split == split and defect in (None, s.defect) for s in dataset.samples())


def test_folders_below_name_the_kinds_and_masks_follow_them(tmp_path):
    dataset = Folder(**folder(tmp_path))
    assert dataset.categories == (tmp_path.name,)
    assert (count(dataset, "train"), count(dataset, "test", "good")) == (6, 2)  # a fifth of 8, rounded
    masks = {s.image: s.mask for s in dataset.samples() if s.is_anomaly}
    assert masks["bad/stain/1.png"] == "masks/stain/1_mask.png"
    assert len(masks) == 4


def test_several_folders_each_are_a_kind_with_its_own_masks(tmp_path):
    folder(tmp_path)
    dataset = Folder(
        str(tmp_path), abnormal_dir=["bad/dent", "bad/stain"], mask_dir=["masks/dent", "masks/stain"], name="part"
    )
    assert dataset.categories == ("part",)
    masks = {s.id: (s.defect, s.mask) for s in dataset.samples() if s.is_anomaly}
    assert masks["part/bad/stain/0.png"] == ("stain", "masks/stain/0_mask.png")
    assert count(dataset, "test", "dent") == 2


def test_good_images_of_their_own_folder_leave_training_whole(tmp_path):
    folder(tmp_path)
    draw(tmp_path / "good/later/x.png")  # inside of normal_dir, and yet only tested
    dataset = Folder(str(tmp_path), normal_test_dir="good/later", normal_split_ratio=0.5)
    assert (count(dataset, "train"), count(dataset, "test")) == (8, 1)


def test_images_beside_defects_can_be_the_root_itself(tmp_path):
    for i in range(5):
        draw(tmp_path / f"{i}.png")
    draw(tmp_path / "bad/0.png")
    dataset = Folder(str(tmp_path), normal_dir=".", abnormal_dir="bad", normal_split_ratio=0)
    assert (count(dataset, "train"), count(dataset, "test", "bad")) == (5, 1)


class TestSynthetic:
    def test_half_of_the_good_test_images_get_a_defect(self, tmp_path):
        given = folder(tmp_path)
        dataset = Folder(**given, test_split_mode="synthetic", test_split_ratio=0.5)
        kinds = [count(dataset, "test", k) for k in ("good", "synthetic", "dent", "stain")]
        assert kinds == [2, 2, 2, 2]
        assert count(dataset, "train") == 4
        assert len({s.image for s in dataset.samples()}) == len(dataset.samples())

    def test_the_defect_is_where_the_mask_says_and_nowhere_else(self, tmp_path):
        given = {"root": folder(tmp_path)["root"], "test_split_mode": "synthetic", "test_split_ratio": 0.8}
        dataset = Folder(**given)
        drawn = [s for s in dataset.samples() if s.defect == "synthetic"]
        assert len(drawn) == 3
        for s in drawn:
            source = image_io.read_rgb(tmp_path / s.image)
            changed = np.abs(dataset.image(s).astype(int) - source).sum(-1) > 0
            mask = dataset.mask(s)
            assert not changed[~mask].any()
            assert changed[mask].mean() > 0.8
            assert np.array_equal(Folder(**given).image(s), dataset.image(s))
        assert len({dataset.mask(s).tobytes() for s in drawn}) == 3

    def test_another_seed_draws_other_defects_under_other_ids(self, tmp_path):
        given = {"root": folder(tmp_path)["root"], "test_split_mode": "synthetic"}
        one, two = ({s.id for s in Folder(**given, seed=n).samples() if s.is_anomaly} for n in (0, 1))
        assert not one & two

    def test_two_images_are_held_out_even_of_three(self, tmp_path):
        for i in range(3):
            draw(tmp_path / f"good/{i}.png")
        dataset = Folder(str(tmp_path), test_split_mode="synthetic")
        assert [count(dataset, *w) for w in (("train",), ("test", "good"), ("test", "synthetic"))] == [1, 1, 1]

    def test_a_folder_that_is_called_synthetic_holds_files(self, tmp_path):
        folder(tmp_path)
        draw(tmp_path / "synthetic/0.png")
        dataset = Folder(str(tmp_path), abnormal_dir="synthetic", test_split_mode="synthetic")
        file = next(s for s in dataset.samples() if s.image == "synthetic/0.png")
        assert np.array_equal(dataset.image(file), Folder(str(tmp_path)).image(file))
        assert dataset.mask(file) is None


def test_one_image_is_enough_to_train_and_none_holds_nothing_out(tmp_path):
    draw(tmp_path / "good/0.png")
    assert count(Folder(str(tmp_path)), "train") == 1
    folder(tmp_path / "more")
    assert count(Folder(str(tmp_path / "more"), test_split_mode="none"), "train") == 8


def test_masks_may_lie_beside_their_images(tmp_path):
    folder(tmp_path)
    for i in range(2):
        draw_mask(tmp_path / f"bad/dent/{i}_mask.png")
    dataset = Folder(str(tmp_path), abnormal_dir="bad/dent", mask_dir="bad/dent")
    assert {s.image: s.mask for s in dataset.samples() if s.is_anomaly} == {
        "bad/dent/0.png": "bad/dent/0_mask.png",
        "bad/dent/1.png": "bad/dent/1_mask.png",
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"normal_dir": "god"}, r"no folder .*god, the normal_dir. Did you mean good\?"),
        ({"normal_dir": "empty"}, r"found 0 good images in .*empty \(looked for .png, .jpg"),
        ({"extensions": (".bmp",)}, r"found 0 good images in .*good \(looked for .bmp\)"),
        ({"abnormal_dir": "empty"}, r"found 0 defects in .*empty"),
        ({"normal_test_dir": "good"}, "none is left to train on"),
        ({"normal_dir": "bad", "abnormal_dir": "more"}, "called 'good'. Name that folder as normal_test_dir"),
        ({"abnormal_dir": "bad", "mask_dir": "other"}, r"none of the 4 defects .* looked for 0_mask.png.*found x.png"),
        ({"abnormal_dir": "bad", "mask_dir": "flat"}, r"0_mask.png fits several defects"),
        ({"normal_dir": "twins"}, "have the same name: is one of them a mask"),
        ({"normal_dir": ".."}, "lies outside of the root"),
    ],
)
def test_what_cannot_be_used_is_reported_in_one_sentence(tmp_path, given, said):
    folder(tmp_path)
    (tmp_path / "empty").mkdir()
    for path in ("more/good/0.png", "other/x.png", "flat/0_mask.png", "flat/1_mask.png", "twins/a.png", "twins/a.jpg"):
        draw(tmp_path / path)
    with pytest.raises(BadData, match=said):
        Folder(**{"root": str(tmp_path), **given}).samples()


def test_a_wrong_mode_is_reported(tmp_path):
    folder(tmp_path)
    with pytest.raises(BadConfig, match=r"'syntetic', not one of .*Did you mean synthetic\?"):
        Folder(str(tmp_path), test_split_mode="syntetic")
    with pytest.raises(BadConfig, match=r"normal_split_ratio is 1\.5"):
        Folder(str(tmp_path), normal_split_ratio=1.5)


class TestGroups:
    def lots(self, root, lots=5, each=4):
        for lot in range(lots):
            for i in range(each):
                draw(root / f"good/lot{lot}_{i}.png")
        draw(root / "bad/lot0_x.png")
        return {"root": str(root), "abnormal_dir": "bad"}

    def test_a_group_is_in_one_split_and_one_with_a_defect_is_tested(self, tmp_path):
        given = self.lots(tmp_path)
        for seed in range(5):
            dataset = Folder(**given, normal_split_ratio=0.4, seed=seed, group=r"lot(\d+)_")
            split = {}
            for s in dataset.samples():
                split.setdefault(s.group, set()).add(s.split)
            assert sorted(split) == list("01234")
            assert all(len(found) == 1 for found in split.values())
            assert split["0"] == {"test"}
            assert count(dataset, "train") == 12  # 40 % of 20 are two lots

    def test_without_a_group_every_image_is_its_own(self, tmp_path):
        samples = Folder(**self.lots(tmp_path)).samples()
        assert not any(s.group for s in samples)

    def test_a_group_that_takes_all_images_is_an_error(self, tmp_path):
        with pytest.raises(BadData, match="in groups that are tested: none is left to train on"):
            Folder(**self.lots(tmp_path, lots=1), group="lot").samples()


def test_folders_outside_of_the_root_are_named_by_absolute_paths(tmp_path):
    for i in range(6):
        draw(tmp_path / f"elsewhere/fine/{i}.png")
    draw(tmp_path / "root/bad/0.png")
    dataset = Folder(str(tmp_path / "root"), normal_dir=str(tmp_path / "elsewhere/fine"), abnormal_dir="bad")
    assert (count(dataset, "train"), count(dataset, "test", "good"), count(dataset, "test", "bad")) == (5, 1, 1)
    for s in dataset.samples():
        assert dataset.image(s).shape == (20, 28, 3)


class TestAnnotations:
    def annotate(self, root, name, *labels):
        shapes = [{"label": one, "points": [[2, 3], [10, 3], [10, 7], [2, 7]]} for one in labels]
        content = {"shapes": shapes, "imagePath": f"{name.rpartition('/')[2]}.png", "imageHeight": 20, "imageWidth": 28}
        (root / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")

    def test_they_are_masks_and_kinds_where_there_is_no_mask(self, tmp_path):
        given = folder(tmp_path)
        for path in (tmp_path / "masks/dent").iterdir():
            path.unlink()
        self.annotate(tmp_path, "bad/dent/0", "chip")
        self.annotate(tmp_path, "bad/stain/0", "chip")
        defects = {s.image: s for s in Folder(**given).samples() if s.is_anomaly}
        assert {path: (s.defect, s.mask) for path, s in defects.items()} == {
            "bad/dent/0.png": ("chip", "bad/dent/0.json"),
            "bad/dent/1.png": ("dent", None),
            "bad/stain/0.png": ("chip", "masks/stain/0_mask.png"),
            "bad/stain/1.png": ("stain", "masks/stain/1_mask.png"),
        }
        mask = Folder(**given).mask(defects["bad/dent/0.png"])
        assert mask.shape == (20, 28)
        assert mask.sum() == mask[3:8, 2:11].sum() == 45

    def test_an_annotated_image_among_the_good_ones_is_a_defect(self, tmp_path):
        given = folder(tmp_path)
        self.annotate(tmp_path, "good/3", "dent")
        self.annotate(tmp_path, "good/4", "OK")
        dataset = Folder(**given)
        (found,) = [s for s in dataset.samples() if s.image == "good/3.png"]
        assert (found.split, found.defect, found.mask) == ("test", "dent", "good/3.json")
        assert count(dataset, "train") + count(dataset, "test", "good") == 7
        assert count(Folder(**given, good_names=("dent",)), "test", "dent") == 2
        assert count(Folder(**given, annotations="none"), "test", "dent") == 2

    def test_if_all_are_annotated_the_message_names_the_class(self, tmp_path):
        for number in range(3):
            draw(tmp_path / f"good/{number}.png")
            self.annotate(tmp_path, f"good/{number}", "bolt")
        with pytest.raises(BadData, match="all 3 good images .* for example 'bolt' in good/0.png. Name the classes"):
            Folder(str(tmp_path)).samples()

    def test_the_digest_follows_the_annotations(self, tmp_path):
        given = folder(tmp_path)
        before = Folder(**given).digest()
        self.annotate(tmp_path, "good/3", "roi")  # no defect
        self.annotate(tmp_path, "good/4", "dent")
        assert Folder(**given).digest() != before
        assert Folder(**given, annotations="none").digest() == before

    def test_some_classes_are_regions(self, tmp_path):
        given = folder(tmp_path)
        before = Folder(**given).digest()
        self.annotate(tmp_path, "good/3", "roi")
        dataset = Folder(**given)
        found = {s.image: dataset.region(s) for s in dataset.samples()}
        assert [path for path, region in found.items() if region is not None] == ["good/3.png"]
        assert found["good/3.png"].sum() == found["good/3.png"][3:8, 2:11].sum() == 45
        assert count(dataset, "train") + count(dataset, "test", "good") == 8
        assert dataset.digest() != before
        draw_mask(tmp_path / "ignore.png")  # rows 4 to 8 and columns 5 to 15
        dataset.set_region(ignore="ignore.png")
        both = {s.image: dataset.region(s) for s in dataset.samples()}
        assert both["good/3.png"].sum() == 45 - 4 * 6
        assert both["good/4.png"].sum() == 20 * 28 - 40
        assert dataset.common_region(dataset.samples()[0]) is None
        plain = Folder(**given, annotations="none")
        plain.set_region(ignore="ignore.png")
        assert plain.common_region(plain.samples()[0]).sum() == 20 * 28 - 40

    def test_the_classes_of_regions_are_parameters(self, tmp_path):
        given = folder(tmp_path)
        self.annotate(tmp_path, "good/3", "Fixture")
        dataset = Folder(**given, ignore_names=("fixture",))
        (sample,) = [s for s in dataset.samples() if s.image == "good/3.png"]
        assert dataset.region(sample).sum() == 20 * 28 - 45


class TestSplitFile:
    def write(self, root, *lines):
        (root / "split.csv").write_text("\n".join(["path,split,label,kind,group,mask", *lines]), encoding="utf-8")
        return Folder(str(root), split="split.csv", name="part")

    def test_it_replaces_the_folders(self, tmp_path):
        for name in "abcd":
            draw(tmp_path / f"images/{name}.png")
        draw_mask(tmp_path / "masks/d.png")
        dataset = self.write(
            tmp_path,
            "images/a.png,train,ok,,lot1,",
            "images/b.png,val,,good,lot2,",
            "images/d.png,test,ng,dent,lot3,masks/d.png",
            "images/c.png,train,1,,,",
        )
        found = [(s.image, s.split, s.defect, s.mask, s.group) for s in dataset.samples()]
        assert found == [
            ("images/a.png", "train", "good", None, "lot1"),
            ("images/b.png", "val", "good", None, "lot2"),
            ("images/c.png", "test", "defect", None, ""),  # a defect to train on is tested
            ("images/d.png", "test", "dent", "masks/d.png", "lot3"),
        ]
        assert dataset.mask(dataset.samples()[3]).sum() == 40

    def test_annotations_say_what_the_file_leaves_out(self, tmp_path):
        for name in "abc":
            draw(tmp_path / f"{name}.png")
        TestAnnotations().annotate(tmp_path, "c", "dent")
        dataset = self.write(tmp_path, "a.png,train", "b.png,test", "c.png,test")
        assert [(s.defect, s.mask) for s in dataset.samples()] == [("good", None), ("good", None), ("dent", "c.json")]

    def test_without_good_images_to_train_on_it_is_an_error(self, tmp_path):
        draw(tmp_path / "a.png")
        with pytest.raises(BadData, match="split.csv has no good image in the split train"):
            self.write(tmp_path, "a.png,test").samples()


def stack(path, count, size=(16, 16), kind=np.uint16):
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = np.random.default_rng(count).integers(0, 4000, (count, *size)).astype(kind)
    tifffile.imwrite(path, pages, photometric="minisblack")
    return pages


def test_pages_of_tiffs_are_images_with_masks_of_their_own(tmp_path):
    stack(tmp_path / "good/a.tif", 6)
    stack(tmp_path / "good/b.tif", 1)
    bad = stack(tmp_path / "bad/c.tif", 2)
    marked = np.zeros((2, 16, 16), np.uint8)
    marked[1, 3:5, 4:9] = 255
    (tmp_path / "masks").mkdir()
    tifffile.imwrite(tmp_path / "masks/c.tif", marked, photometric="minisblack")
    given = {"abnormal_dir": "bad", "mask_dir": "masks", "normal_split_ratio": 0.3, "name": "part"}
    dataset = Folder(str(tmp_path), pages=True, **given)
    good = sorted(s.id for s in dataset.samples() if not s.is_anomaly)
    assert good == ["part/good/" + n for n in (*(f"a.tif#{i:04d}" for i in range(6)), "b.tif")]
    assert (count(dataset, "train"), count(dataset, "test", "good")) == (5, 2)
    defects = [s for s in dataset.samples() if s.is_anomaly]
    assert [(s.image, s.mask) for s in defects] == [(f"bad/c.tif#{i:04d}", f"masks/c.tif#{i:04d}") for i in (0, 1)]
    assert np.array_equal(dataset.mask(defects[1]), marked[1] > 0)
    dataset.configure(range=(0.0, 4095.0))
    assert np.array_equal(dataset.image(defects[1])[..., 0], np.rint(bad[1] * (255 / 4095)).astype(np.uint8))
    before = dataset.digest()
    stack(tmp_path / "good/b.tif", 1, (20, 20))
    assert dataset.digest() != before  # the size of the file is part of it


def test_pages_of_a_file_stay_together_where_a_group_says_so(tmp_path):
    for name in "abcd":
        stack(tmp_path / f"good/{name}.tif", 3)
    dataset = Folder(str(tmp_path), pages=True, group="(.*)#", normal_split_ratio=0.3)
    splits = {s.image.partition("#")[0]: s.split for s in dataset.samples()}
    assert all(splits[s.image.partition("#")[0]] == s.split for s in dataset.samples())
    assert sorted(splits.values()) == ["test", "train", "train", "train"]


def test_pages_without_masks_of_their_own_are_refused(tmp_path):
    stack(tmp_path / "good/a.tif", 3)
    stack(tmp_path / "bad/c.tif", 3)
    draw_mask(tmp_path / "masks/c.png")
    dataset = Folder(str(tmp_path), abnormal_dir="bad", mask_dir="masks", pages=True)
    with pytest.raises(BadData, match=r"c\.png has 1 page, and the 3 pages of c\.tif need one each"):
        dataset.samples()
    with pytest.raises(BadData, match="holds 3 images, and only one per file is used"):
        Folder(str(tmp_path)).image(Folder(str(tmp_path)).samples()[0])
