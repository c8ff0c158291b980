"""Time exact nearest neighbours by reduced points against comparing every query with every point.

Run: python benchmarks/neighbours.py [--bank FILE --queries FILE] [--k 1 9] [--threads N]

By default on drawn points of which the n-th direction has 1 / n² of the first one's variance, on points where it has
1 / n, and on points that are the same in all directions: in the last two, reduced points cannot help and must not cost.
Real features are given as tables (N, D) saved by ``numpy.save``.
Processor seconds of all threads are compared, because they hold on a busy machine too; the best of five counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from iadbe.layers.memory_bank.nearest_neighbours import NeighbourIndex

Answer = tuple[Tensor, Tensor]


def brute(queries: Tensor, points: Tensor, k: int, chunk: int = 1024) -> Answer:
    """Find them as usual: the expanded square in one product, clamped, then the smallest."""
    squares, answers = points.square().sum(1), []
    for part in queries.split(chunk):
        table = torch.addmm(squares, part, points.T, alpha=-2).add_(part.square().sum(1, keepdim=True)).clamp_(min=0)
        answers.append(table.topk(k, largest=False) if k > 1 else table.min(1, keepdim=True))
    return torch.cat([a[0] for a in answers]).sqrt(), torch.cat([a[1] for a in answers])


def seconds(call: Callable[[], Answer]) -> tuple[float, Answer]:
    """Return the least processor time of five calls, and the answer."""
    took = []
    for _ in range(5):
        started = time.process_time()
        answer = call()
        took.append(time.process_time() - started)
    return min(took), answer


def compare(name: str, queries: Tensor, points: Tensor, k: int) -> None:
    """Print one case."""
    started = time.process_time()
    bank = NeighbourIndex(points)
    built = time.process_time() - started
    plain = NeighbourIndex(points, components=0)
    brute_force, theirs = seconds(lambda: brute(queries, points, k))
    not_reduced, _ = seconds(lambda: plain.nearest(queries, k))
    reduced, ours = seconds(lambda: bank.nearest(queries, k))
    error = float((ours[0] - theirs[0]).abs().max())
    same = float((ours[1] == theirs[1]).float().mean())
    kind = "with reduced points" if bank.reduced is not None else "no reduced points at this size"
    print(f"{name}: {len(queries)} queries, bank {tuple(points.shape)}, k = {k}")
    print(f"  brute force   {brute_force * 1e3:8.1f} CPU-ms")
    print(f"  not reduced   {not_reduced * 1e3:8.1f} CPU-ms")
    print(f"  index         {reduced * 1e3:8.1f} CPU-ms, {kind}, prepared once in {built * 1e3:.0f}")
    print(
        f"  ratio         {brute_force / reduced:8.2f}, same index {same:.5f}, greatest difference {error:.1e}",
        flush=True,
    )


def drawn(size: int, dim: int, source: torch.Generator, fall: float) -> Tensor:
    """Draw points (N, D), float32; the n-th direction has n to the power of minus ``fall`` of the first's variance."""
    return torch.randn(size, dim, generator=source) * torch.arange(1, dim + 1).pow(-fall / 2)


def main() -> None:
    """Compare on tables given, or on three kinds that are drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", help="the points, saved by numpy.save")
    parser.add_argument("--queries", help="the queries, likewise")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 9])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if (given.bank is None) != (given.queries is None):
        parser.error("--bank and --queries go together")
    source = torch.Generator().manual_seed(0)
    for k in given.k:
        if given.bank:
            compare("tables", *(torch.from_numpy(np.load(f)) for f in (given.queries, given.bank)), k)
            continue
        for fall in (2.0, 1.0, 0.0):
            queries, points = drawn(1024, 1536, source, fall), drawn(10_240, 1536, source, fall)
            compare(f"variance 1 / n^{fall:g}", queries, points, k)


if __name__ == "__main__":
    main()
