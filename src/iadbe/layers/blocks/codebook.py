"""A codebook that replaces feature vectors by their nearest code, learnt by moving averages.

Paper: van den Oord et al., "Neural Discrete Representation Learning" (VQ-VAE), NeurIPS 2017, 1711.00937: the codes are
    moving averages of the vectors that they replace (appendix A.1), and the gradient is passed straight through.
    Dhariwal et al., "Jukebox", 2020, 2005.00341, section 3.1: a code that is hardly used becomes a vector of the
    present batch, drawn at random.
Differs:
    * So does every code before the first update. Normal codes, of another scale than the features, would mostly never
      be the nearest one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.layers.features.row_chunks import row_chunks

COMMITMENT = 0.25  # β of the paper's loss
EPSILON = 1e-5  # of the Laplace smoothing of the codes' sizes
UNUSED = 0.1  # share of a code's fair share of the vectors, below which it is replaced; it starts again with twice that
CHUNK = 2**18  # distances that are computed at once: as many as a cache holds


class Codebook(nn.Module):
    """K codes of D channels."""

    codes: Tensor
    sizes: Tensor
    sums: Tensor
    started: Tensor

    def __init__(self, count: int, channels: int, decay: float = 0.99) -> None:
        """Draw codes from a normal distribution, with torch's global generator.

        Args:
            count: number K of codes
            channels: of a code
            decay: of the moving averages
        """
        super().__init__()
        self.decay = decay
        self.register_buffer("codes", torch.randn(count, channels))
        self.register_buffer("sizes", torch.zeros(count))  # N of the paper
        self.register_buffer("sums", torch.randn(count, channels))  # m of the paper
        self.register_buffer("started", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, D, h, w) with each vector replaced by its nearest code; the gradient is that of x."""
        quantised = F.embedding(self.nearest(x), self.codes).permute(0, 3, 1, 2)
        return x + (quantised - x).detach()

    def nearest(self, x: Tensor) -> Tensor:
        """Return the number of the nearest code at each position (B, h, w), int64, given x (B, D, h, w)."""
        rows = x.detach().permute(0, 2, 3, 1).flatten(0, 2).to(self.codes)  # in full precision
        parts = row_chunks(rows, max(1, CHUNK // len(self.codes)))
        return torch.cat([self.distances(part).argmin(1) for part in parts]).view(-1, *x.shape[2:])

    def distances(self, rows: Tensor) -> Tensor:
        """Return squared distances (N, K) of rows (N, D) from the codes, less the rows' own squared lengths."""
        return torch.addmm(self.codes.square().sum(1), rows, self.codes.T, alpha=-2)

    def learn(self, x: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Quantise x (B, D, h, w) and move the codes towards it; return the result and the commitment loss ().

        ``source``, on the CPU, draws new codes.
        """
        rows = x.detach().permute(0, 2, 3, 1).flatten(0, 2).to(self.codes)  # in full precision
        fair = len(rows) / len(self.codes)
        unused = (self.sizes < UNUSED * fair) | ~self.started
        drawn = torch.randint(len(rows), (len(self.codes),), generator=source).to(rows.device)
        self.codes = torch.where(unused[:, None], rows[drawn], self.codes)
        self.sizes = torch.where(unused, 2 * UNUSED * fair, self.sizes)
        self.sums = torch.where(unused[:, None], self.codes * self.sizes[:, None], self.sums)
        self.started = torch.ones_like(self.started)
        numbers = self.nearest(x)
        quantised = F.embedding(numbers, self.codes).permute(0, 3, 1, 2)
        commitment = COMMITMENT * F.mse_loss(x, quantised)
        self._move(rows, numbers.flatten())
        return x + (quantised - x).detach(), commitment

    def _move(self, rows: Tensor, numbers: Tensor) -> None:
        """Update the moving averages with rows (N, D) and the numbers (N,) of their codes."""
        count = len(self.codes)
        sizes = torch.bincount(numbers, minlength=count).to(rows)
        sizes = self.sizes * self.decay + (1 - self.decay) * sizes
        total = sizes.sum()
        self.sizes = (sizes + EPSILON) / (total + count * EPSILON) * total
        sums = torch.zeros_like(self.sums).index_add_(0, numbers, rows)
        self.sums = self.sums * self.decay + (1 - self.decay) * sums
        self.codes = self.sums / self.sizes[:, None]
