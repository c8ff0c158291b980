import random

import numpy as np
import pytest
import torch

from iadbe.layers.foreign.scratch import all_seeded, scratch_folder


def drawn():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_the_same_generator_gives_the_same_numbers_and_what_was_before_goes_on():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = [drawn(), drawn()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = drawn()
    with all_seeded(np.random.default_rng(5)) as seed:
        inner = drawn()
    assert [first, drawn()] == expected
    with all_seeded(np.random.default_rng(5)) as again:
        assert drawn() == inner
    assert again == seed


def test_a_scratch_folder_is_removed_whatever_happens():
    with pytest.raises(ValueError, match="broken"), scratch_folder() as folder:  # noqa: PT012
        (folder / "inner").mkdir()
        raise ValueError("broken")
    assert not folder.exists()
