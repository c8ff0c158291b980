"""The U-Net of diffusion models: residual blocks with group norms, given the time, and attention on coarse grids.

Paper: Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", NeurIPS 2021, 2105.05233 (ADM, whose blocks
    halve and double the grid), after Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020, 2006.11239.
    RealNet (Zhang et al., CVPR 2024, 2403.05897) reconstructs features with it, without a time.
Differs:
    * A group norm has 32 groups, or fewer where a group would have less than four channels.
    * Any grid is taken: an odd side is halved with rounding up, and doubled to the size that it had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32
STAGES = 3  # of the decoder at each scale; the encoder has two, and what it gives to the next scale
PERIOD = 10_000.0  # longest wavelength of the time's sinusoids, over 2π
Resize = Literal["halve", "keep", "double"]


class DiffusionUNet(nn.Module):
    """Maps (B, inputs, H, W), and times (B,) if it is ``timed``, to (B, outputs, H, W)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        multipliers: Sequence[float],
        attention: Sequence[int],
        heads: int = 4,
        head_channels: int = 0,
        timed: bool = True,
        modulated: bool = False,
    ) -> None:
        """Make the network with random weights; its output is 0 at first.

        Args:
            inputs: channels that come in
            outputs: channels that go out
            width: channels at full size, before ``multipliers``
            multipliers: of the channels at each scale, finest first; the grid is halved between scales
            attention: factors by which the grid is coarser than the input where positions attend to each other
            heads: of the attention, if ``head_channels`` is 0
            head_channels: channels of each head; the number of heads follows from it
            timed: whether it is given a time; without, blocks have one convolution and double with a transposed one
            modulated: whether the time scales and shifts normalised values, instead of being added before
        """
        super().__init__()
        self.width = width
        embedding = 4 * width if timed else 0
        self.time = nn.Sequential()
        if timed:
            self.time.extend([nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)])

        def block(before: int, after: int, resize: Resize = "keep") -> ResidualBlock:
            return ResidualBlock(before, after, embedding, modulated, resize)

        def stage(before: int, after: int, attends: bool) -> _Stage:
            count = max(1, after // head_channels) if head_channels else heads
            return _Stage(block(before, after), Attention(after, count) if attends else None)

        channels = [int(width * multiplier) for multiplier in multipliers]
        before, last = channels[0], len(channels) - 1
        self.first = _convolution(inputs, before)
        seen, self.down, self.up, self.doubling = [before], nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for scale, after in enumerate(channels):
            attends = 2**scale in attention
            self.down.extend([stage(before, after, attends), stage(after, after, attends)])
            seen += [after, after]
            if scale < last:
                self.down.append(_Stage(block(after, after, "halve"), None))
                seen.append(after)
            before = after
        self.middle = nn.ModuleList([stage(before, before, True), stage(before, before, False)])
        for scale in range(last, -1, -1):
            after = channels[scale]
            for _ in range(STAGES):
                self.up.append(stage(before + seen.pop(), after, 2**scale in attention))
                before = after
            if scale:
                self.doubling.append(block(after, after, "double"))
        self.last = nn.Sequential(group_norm(before), nn.SiLU(), _zeroed(_convolution(before, outputs)))

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        if (time is not None) != bool(len(self.time)):
            raise ValueError("a network that is timed takes a time, and no other does")
        embedded = None if time is None else self.time(sinusoids(time, self.width))
        x = self.first(x)
        seen = [x]
        for stage in self.down:
            x = stage(x, embedded)
            seen.append(x)
        for stage in self.middle:
            x = stage(x, embedded)
        for number, stage in enumerate(self.up, 1):
            x = stage(torch.cat([x, seen.pop()], 1), embedded)
            if seen and number % STAGES == 0:
                x = self.doubling[number // STAGES - 1](x, embedded, seen[-1].shape[-2:])
        return self.last(x)


class ResidualBlock(nn.Module):
    """x + f(x), where f is norm, SiLU, convolution and, with a time, the time, norm, SiLU, convolution."""

    def __init__(self, before: int, after: int, embedding: int, modulated: bool = False, resize: Resize = "keep"):
        """Choose the block.

        Args:
            before: channels that come in
            after: channels that go out
            embedding: values of the embedded time; 0: there is none
            modulated: see :class:`DiffusionUNet`
            resize: what happens to the grid, before the first convolution and of x
        """
        super().__init__()
        self.resize, self.modulated = resize, modulated
        self.start = nn.Sequential(group_norm(before), nn.SiLU())
        self.convolution = _convolution(before, after)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        doubled = resize == "double" and not embedding
        self.doubling = nn.ModuleList(nn.ConvTranspose2d(before, before, 4, 2, 1) for _ in range(2 * doubled))
        if embedding:
            self.embedded = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * after if modulated else after))
            self.norm = group_norm(after)
            self.end = nn.Sequential(nn.SiLU(), _zeroed(_convolution(after, after)))

    def forward(self, x: Tensor, embedded: Tensor | None, size: Sequence[int] = ()) -> Tensor:
        """Map (B, before, h, w), with the embedded time (B, embedding), to (B, after, h', w'); ``size`` if doubled."""
        branch = self.convolution(self._resized(self.start(x), 0, size))
        x = self._resized(x, 1, size)
        if embedded is None:
            return self.shortcut(x) + branch
        made = self.embedded(embedded)[:, :, None, None]
        if self.modulated:
            scale, shift = made.chunk(2, 1)
            return self.shortcut(x) + self.end(self.norm(branch) * (1 + scale) + shift)
        return self.shortcut(x) + self.end(self.norm(branch + made))

    def _resized(self, x: Tensor, path: int, size: Sequence[int]) -> Tensor:
        if self.resize == "halve":
            window = [min(2, side) for side in x.shape[2:]]  # OpenVINO takes none that is larger than the grid
            return F.avg_pool2d(x, window, 2, ceil_mode=True)
        if self.resize == "keep":
            return x
        height, width = size
        return (
            self.doubling[path](x)[:, :, :height, :width] if len(self.doubling) else F.interpolate(x, (height, width))
        )


class Attention(nn.Module):
    """x + self-attention between all positions of the grid, (B, C, h, w)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = math.gcd(heads, channels)
        self.norm, self.qkv = group_norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1).reshape(count, height * width, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, N, d)
        found = F.scaled_dot_product_attention(query, key, value).permute(0, 1, 3, 2)
        return x + self.out(found.reshape(count, channels, height, width))


class _Stage(nn.Module):
    """A residual block, and attention behind it."""

    def __init__(self, block: ResidualBlock, attention: Attention | None) -> None:
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, x: Tensor, embedded: Tensor | None) -> Tensor:
        x = self.block(x, embedded)
        return x if self.attention is None else self.attention(x)


def scales(size: int, attention: int = 32) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return ADM's multipliers and factors with attention for images of about ``size`` pixels.

    Positions attend to each other on grids with sides of 32, 16 and 8 cells, but of no more than ``attention``.
    """
    multipliers: tuple[float, ...] = (1, 2, 3, 4)
    for least, more in ((96, (1, 1, 2, 3, 4)), (192, (1, 1, 2, 2, 4, 4)), (384, (0.5, 1, 1, 2, 2, 4, 4))):
        multipliers = more if size >= least else multipliers
    power = 2 ** round(math.log2(size))
    return multipliers, tuple(power // side for side in (32, 16, 8) if min(power, attention) >= side)


def sinusoids(time: Tensor, values: int) -> Tensor:
    """Return cosines and sines (B, values) of times (B,); their wavelengths grow geometrically. ``values`` is even."""
    half = values // 2
    frequency = torch.exp(torch.arange(half, device=time.device) * (-math.log(PERIOD) / half))
    angle = time[:, None].float() * frequency
    return torch.cat([angle.cos(), angle.sin()], 1)


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a group norm of 32 groups, fewer where these would have less than four channels or unequal numbers."""
    return nn.GroupNorm(math.gcd(GROUPS, max(1, channels // 4), channels), channels)


def _convolution(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)


def _zeroed(convolution: nn.Conv2d) -> nn.Conv2d:
    """Set weights and biases to 0, so that a block starts as its shortcut."""
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution
