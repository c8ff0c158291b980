"""What a wrapped dataset does not change is the other one's."""

import inspect

import pytest

from iadbe.data.aligned import AlignedDataset
from iadbe.data.transforms import TransformedDataset
from iadbe.data.wrapped import WrappedDataset
from iadbe.dataset import Dataset
from iadbe.datasets.toy import Toy

OF_THE_OTHER = {"categories", "samples", "common_region", "region_digest", "digest", "whole_digest"}
OF_A_SAMPLE = {"image", "mask", "region", "image_size", "defects", "depth", "points"}


def test_it_has_the_samples_of_the_other():
    toy = Toy(depth=True)
    wrapped = WrappedDataset(toy)
    sample = toy.samples()[0]
    assert wrapped.samples() == toy.samples()
    assert wrapped.categories == toy.categories
    assert (wrapped.gives, wrapped.root, wrapped.focal_length) == (toy.gives, toy.root, toy.focal_length)
    assert wrapped.digest(["washer"]) == toy.digest(["washer"]) != toy.digest()
    assert wrapped.whole_digest() == toy.whole_digest()
    assert wrapped.common_region(sample) is None
    assert wrapped.region_digest([sample]) == ""


@pytest.mark.parametrize("kind", [AlignedDataset, TransformedDataset])
def test_what_depends_on_a_sample_is_never_read_past_a_wrapper(kind):
    """A method of datasets that no class of ours overrides would be that of the wrapper's own files: there are none."""
    read = {name for name, _ in inspect.getmembers(Dataset, inspect.isfunction) if not name.startswith("_")}
    assert read - {"configure", "set_region", "chosen_categories", "create"} == (OF_THE_OTHER | OF_A_SAMPLE) - {
        "categories"
    }
    own = {name for base in kind.__mro__[: kind.__mro__.index(Dataset)] for name in vars(base)}
    assert own >= OF_THE_OTHER | (OF_A_SAMPLE - {"image_size"})
