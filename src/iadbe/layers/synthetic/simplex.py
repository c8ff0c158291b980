"""Simplex noise in three dimensions, and octaves of it.

Paper: Perlin, "Noise hardware", SIGGRAPH course notes 2001; Gustavson, "Simplex noise demystified", 2005 (the
    coefficients). RD++ (Tien et al., CVPR 2023) and AnoDDPM (Wyatt et al., 2022) add its octaves to images.
Differs:
    * RD++ takes OpenSimplex noise, which differs in the lattice only.

Results are on the device of ``generator`` and follow from it alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

SKEW, UNSKEW = 1 / 3, 1 / 6  # between the grid of cubes and that of tetrahedra
REACH = 0.6  # squared distance at which a corner has no effect any more
SCALE = 32.0  # brings the noise to about -1 to 1
TABLE = 256  # length of the table of random numbers, and period of the noise
# from the middle of a cube to the middles of its edges
GRADIENTS = [(x, y, 0) for x in (1, -1) for y in (1, -1)]
GRADIENTS += [(x, 0, z) for x in (1, -1) for z in (1, -1)] + [(0, y, z) for y in (1, -1) for z in (1, -1)]


def simplex_noise(place: Tensor, table: Tensor) -> Tensor:
    """Return noise, about between -1 and 1, at places in space.

    Args:
        place: coordinates (B, N, 3)
        table: a permutation of 0 to 255 for each of B independent noises (B, 256)

    Returns:
        (B, N)
    """
    cell = (place + place.sum(-1, keepdim=True) * SKEW).floor()
    first = place - (cell - cell.sum(-1, keepdim=True) * UNSKEW)  # from the tetrahedra's common corner
    x, y, z = first.unbind(-1)
    # in the order of their size, the coordinates lead from corner to corner
    rank = torch.stack(
        [(x >= y).int() + (x >= z).int(), (y > x).int() + (y >= z).int(), (z > x).int() + (z > y).int()], -1
    )
    total = torch.zeros_like(x)
    for number in range(4):
        corner = (rank >= 3 - number).to(place)
        offset = first - corner + number * UNSKEW
        fade = (REACH - offset.square().sum(-1)).clamp(min=0) ** 4
        total = total + fade * (_gradients((cell + corner).long(), table) * offset).sum(-1)
    return SCALE * total


def simplex_octaves(
    count: int,
    shape: tuple[int, int, int],
    generator: torch.Generator,
    octaves: int = 6,
    persistence: float = 0.6,
    frequency: float = 32.0,
) -> Tensor:
    """Return sums of simplex noise (count, *shape) whose grid is halved from octave to octave.

    Args:
        count: number of independent blocks of noise
        shape: of a block, in pixels
        generator: draws the noise
        octaves: number of noises in a sum
        persistence: amplitude of an octave, relative to the one before; the first has 1
        frequency: pixels per unit of the first octave
    """
    device = generator.device
    table = torch.rand(count, TABLE, generator=generator, device=device).argsort(1)
    axes = [torch.arange(side, device=device, dtype=torch.float32) for side in shape]
    depth, down, across = torch.meshgrid(*axes, indexing="ij")
    place = torch.stack([across, down, depth], -1).view(1, -1, 3).expand(count, -1, -1)
    total = torch.zeros(count, place.shape[1], device=device)
    for octave in range(octaves):
        total = total + persistence**octave * simplex_noise(place * (2**octave / frequency), table)
    return total.view(count, *shape)


def _gradients(corner: Tensor, table: Tensor) -> Tensor:
    """Return the gradients (B, N, 3) of corners (B, N, 3) of the lattice."""
    x, y, z = (corner % TABLE).unbind(-1)
    index = table.gather(1, z)
    index = table.gather(1, (y + index) % TABLE)
    index = table.gather(1, (x + index) % TABLE)
    return torch.tensor(GRADIENTS, dtype=torch.float32, device=table.device)[index % len(GRADIENTS)]
