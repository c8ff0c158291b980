"""Time the exact greedy coreset against a plain loop: subtract, norm, minimum, once for every centre.

Run: python benchmarks/coreset.py [--full] [--features FILE] [--threads N]

The points are those of a slowly varying scene, a few strong directions and noise, or the rows of a table saved by
``numpy.save``. On the large case the plain loop runs for some centres and is extrapolated; ``--full`` runs it whole.
Processor seconds of all threads are compared, because they hold on a busy machine too.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import Tensor

from iadbe.layers.memory_bank.coreset import greedy_coreset, johnson_lindenstrauss_dim, random_projection


def draw(count: int, dim: int, seed: int = 0) -> Tensor:
    """Draw points (N, D) float32 whose variance falls along their directions, as that of features does."""
    source = torch.Generator().manual_seed(seed)
    strength = torch.arange(1, dim + 1).rsqrt()
    turn = torch.linalg.qr(torch.randn(dim, dim, generator=source))[0]
    return (torch.randn(count, dim, generator=source) * strength) @ turn


def plain(points: Tensor, count: int, start: int = 0) -> Tensor:
    """Choose as the definition says."""
    chosen = [start]
    near = torch.linalg.norm(points - points[start], dim=1)
    while len(chosen) < count:
        chosen.append(int(near.argmax()))
        near = torch.minimum(near, torch.linalg.norm(points - points[chosen[-1]], dim=1))
    return torch.tensor(chosen)


def compare(points: Tensor, count: int, measured: int) -> None:
    """Print one case; the plain loop chooses ``measured`` centres of ``count``."""
    passes: list[int] = []
    started = time.process_time()
    ours = greedy_coreset(points, count, progress=lambda done, _: passes.append(done))
    own = time.process_time() - started

    started = time.process_time()
    theirs = plain(points, measured)
    seconds = (time.process_time() - started) * count / measured

    order = int((ours[:measured] == theirs).sum())
    inside = len(np.intersect1d(ours[:measured].numpy(), theirs.numpy()))
    how = "measured whole" if measured == count else f"from {measured} centres"
    print(f"{len(points)} x {points.shape[1]} to {count} centres")
    print(f"  blocks      {own:9.1f} CPU-s in {len(passes)} passes")
    print(f"  plain loop  {seconds:9.1f} CPU-s, {how}")
    print(f"  ratio       {seconds / own:9.1f}")
    same = "the same set" if inside == measured else f"{inside} of {measured} in common"
    print(f"  first {measured} centres: {same}, {order} of them at the same place", flush=True)


def main() -> None:
    """Compare on a small and a large table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="run the plain loop whole on the large case")
    parser.add_argument("--centres", type=int, default=200, help="centres the plain loop chooses on the large case")
    parser.add_argument("--features", help="a table (N, D) saved by numpy.save, projected first; a tenth is chosen")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.features:
        table = torch.from_numpy(np.load(given.features))
        points = random_projection(table, johnson_lindenstrauss_dim(len(table)), torch.Generator().manual_seed(0))
    else:
        compare(draw(20_000, 128), 2_000, 2_000)
        points = draw(78_400, johnson_lindenstrauss_dim(78_400))
    count = len(points) // 10
    compare(points, count, count if given.full else min(count, given.centres))


if __name__ == "__main__":
    main()
