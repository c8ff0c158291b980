import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

from drawn_images import Drawn, images
from iadbe.data import images as images_module
from iadbe.data.images import Images, View, mask_coverage, native_size, read_view
from iadbe.errors import BadConfig, BadData, BadDetector
from iadbe.types import TrainingImage, TrainingLabel


def flat(value, side=8):
    return np.full((side, side, 3), value, np.uint8)


def values(shown):
    return [round(float(image[0, 0, 0]) * 255) for image in shown.image]


def order(train, **how):
    return [v for shown in train.batches(**how) for v in values(shown)]


class TestView:
    def test_the_whole_image_is_seen_whatever_its_sides(self):
        wide = np.zeros((20, 60, 3), np.uint8)
        wide[:, :30] = 200  # the left half
        seen = View(40)(wide)
        assert seen.shape == (40, 40, 3)
        assert (seen[:, :19] == 200).all()
        assert (seen[:, 21:] == 0).all()

    def test_the_crop_is_the_centre(self):
        ramp = np.repeat(np.arange(16, dtype=np.uint8)[:, None, None], 16, 1).repeat(3, 2)
        seen = View(16, crop=8)(ramp)
        assert seen.shape == (8, 8, 3)
        assert seen[:, 0, 0].tolist() == list(range(4, 12))

    def test_a_mask_goes_where_its_image_goes(self):
        pixels, mask = np.zeros((30, 50, 3), np.uint8), np.zeros((30, 50), bool)
        pixels[6:24, 10:40], mask[6:24, 10:40] = 255, True
        view = View(100, crop=90)
        seen = view(mask)
        assert seen.dtype == bool
        assert seen.shape == (90, 90)
        assert (seen == (view(pixels)[:, :, 0] > 127)).mean() > 0.99

    def test_a_size_that_fits_is_left_alone(self):
        noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        assert (View(16)(noise) == noise).all()

    @pytest.mark.parametrize("wrong", [{"resize": 4}, {"resize": 16, "crop": 32}, {"crop": -1}])
    def test_an_impossible_view_is_refused(self, wrong):
        with pytest.raises(BadConfig, match="is not possible"):
            View(**wrong)


class TestBatches:
    TRAIN = [flat(v) for v in range(10)]

    def test_all_images_come_once_and_in_order(self):
        train = images(self.TRAIN)
        sizes = [len(shown) for shown in train.batches(4)]
        assert sizes == [4, 4, 2]
        assert order(train, size=4) == list(range(10))

    def test_a_batch_says_what_it_shows_and_not_what_is_wrong_with_it(self):
        first = next(images(self.TRAIN).batches(3))
        assert first.image.shape == (3, 3, 8, 8)
        assert first.image.dtype == torch.float32
        assert first.id == ("000", "001", "002")
        assert first.category == ("part",) * 3
        assert not {"mask", "defect", "told", "label"} & set(first.__dataclass_fields__)

    def test_values_lie_between_0_and_1(self):
        shown = next(images([flat(0), flat(255)]).batches(2))
        assert shown.image[0].max() == 0
        assert shown.image[1].min() == 1

    def test_the_shuffle_follows_from_the_generator(self):
        train = images(self.TRAIN)
        first, again = (order(train, size=3, rng=np.random.default_rng(5)) for _ in range(2))
        assert first == again != list(range(10))
        assert sorted(first) == list(range(10))
        rng = np.random.default_rng(5)
        assert order(train, size=3, rng=rng) != order(train, size=3, rng=rng)  # another order in every epoch

    def test_keys_are_those_of_the_pixels(self):
        shown = next(images([flat(1), flat(2), flat(1)]).batches(3))
        assert shown.keys[0] == shown.keys[2] != shown.keys[1]
        assert next(images([flat(1, 9)]).batches(1)).keys[0] != shown.keys[0]

    def test_augmented_images_have_no_keys(self):
        def noise(image, generator):
            return image + torch.rand(image.shape, generator=generator)

        train = images(self.TRAIN)
        a, b = (next(train.batches(4, np.random.default_rng(1), noise)) for _ in range(2))
        assert a.keys is None
        assert torch.equal(a.image, b.image)  # the augmentation is drawn from the same seed

    def test_a_broken_image_is_named(self):
        class Broken(Drawn):
            def image(self, sample):
                raise BadData(f"{sample.image} is broken")

        dataset = Broken([flat(1)])
        with pytest.raises(BadData, match=r"000\.png is broken"):
            next(Images(dataset, [TrainingImage(dataset.samples()[0])], View(8)).batches(1))

    def test_stopping_early_is_allowed(self):
        for shown in images(self.TRAIN).batches(2):
            assert len(shown) == 2
            break


class TestSelections:
    LABELS = (TrainingLabel.NORMAL, TrainingLabel.ANOMALOUS, TrainingLabel.NORMAL, TrainingLabel.MASKED)

    def test_normal_images_are_those_labelled_normal(self):
        train = images([flat(v) for v in range(4)], labels=self.LABELS)
        assert order(train.normal()) == [0, 2]
        assert train.labels == self.LABELS

    def test_a_split_loses_nothing(self):
        train = images([flat(v) for v in range(10)])
        rest, held = train.split(0.2, np.random.default_rng(0))
        assert len(held) == 2
        assert sorted(order(rest) + order(held)) == list(range(10))
        assert order(rest) == sorted(order(rest))

    @pytest.mark.parametrize(("count", "held"), [(1, 0), (2, 1), (3, 1)])
    def test_a_split_of_few_leaves_some_to_train_on(self, count, held):
        rest, out = images([flat(v) for v in range(count)]).split(0.1, np.random.default_rng(0))
        assert (len(rest), len(out)) == (count - held, held)

    def test_a_group_stays_on_one_side(self):
        plain = images([flat(v) for v in range(20)])
        items = [item._replace(sample=replace(item.sample, group=str(n // 4))) for n, item in enumerate(plain.items)]
        for seed in range(6):
            rest, held = Images(plain.dataset, items, plain.view).split(0.45, np.random.default_rng(seed))
            assert (len(rest), len(held)) == (12, 8)
            assert not {i.sample.group for i in rest.items} & {i.sample.group for i in held.items}


class TestMemory:
    def test_an_image_is_decoded_once(self):
        train = images([flat(v) for v in range(4)])
        for _ in range(3):
            assert order(train) == list(range(4))
        assert sorted(train.dataset.opened) == ["000", "001", "002", "003"]

    def test_every_view_has_its_own(self):
        dataset = Drawn([flat(7, 16)])
        sample = dataset.samples()[0]
        assert read_view(dataset, sample, View(8))[0].shape == (8, 8, 3)
        assert read_view(dataset, sample, View(16))[0].shape == (16, 16, 3)

    def test_memory_is_bounded_and_nothing_is_wrong_for_it(self, monkeypatch):
        monkeypatch.setattr(images_module, "CACHE_BYTES", 3 * flat(0).nbytes)
        train = images([flat(v) for v in range(10)])
        for _ in range(2):
            assert order(train, size=4) == list(range(10))
        assert len(train.dataset.opened) > 10
        train.dataset.opened.clear()
        assert order(train.subset([7, 8, 9])) == [7, 8, 9]  # the last three are still there
        assert train.dataset.opened == []

    def test_another_dataset_with_the_same_names_is_another(self):
        for value in range(30):  # each may get the memory address of the one before
            assert order(images([flat(value)])) == [value]
            gc.collect(0)


class Deep(Drawn):
    """Depth is the red of an image, and was not measured in its first row."""

    measured = 0

    def depth(self, sample):
        Deep.measured += 1
        if sample.id == "002":
            return None
        red = self.pixels[sample.id][:, :, 0].astype(np.float32) / 10
        red[0] = np.nan
        return red


class TestDepth:
    PIXELS = tuple(np.random.default_rng(n).integers(0, 256, (24, 36, 3), dtype=np.uint8) for n in range(4))

    def shown(self, view=None, **how):
        dataset = Deep(self.PIXELS)
        return Images(dataset, [TrainingImage(s) for s in dataset.samples()], view or View(12, 8), **how)

    def test_is_read_only_for_who_wants_it(self):
        Deep.measured = 0
        assert all(batch.depth is None for batch in self.shown().batches(2))
        assert Deep.measured == 0

    def test_follows_the_view_and_invents_no_heights(self):
        shown = self.shown(depth=True)
        (batch,) = shown.batches()
        assert batch.depth.shape == (4, 1, 8, 8)
        assert batch.depth.dtype == torch.float32
        for n in (0, 1, 3):
            known = set((self.PIXELS[n][:, :, 0].astype(np.float32) / 10).ravel().tolist())
            assert set(batch.depth[n].ravel().tolist()) <= known
        ramp = np.repeat(np.linspace(0, 255, 24, dtype=np.uint8)[:, None, None], 36, 1).repeat(3, 2)
        dataset = Deep([ramp])
        (batch,) = Images(dataset, [TrainingImage(dataset.samples()[0])], View(24, 20), depth=True).batches()
        assert batch.depth[0, 0, :, 0].numpy() == pytest.approx(batch.image[0, 0, :, 0].numpy() * 25.5, abs=1e-3)

    def test_what_was_not_measured_is_no_number(self):
        (batch,) = self.shown(View(24), depth=True).batches()
        assert batch.depth[0, 0, 0].isnan().all()
        assert not batch.depth[0, 0, 1:].isnan().any()
        assert batch.depth[2].isnan().all()  # this one has no depth at all

    def test_points_come_with_a_camera_and_their_z_is_the_depth(self):
        assert all(batch.points is None for batch in self.shown(depth=True).batches())
        dataset = Deep(self.PIXELS)
        dataset.focal_length = 2.0
        items = [TrainingImage(s) for s in dataset.samples()]
        (batch,) = Images(dataset, items, View(12, 8), depth=True).batches()
        (plain,) = self.shown(depth=True).batches()
        assert batch.points.shape == (4, 3, 8, 8)
        torch.testing.assert_close(batch.points[:, 2:], batch.depth, equal_nan=True, rtol=0, atol=0)
        torch.testing.assert_close(batch.depth, plain.depth, equal_nan=True, rtol=0, atol=0)
        assert batch.points[2].isnan().all()
        ray = (batch.points[0, 0] / batch.points[0, 2])[1]  # x / z of a row grows by the pixels of the view
        known = (np.arange(36) + 0.5 - 18) / 72
        assert all(np.abs(known - value).min() < 1e-6 for value in ray.tolist())
        assert (np.diff(ray.numpy()) > 0).all()

    def test_goes_along_into_subsets_and_shuffled_batches(self):
        shown = self.shown(depth=True)
        whole = torch.cat([b.depth for b in shown.batches()])
        for part in (shown.normal(), shown.subset([3, 1]), *shown.split(0.5, np.random.default_rng(0))):
            for batch in part.batches(2, np.random.default_rng(1)):
                for name, plane in zip(batch.id, batch.depth, strict=True):
                    torch.testing.assert_close(plane, whole[int(name)], equal_nan=True)

    def test_is_measured_once_while_there_is_memory(self):
        shown = self.shown(depth=True)
        Deep.measured = 0
        for _ in range(3):
            list(shown.batches())
        assert Deep.measured == 4

    def test_cannot_follow_an_augmentation(self):
        with pytest.raises(BadDetector, match="does not follow an augmentation"):
            next(self.shown(depth=True).batches(augment=lambda image, generator: image))


class Counting(Drawn):
    """Drawn images with regions of their own."""

    def __init__(self, pixels, regions):
        super().__init__(pixels)
        self.regions_of = dict(zip(self.pixels, regions, strict=True))

    def region(self, sample):
        return self.regions_of[sample.id]


class TestRegion:
    def shown(self, pixels, view, regions=None):
        dataset = Counting(pixels, regions or [None] * len(pixels))
        return Images(dataset, [TrainingImage(s) for s in dataset.samples()], view)

    def test_all_pixels_count_where_nothing_says_otherwise(self):
        shown = self.shown([flat(1), flat(2)], View(8))
        assert next(shown.batches(2)).region is None
        assert shown.regions() is None

    def test_padding_does_not_count(self):
        wide, square = np.zeros((4, 8, 3), np.uint8), flat(5)
        shown = self.shown([wide, square], View(8, fit="pad"))
        region = next(shown.batches(2)).region
        assert region.dtype == torch.bool
        assert region[0].sum(1).tolist() == [0, 0, 8, 8, 8, 8, 0, 0]
        assert region[1].all()
        assert (shown.regions() == region.numpy()).all()
        assert next(shown.subset([1]).batches(1)).region is None

    def test_a_region_of_the_data_set_joins_the_padding(self):
        half = np.zeros((8, 16), bool)
        half[:, :8] = True
        shown = self.shown([np.zeros((8, 16, 3), np.uint8)], View(8, fit="pad"), [half])
        region = next(shown.batches(1)).region[0]
        assert region.sum() == 4 * 4
        assert region[2:6, :4].all()

    def test_an_augmented_batch_has_no_region(self):
        shown = self.shown([np.zeros((4, 8, 3), np.uint8)], View(8, fit="pad"))
        assert next(shown.batches(1, augment=lambda image, _: image)).region is None

    def test_an_image_of_which_nothing_counts_is_reported(self):
        shown = self.shown([flat(1)], View(8), [np.zeros((8, 8), bool)])
        with pytest.raises(BadData, match="no pixel of 000 counts in the view 8 x 8"):
            next(shown.batches(1))

    def test_mirrored_defects_are_none(self):
        mask = np.ones((4, 8), bool)
        assert (mask_coverage(mask, View(8, fit="pad")) > 0).sum() == 4 * 8

    def test_the_size_of_an_image_is_known_without_a_view_of_it(self):
        shown = self.shown([np.zeros((4, 8, 3), np.uint8)], View(8))
        assert native_size(shown.dataset, shown.items[0].sample) == (4, 8)
        assert shown.dataset.opened == ["000"]
        next(shown.batches(1))
        native_size(shown.dataset, shown.items[0].sample)
        assert shown.dataset.opened == ["000", "000"]
