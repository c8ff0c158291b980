import math

import numpy as np
import pytest
import torch
from torch import nn

from drawn_images import images
from iadbe import progress
from iadbe.layers.training.loop import federated, loop, seeded, step

TRAIN = images([np.full((8, 8, 3), v, np.uint8) for v in range(5)])


def shown(**how):
    batches = loop(TRAIN, **{"epochs": 3, "batch": 2, "rng": np.random.default_rng(0), **how})
    return [[round(float(v) * 255) for v in b.image[:, 0, 0, 0]] for b in batches]


def test_every_epoch_shows_every_image_in_an_order_of_its_own():
    batches = shown()
    assert [len(b) for b in batches] == [2, 2, 1] * 3
    epochs = [[v for b in batches[i : i + 3] for v in b] for i in (0, 3, 6)]
    assert all(sorted(e) == list(range(5)) for e in epochs)
    assert epochs[0] != epochs[1]
    assert batches == shown()
    assert batches != shown(rng=np.random.default_rng(1))


def test_the_augmentation_sees_every_batch():
    batches = shown(augment=lambda image, generator: image + 100 / 255)
    assert min(min(b) for b in batches) == 100


def test_progress_goes_from_0_to_the_total():
    heard = []
    with progress.listening(heard.append):
        shown()
    assert [r.done for r in heard] == list(range(10))
    assert {(r.phase, r.total) for r in heard} == {("fit", 9)}


def test_it_stops_when_the_time_is_up(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    seen = []
    with progress.budget(3.5):
        for batch in loop(TRAIN, epochs=100, batch=2, rng=np.random.default_rng(0)):
            seen.append(len(batch))
            now[0] += 1
    assert len(seen) == 4


def test_a_step_lowers_the_loss_and_reports_it():
    weight = nn.Parameter(torch.tensor(3.0))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    heard = []
    with progress.listening(heard.append):
        values = [step(optimizer, weight**2) for _ in range(3)]
    assert values == sorted(values, reverse=True)
    np.testing.assert_allclose(values, [9.0, 9.0 * 0.8**2, 9.0 * 0.8**4], rtol=1e-5)
    assert [r.value for r in heard] == values


def test_the_loss_of_an_adversary_need_not_be_shown():
    weight, heard = nn.Parameter(torch.tensor(3.0)), []
    with progress.listening(heard.append):
        assert step(torch.optim.SGD([weight], lr=0.1), weight**2, shown=False) == 9
    assert float(weight.detach()) == pytest.approx(2.4)
    assert heard == []


def test_initial_weights_follow_from_the_seed_and_leave_global_generators_unchanged():
    def first(seed):
        with seeded(np.random.default_rng(seed)):
            return nn.Linear(4, 4).weight

    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert torch.equal(torch.rand(2), expected)


def test_a_federated_round_has_its_portion_of_the_epochs_and_at_least_one():
    for portion, epochs in ((1, 3), (2 / 3, 2), (0.1, 1)):
        with federated(portion, 0):
            assert len(shown()) == 3 * epochs
    assert len(shown()) == 9


def test_the_proximal_gradient_is_that_of_the_squared_distance_from_the_first_step():
    """FedProx: two steps by hand, with mu / 2 |w - w0|² written into the loss."""
    ways = []
    for by_hand in (True, False):
        weight = nn.Parameter(torch.tensor([1.0, -2.0]))
        start, optimizer = weight.detach().clone(), torch.optim.SGD([weight], 0.1)
        with federated(1, 0.0 if by_hand else 0.7):
            for _ in range(3):
                loss = (weight**3).sum()
                step(optimizer, loss + 0.35 * (weight - start).square().sum() if by_hand else loss)
        ways.append(weight.detach())
    torch.testing.assert_close(*ways)
    free = nn.Parameter(torch.tensor([1.0, -2.0]))
    for _ in range(3):
        step(torch.optim.SGD([free], 0.1), (free**3).sum())
    assert not torch.allclose(free, ways[0])


def test_gradients_are_clipped_to_the_norm():
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    heard = []
    with progress.listening(heard.append):
        value = step(torch.optim.SGD([weight], 1.0), (weight**2).sum() / 2, 0.5)
    torch.testing.assert_close(weight.detach(), torch.tensor([3.0, 4.0]) * (1 - 0.5 / 5), rtol=1e-4, atol=1e-5)
    assert value == 12.5
    assert heard[0].value == 12.5


def test_the_proximal_gradient_is_clipped_with_the_rest():
    """Two steps with FedProx: the second gradient is (1.5, 2.5) and pulls by 2 · (-1.5, -2.5) towards the start."""
    weight = nn.Parameter(torch.tensor([3.0, 5.0]))
    optimizer = torch.optim.SGD([weight], 0.5)
    with federated(1, 2.0):
        step(optimizer, (weight**2).sum() / 2, 100.0)  # nothing pulls yet
        torch.testing.assert_close(weight.detach(), torch.tensor([1.5, 2.5]))
        step(optimizer, (weight**2).sum() / 2, 0.5)
    length = math.hypot(1.5, 2.5)
    expected = torch.tensor([1.5, 2.5]) * (1 + 0.5 * 0.5 / length)  # 1.5 - 3 = -1.5: away from 0, by a length of 0.5
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-5)


def test_steps_count_batches_across_epochs():
    batches = shown(epochs=None, steps=5)
    assert [len(b) for b in batches] == [2, 2, 1, 2, 2]
    assert batches == shown()[:5]
    with progress.counting_steps() as count:
        shown(epochs=None, steps=2)
    assert (count.done, count.planned) == (2, 2)


@pytest.mark.parametrize("how", [{"epochs": 2, "steps": 3}, {"epochs": None}])
def test_a_loop_takes_either_epochs_or_steps(how):
    with pytest.raises(TypeError, match="either epochs or steps"):
        shown(**how)
