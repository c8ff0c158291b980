import pytest
import torch

from iadbe.layers.blocks import codebook
from iadbe.layers.blocks.codebook import Codebook


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=source(seed))


@pytest.fixture
def book():
    torch.manual_seed(0)
    return Codebook(20, 5)


def nearest(book, vector):
    return min(range(len(book.codes)), key=lambda k: float(((vector - book.codes[k]) ** 2).sum()))


def test_every_vector_is_replaced_by_its_nearest_code(book, monkeypatch):
    monkeypatch.setattr(codebook, "CHUNK", 40)  # two rows at a time
    x = drawn(2, 5, 3, 4)
    found, numbers = book(x), book.nearest(x)
    for b in range(2):
        for i in range(3):
            for j in range(4):
                k = nearest(book, x[b, :, i, j])
                assert int(numbers[b, i, j]) == k
                torch.testing.assert_close(found[b, :, i, j], book.codes[k])


def test_the_gradient_passes_straight_through(book):
    x = drawn(1, 5, 2, 2).requires_grad_()
    weight = drawn(1, 5, 2, 2, seed=1)
    (book(x) * weight).sum().backward()
    torch.testing.assert_close(x.grad, weight)


def test_codes_are_moving_averages_of_what_they_replace(book):
    """Equations 6 to 8 of the paper's appendix, with the sizes smoothed, in loops."""
    x = drawn(3, 5, 4, 4)
    book.learn(x, source())
    for seed in (1, 2):
        x = drawn(3, 5, 4, 4, seed=seed).requires_grad_()
        rows = x.detach().permute(0, 2, 3, 1).reshape(-1, 5)
        numbers = [nearest(book, row) for row in rows]
        sizes, sums, before = book.sizes.clone(), book.sums.clone(), book.codes.clone()
        quantised, commitment = book.learn(x, source())
        for k in range(20):
            mine = [row for row, n in zip(rows, numbers, strict=True) if n == k]
            sizes[k] = 0.99 * sizes[k] + 0.01 * len(mine)
            sums[k] = 0.99 * sums[k] + 0.01 * sum(mine, torch.zeros(5))
        total = sizes.sum()
        sizes = (sizes + 1e-5) / (total + 20 * 1e-5) * total
        torch.testing.assert_close(book.sizes, sizes)
        torch.testing.assert_close(book.codes, sums / sizes[:, None])
        replaced = before[torch.tensor(numbers)]
        torch.testing.assert_close(quantised.detach().permute(0, 2, 3, 1).reshape(-1, 5), replaced)
        torch.testing.assert_close(commitment.detach(), 0.25 * ((rows - replaced) ** 2).mean())
        commitment.backward()
        assert float(x.grad.abs().sum()) > 0


def test_the_first_codes_are_vectors_of_the_first_batch():
    book, x = Codebook(6, 5), 100 + drawn(2, 5, 4, 4)
    book.learn(x, source())
    moved = book.codes  # one step of decay 0.99 away from them
    distance = torch.cdist(moved, x.permute(0, 2, 3, 1).reshape(-1, 5))
    assert float(distance.min(1).values.max()) < 2
    assert bool(book.started)


def test_a_code_that_is_hardly_used_becomes_a_vector_of_the_batch():
    torch.manual_seed(0)
    book = Codebook(4, 2, decay=0.5)
    book.learn(drawn(1, 2, 8, 8), source())
    far = torch.tensor([[0.0, 0.0], [1e3, 1e3], [0.5, 0.0], [0.0, 0.5]])
    book.codes, book.sums, book.sizes = far, far * 16, torch.tensor([16.0, 1.5, 16.0, 16.0])  # a tenth is 1.6
    x = drawn(1, 2, 8, 8, seed=1)
    book.learn(x, source())
    assert float(book.codes.abs().max()) < 5
    assert float(book.sizes[1]) >= 0.5 * 0.2 * 16  # twice a tenth of the fair share, then one update
    book.codes, book.sums, book.sizes = far, far * 16, torch.tensor([16.0, 1.7, 16.0, 16.0])
    book.learn(x, source())
    assert float(book.codes.abs().max()) > 1e3  # not replaced


def test_learning_makes_the_codes_fit():
    torch.manual_seed(1)
    book, centres = Codebook(8, 2, decay=0.9), torch.tensor([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    errors = []
    for seed in range(60):
        x = centres[torch.randint(4, (64,), generator=source(seed))] + 0.1 * drawn(64, 2, seed=seed)
        x = x.T.reshape(1, 2, 8, 8)
        errors.append(float((book.learn(x, source())[0] - x).square().mean()))
    assert errors[-1] < 0.02
    assert errors[-1] < 0.7 * errors[0]
