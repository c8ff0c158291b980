"""Distillation of a patch description network (PDN) from a backbone, on any images: EfficientAD's teacher.

Paper: Batzner et al., "EfficientAD", WACV 2024, arXiv:2303.14535, section 3.1 and algorithm 3 of its appendix. The
    target of a position is the backbone's patch embedding (PatchCore's: neighbourhoods of 3 x 3 of two layers, pooled
    to 1024 values each, then together to 384), for an image of twice the size; each channel is scaled to mean 0 and
    deviation 1 over the images. The loss is the mean squared difference.
Differs:
    * The PDN has no padding, as where it is used, so the four outermost targets at each side are left out.
    * A step may take a random square of positions of each view (``crop``): more views per step for the same cost.
    * A pool of views: the whole images first, then random squares of them, mirrored, turned and recoloured.
    * A cosine schedule of the learning rate by choice, and bfloat16.

The backbone sees each view once; what it saw is kept in memory up to a budget, and in the feature store where one is
open. A checkpoint beside the weight file holds the state, and the batch of a step follows from the seed and its number,
so an interrupted distillation continues as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from iadbe import progress, system
from iadbe.data.images import Batch
from iadbe.errors import BadConfig
from iadbe.files import image_io
from iadbe.layers.blocks.pdn import BORDER, FIELD, PDN, STRIDE, Size
from iadbe.layers.synthetic.photometric import CHANGES, grey
from iadbe.layers.synthetic.textures import procedural_textures
from iadbe.networks.backbone import Backbone

POOLED = 1024  # values to which the neighbourhood of a layer is pooled
NEIGHBOURHOOD = 3  # its side
GREY = 0.1  # share of the images that lose their colour
LEAST_SHARE = 0.25  # of an image's shorter side: the smallest square
STATISTICS = 10_000  # images over which the mean and the deviation of a channel are computed
CHUNK = 8  # views that go through the backbone at a time
CHECKPOINT_SECONDS = 60.0
RECENT = 100  # steps whose mean loss is reported


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a PDN is distilled. The defaults are the paper's."""

    size: Size = "S"
    width: int = 384  # channels of a descriptor
    steps: int = 60_000
    batch: int = 16  # views per step
    side: int = 256  # height and width of a view, in pixels
    crop: int = 0  # positions along each side of the square that a step takes of a view; 0: the whole view
    views: int = 0  # number of views; 0: each image once
    learning_rate: float = 1e-4  # of Adam with weight decay 1e-5
    schedule: Literal["constant", "cosine"] = "constant"
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.width, self.steps, self.batch) < 1 or self.learning_rate <= 0 or min(self.crop, self.views) < 0:
            raise BadConfig("width, steps, batch and learning_rate must be above 0, crop and views at least 0.")
        if self.side % 32 or self.side < 64:
            raise BadConfig(f"the side of a view is a multiple of 32 and at least 64, not {self.side}.")
        if self.crop > self.positions:
            raise BadConfig(
                f"a view of {self.side} pixels has {self.positions} positions along a side, not {self.crop}."
            )

    @property
    def positions(self) -> int:
        """Positions along each side of a view."""
        return self.side // STRIDE - 2 * BORDER


class ViewPool:
    """A fixed number of views of the images in a folder, or of drawn textures; a view follows from its number."""

    def __init__(self, folder: str, count: int, side: int, seed: int) -> None:
        """List the images.

        Args:
            folder: of images, searched at any depth; "": textures are drawn
            count: number of views; 0: each image once, whole
            side: height and width of a view, in pixels
            seed: of what is drawn
        """
        self.side, self.seed = side, seed
        root = Path(folder).expanduser()
        self.files = sorted(p for p in root.rglob("*") if p.is_file() and image_io.is_image(p)) if folder else []
        if folder and not self.files:
            raise BadConfig(f"there is no image in {folder}.")
        self.count = count or len(self.files) or STATISTICS

    def __len__(self) -> int:
        return self.count

    @property
    def description(self) -> str:
        """What the views show, and a digest of the files' content."""
        if not self.files:
            return "drawn textures"
        digest = hashlib.blake2b(digest_size=8)
        for file in self.files:
            digest.update(hashlib.blake2b(file.read_bytes()).digest())
        return f"{len(self.files)} images, {digest.hexdigest()}"

    def __getitem__(self, number: int) -> Tensor:
        """Return view ``number``: (3, side, side) uint8."""
        rng = np.random.default_rng([self.seed, 0, number])
        source = torch.Generator().manual_seed(int(rng.integers(2**63)))
        if not self.files:
            view = procedural_textures(1, self.side, self.side, source)
        else:
            pixels = image_io.read_rgb(self.files[number % len(self.files)])
            whole = number < len(self.files)
            pixels = image_io.resized(pixels if whole else _square(pixels, rng), self.side, self.side)
            view = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
            view = view if whole else _recoloured(view, rng)
        if rng.random() < GREY:
            view = grey(view).expand(-1, 3, -1, -1)
        return (view[0] * 255).round().to(torch.uint8)


def _square(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random square of an image (H, W, 3), mirrored and turned at random."""
    height, width = pixels.shape[:2]
    side = max(1, round(min(height, width) * rng.uniform(LEAST_SHARE, 1)))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    part = np.rot90(pixels[top : top + side, left : left + side], int(rng.integers(4)))
    return np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part)


def _recoloured(view: Tensor, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast and saturation of (1, 3, H, W) by up to 40 %, and exchange channels of some views."""
    for number in rng.permutation(len(CHANGES)):
        view = CHANGES[number](view, torch.tensor(rng.uniform(0.6, 1.4), dtype=torch.float32).view(1, 1, 1, 1))
    return view[:, rng.permutation(3).tolist()] if rng.random() < 0.2 else view


class PatchTarget:
    """PatchCore's patch embedding of two or more layers, as one convolution per layer.

    Neighbourhoods are pooled linearly, and interpolation commutes with a product over channels, so the embedding of a
    layer is a convolution of 3 x 3 with fixed weights, interpolated to the grid; the layers' embeddings are added.
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        """Compute the weights for layers with these numbers of channels and descriptors of ``dim`` values."""
        area = NEIGHBOURHOOD**2
        together = F.adaptive_avg_pool1d(torch.eye(len(channels) * POOLED)[None], dim)[0].T  # (dim, layers * POOLED)
        self.weights = []
        for count, share in zip(channels, together.split(POOLED, 1), strict=True):
            pooling = F.adaptive_avg_pool1d(torch.eye(count * area)[None], POOLED)[0].T  # (POOLED, count * area)
            self.weights.append((share @ pooling).view(dim, count, NEIGHBOURHOOD, NEIGHBOURHOOD))

    def __call__(self, layers: Sequence[Tensor], grid: int) -> Tensor:
        """Return the embedding (B, D, grid, grid) of layers [(B, C, h, w), …]."""
        parts = [
            F.interpolate(
                F.conv2d(layer, weight.to(layer), padding=NEIGHBOURHOOD // 2),
                (grid, grid),
                mode="bilinear",
                align_corners=False,
            )
            for layer, weight in zip(layers, self.weights, strict=True)
        ]
        return torch.stack(parts).sum(0)


class Distillation:
    """A PDN that learns a backbone's patch embedding; :meth:`run` trains it and writes its weight file."""

    def __init__(self, backbone: Backbone, images: str, recipe: Recipe, file: Path, budget: int = 2**31) -> None:
        """Prepare.

        Args:
            backbone: the source network, on the device that is to be used
            images: a folder of images; "": textures are drawn
            recipe: network, steps and images per step
            file: where the weights are written, with the suffix .safetensors
            budget: bytes of memory for views and their targets; what does not fit is computed again
        """
        if file.suffix != ".safetensors":
            raise BadConfig(f"a teacher is written as .safetensors, not {file.name}.")
        if file.parent.is_dir() and not system.is_writable(file.parent):
            raise BadConfig(f"{file.parent} is read-only. Give another file with --out FILE.")
        self.backbone, self.recipe, self.file, self.budget = backbone, recipe, file, budget
        self.device = backbone.mean.device
        self.grid = recipe.side // STRIDE
        self.pool = ViewPool(images, recipe.views, self.grid * backbone.strides[0], recipe.seed)
        self.target = PatchTarget(backbone.channels, recipe.width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.network = PDN(recipe.size, recipe.width).to(self.device).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), recipe.learning_rate, weight_decay=1e-5)
        self.mean = self.deviation = torch.empty(0)
        self.done, self.seconds = 0, 0.0  # steps, and the time that they took
        self.losses: list[float] = []  # of the last steps
        self._views: dict[int, tuple[Tensor, Tensor]] = {}  # number -> view (3, S, S) uint8, target (D, g, g) half
        self._bytes = 0

    @property
    def checkpoint(self) -> Path:
        """The file that an interrupted distillation continues from."""
        return self.file.with_suffix(".partial.safetensors")

    def run(self) -> dict[str, Any]:
        """Distil, from the checkpoint if there is one; write the weight file and return its card."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.is_file():
            self._resume()
        if not len(self.mean):
            self._fit_statistics()
            self._save_checkpoint()
        began = saved = time.monotonic()
        before = self.seconds
        while self.done < self.recipe.steps:
            self.losses = [*self.losses[1 - RECENT :], self._step(self.done)]
            self.done += 1
            progress.loss(self.losses[-1])
            progress.report("distil", self.done, self.recipe.steps)
            self.seconds = before + time.monotonic() - began
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self._save_checkpoint()
                saved = time.monotonic()
        card = self.card()
        tensors = {name: value.half().contiguous() for name, value in self.network.state_dict().items()}
        tensors |= {"source_mean": self.mean.float(), "source_deviation": self.deviation.float()}
        _write(self.file, tensors, {"card": json.dumps(card)})
        self.file.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        self.checkpoint.unlink(missing_ok=True)
        return card

    def card(self) -> dict[str, Any]:
        """Return what the weight file says of itself."""
        return {
            "what": f"PDN of EfficientAD, size {self.recipe.size}, width {self.recipe.width}, in half precision",
            **self._identity(),
            "steps_done": self.done,
            "seconds": round(self.seconds),
            "loss": round(float(np.mean(self.losses)), 4) if self.losses else None,
            "loss_is": f"mean squared difference to the scaled embedding (a constant has 1), last {RECENT} steps",
        }

    def _identity(self) -> dict[str, Any]:
        """Return all that the result follows from."""
        source: dict[str, Any] = {"network": self.backbone.name, "fingerprint": self.backbone.fingerprint}
        source |= {"layers": list(self.backbone.layers), "image_side": self.pool.side}
        return {"source": source, "images": self.pool.description, "views": len(self.pool), **asdict(self.recipe)}

    def _fit_statistics(self) -> None:
        """Compute the mean and the deviation of each channel of the target over the first views."""
        count = min(len(self.pool), STATISTICS)
        total = square = torch.zeros(self.recipe.width, dtype=torch.float64)
        for start in range(0, count, CHUNK):
            for _, target in self._seen(range(start, min(start + CHUNK, count))):
                values = target.cpu().double()
                total = total + values.mean((1, 2))
                square = square + values.square().mean((1, 2))
            progress.report("targets", min(start + CHUNK, count), count)
        self.mean = total / count
        self.deviation = (square / count - self.mean.square()).clamp(min=1e-12).sqrt()

    def _step(self, number: int) -> float:
        """Take one optimisation step and return its loss."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, 1, number])
        side = recipe.crop or recipe.positions
        pairs = []
        for view, target in self._seen(self._drawn(number)):
            top, left = rng.integers(recipe.positions - side + 1, size=2).tolist()
            pixels = STRIDE * (side - 1) + FIELD
            shown = view[:, STRIDE * top :, STRIDE * left :][:, :pixels, :pixels]
            inner = target[:, BORDER + top :, BORDER + left :][:, :side, :side]
            pairs.append((shown, inner))
        image = torch.stack([p[0] for p in pairs]).to(self.device).float() / 255
        wanted = torch.stack([p[1] for p in pairs]).to(self.device).float()
        mean, deviation = (v.to(wanted).view(1, -1, 1, 1) for v in (self.mean, self.deviation))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * self._rate(number)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            found = self.network(image)
        loss = F.mse_loss(found.float(), (wanted - mean) / deviation)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def _rate(self, number: int) -> float:
        """Return the factor on the learning rate at a step."""
        if self.recipe.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * number / self.recipe.steps))

    def _drawn(self, step: int) -> list[int]:
        """Return the numbers of a step's views: every epoch shows all views once, in random order."""
        places = range(step * self.recipe.batch, (step + 1) * self.recipe.batch)
        orders: dict[int, np.ndarray] = {}
        found = []
        for epoch, place in (divmod(p, len(self.pool)) for p in places):
            if epoch not in orders:
                orders[epoch] = np.random.default_rng([self.recipe.seed, 2, epoch]).permutation(len(self.pool))
            found.append(int(orders[epoch][place]))
        return found

    def _seen(self, numbers: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return views (3, side, side) uint8 and their unscaled targets (D, g, g) in half precision."""
        found = {n: self._views[n] for n in numbers if n in self._views}
        missing = [n for n in dict.fromkeys(numbers) if n not in found]
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            pixels = torch.stack([self.pool[n] for n in chunk])
            keys = tuple(hashlib.blake2b(p.numpy().tobytes(), digest_size=16).hexdigest() for p in pixels)
            image = pixels.to(self.device).float() / 255
            targets = self.target(self.backbone(Batch(image, keys=keys)), self.grid).half().cpu()
            side = self.recipe.side
            small = F.interpolate(image, (side, side), mode="bilinear", align_corners=False, antialias=True)
            small = (small * 255).round().clamp(0, 255).to(torch.uint8).cpu()
            for number, row in zip(chunk, zip(small, targets, strict=True), strict=True):
                found[number] = row[0].clone(), row[1].clone()
                size = sum(r.numel() * r.element_size() for r in row)
                if self._bytes + size <= self.budget:
                    self._views[number] = found[number]
                    self._bytes += size
        return [found[n] for n in numbers]

    def _save_checkpoint(self) -> None:
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
        tensors |= {"mean": self.mean, "deviation": self.deviation}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        about = {"identity": json.dumps(self._identity()), "done": str(self.done), "seconds": str(self.seconds)}
        _write(self.checkpoint, {name: value.contiguous() for name, value in tensors.items()}, about)

    def _resume(self) -> None:
        """Take the state of the checkpoint."""
        try:
            with safe_open(self.checkpoint, "pt") as file:
                about = file.metadata() or {}
                # copies, because the file is replaced, which Windows refuses while it is mapped to memory
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (no mapping)
        except (SafetensorError, OSError) as error:
            raise BadConfig(f"{self.checkpoint} is damaged. Delete it to start anew.") from error
        if about.get("identity") != json.dumps(self._identity()):
            raise BadConfig(
                f"{self.checkpoint} is of another distillation (network, images or options). Repeat its command, "
                "or delete the file to start anew."
            )
        self.done, self.seconds = int(about["done"]), float(about["seconds"])
        self.mean, self.deviation = tensors["mean"], tensors["deviation"]
        self.losses = tensors["losses"].tolist()
        self.network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k[:8] == "network."})
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, kind = name.split(".")
                state.setdefault(int(number), {})[kind] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def _write(file: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a file whole or not at all."""
    with system.replacing(file) as part:
        save_file({name: value.cpu() for name, value in tensors.items()}, part, metadata)
