"""Invertible layers of normalizing flows, and their composition.

A layer takes rows (N, C) or maps (B, C, h, w). ``forward`` returns (z, log_det) with one value of log_det per row (N,)
or position (B, h, w): summed over the positions of a map it is the logarithm of the absolute Jacobian determinant.
``inverse`` undoes ``forward``. A condition, where one is given, is (N, P) for rows and (1, P, h, w), shared by all
images, for maps; only couplings use it.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn


class InvertibleLayer(nn.Module):
    """Something invertible; without a forward of its own it changes nothing."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(x.shape[:1] + x.shape[2:])

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z


class Flow(InvertibleLayer):
    """Bricks one after the other, on one grid."""

    def __init__(self, bricks: Iterable[InvertibleLayer]) -> None:
        super().__init__()
        self.bricks = nn.ModuleList(bricks)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[:1] + x.shape[2:])
        for brick in self.bricks:
            x, more = brick(x, condition)
            log_det = log_det + more
        return x, log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        for brick in reversed(self.bricks):
            assert isinstance(brick, InvertibleLayer)
            z = brick.inverse(z, condition)
        return z


def negative_log_likelihood(z: Tensor, log_det: Tensor) -> Tensor:
    """Return ½‖z‖² - log_det of each row or image, (B,): a standard Gaussian's, without its constant."""
    return z.square().sum(tuple(range(1, z.dim()))) / 2 - log_det.reshape(len(z), -1).sum(1)  # flat, maps are copied


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """Shape values of channels (C,) so that they go with rows or maps."""
    return values.view(-1, *[1] * (like.dim() - 2))
