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
    """An invertible layer; this one is the identity, subclasses override both methods."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (z, log_det) for rows (N, C) or maps (B, C, h, w); log_det is (N,) or (B, h, w)."""
        return x, x.new_zeros(x.shape[:1] + x.shape[2:])

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return x for which ``forward`` gives ``z``."""
        return z


class Flow(InvertibleLayer):
    """A normalizing flow: invertible layers in sequence, on one grid. Every layer gets the same condition."""

    renamed_tensors = {"bricks": "layers"}

    def __init__(self, layers: Iterable[InvertibleLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[:1] + x.shape[2:])
        for layer in self.layers:
            x, more = layer(x, condition)
            log_det = log_det + more
        return x, log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        for layer in reversed(self.layers):
            assert isinstance(layer, InvertibleLayer)
            z = layer.inverse(z, condition)
        return z


def negative_log_likelihood(z: Tensor, log_det: Tensor) -> Tensor:
    """Return ½‖z‖² - log_det for each row or image: (B,).

    This is the negative log-likelihood under a standard Gaussian, without its constant.
    """
    return z.square().sum(tuple(range(1, z.dim()))) / 2 - log_det.reshape(len(z), -1).sum(1)


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """Reshape values of channels (C,) so that they broadcast over rows (N, C) or maps (B, C, h, w)."""
    return values.view(-1, *[1] * (like.dim() - 2))
