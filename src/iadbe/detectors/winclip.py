"""CLIP is asked, window by window, whether an image looks more like a flawless part or like a damaged one.

Paper: Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR 2023, 2303.14814. Seven
    flawless and four damaged states in 22 sentences each, averaged; the image, and all windows of 2 x 2 and 3 x 3
    patches, seen by themselves, are compared with both; a patch has the harmonic mean of the windows over it, a map
    the harmonic mean of the scales. With normal images (WinCLIP+) every patch and window is compared with theirs,
    too: half the least cosine distance, averaged over patches and scales; map and score are the means of both answers.
Differs: patches are the last block's tokens before the projection; embeddings of sentences have length 1 before they
    are averaged. Images are square views, resized to the model's own size. The part's name is its category, in which
    underscores become blanks; where an image has none it is an object.
Numbers: ViT-B/16+ 240 (LAION-400M), image and pixel AUROC without an image: 91.8 and 85.1 on MVTec AD, 78.1 and 79.6
    on VisA; with one: 93.1 and 95.2, 83.8 and 96.4. Not measured here.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig, Missing, UnknownName, did_you_mean
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.memory_bank.nearest_neighbours import NeighbourIndex
from iadbe.networks.backbone import network_is_there
from iadbe.types import Prediction

try:
    import open_clip
    from open_clip.transformer import VisionTransformer
except ImportError as absent:
    raise Missing("the detector winclip needs open_clip. Bring it with: pip install 'iadbe[clip]'") from absent

FLAWLESS = (
    *("{}", "flawless {}", "perfect {}", "unblemished {}"),
    *("{} without flaw", "{} without defect", "{} without damage"),
)
DAMAGED = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
KINDS = ("cropped", "close-up", "bright", "dark", "jpeg corrupted", "blurry")  # of photos
PURPOSES = ("visual inspection", "anomaly detection")
TAG = "laion400m_e32"
CACHE = "~/.cache/clip"  # where open_clip keeps what it has downloaded
BATCH = 4  # images at a time: each has hundreds of windows
LEAST = 1e-6  # of a score in a harmonic mean


class WinCLIP(Detector):
    """Window-based CLIP, with or without normal images."""

    paper = "Jeong et al., WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation, CVPR 2023, arXiv 2303.14814"
    year = 2023
    kind = "vision-language"
    can = frozenset({"localise", "merge", "zero-shot"})
    paper_view = {"resize": 240}
    paper_params = {}

    def __init__(
        self,
        model: str = "ViT-B-16-plus-240",
        weights: str = "auto",
        name: str = "",
        windows: tuple[int, ...] = (2, 3),
        temperature: float = 0.07,
        sigma: float = 0.0,
    ) -> None:
        """Choose CLIP, and what it is asked.

        Args:
            model: a vision transformer of open_clip, by its name there
            weights: a file, none (random), one of open_clip's tags for the model, or auto: laion400m_e32
            name: what the part is called in the sentences; empty: its category
            windows: widths, in patches, of the windows that are seen by themselves
            temperature: by which cosines are divided before the softmax; 0.07 is where CLIP's training began
            sigma: smoothing of the map, pixels
        """
        super().__init__()
        if temperature <= 0:
            raise BadConfig(f"temperature must be above 0, not {temperature}.")
        self.clip = _clip(model, weights)
        self.model, self.name, self.windows, self.temperature, self.sigma = model, name, windows, temperature, sigma
        self.grid = int(self.clip.visual.grid_size[0])
        if not all(1 <= width <= self.grid for width in windows):
            raise BadConfig(f"windows are 1 to {self.grid} patches of {model} wide, not {list(windows)}.")
        self.register_buffer("mean", torch.tensor(self.clip.visual.image_mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(self.clip.visual.image_std).view(1, 3, 1, 1))
        for scale in range(len(windows) + 1):
            self.register_buffer(f"known{scale}", torch.empty(0))  # (M, D) of length 1: of patches, then of windows
        self._banks: list[NeighbourIndex] = []  # made of these when they are first asked
        self._asked: dict[str, Tensor] = {}  # what CLIP makes of the sentences about a part: (2, D)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train, found = train.normal(), []
        for batch in train.batches(BATCH):
            _, patches, windows = self._seen(batch)
            found.append([rows.flatten(0, 1) for rows in (patches, *windows)])
            progress.report("features", min(len(found) * BATCH, len(train)), len(train))
        for scale, parts in enumerate(zip(*found, strict=True)):
            setattr(self, f"known{scale}", torch.cat(parts))

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        whole, patches, windows = self._seen(batch)
        about = torch.stack([self._about(name) for name in self._names(batch)])  # (B, 2, D)
        score = self._damaged(whole[:, None], about)  # (B, 1)
        maps = [score.view(-1, 1, 1).expand(-1, self.grid, self.grid)]
        maps += [spread(self._damaged(w, about), width) for w, width in zip(windows, self.windows, strict=True)]
        found = harmonic(torch.stack(maps))
        score = score[:, 0]
        if len(self.known0):
            unlike = self._unlike([patches, *windows])
            score, found = (score + unlike.amax((1, 2))) / 2, (found + unlike) / 2
        return Prediction(score, upsampled(found, batch.image.shape[-2:], self.sigma))

    def merge(self, others: Sequence[Self]) -> None:
        """Put the clients' normal patches and windows together."""
        for scale in range(len(self.windows) + 1):
            setattr(self, f"known{scale}", torch.cat([getattr(o, f"known{scale}") for o in others]))

    def weights(self) -> str:
        """Return the model and the fingerprint of its weights."""
        digest = hashlib.blake2b(digest_size=8)
        for key, value in sorted(self.clip.state_dict().items()):
            digest.update(key.encode() + value.detach().cpu().numpy().tobytes())
        return f"{self.model}: {digest.hexdigest()} from open_clip"

    def _names(self, batch: Batch) -> list[str]:
        names = [self.name] * len(batch) if self.name else batch.category or [""] * len(batch)
        return [name.replace("_", " ").strip() or "object" for name in names]

    def _about(self, name: str) -> Tensor:
        """Return what a flawless and a damaged part of this name look like: (2, D) of length 1."""
        where = self.clip.text_projection.device
        if name not in self._asked:
            both = [F.normalize(self._read(s), dim=1).mean(0) for s in (sentences(name, FLAWLESS), sentences(name))]
            self._asked[name] = F.normalize(torch.stack(both), dim=1)
        return self._asked[name].to(where)

    @torch.no_grad()
    def _read(self, texts: Sequence[str]) -> Tensor:
        """Return CLIP's embeddings of texts (T, D); nothing is computed behind the longest one's end."""
        clip = self.clip
        tokens = open_clip.get_tokenizer(self.model)(list(texts)).to(clip.text_projection.device)
        ends = tokens.argmax(1)  # the sign of the end has the largest number
        length = int(ends.max()) + 1
        x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
        return x[torch.arange(len(x), device=x.device), ends] @ clip.text_projection

    @torch.no_grad()
    def _seen(self, batch: Batch) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return what CLIP sees: (B, D) of the image, (B, P, C) of its patches, (B, W, D) of windows, of length 1."""
        visual = self.clip.visual.eval()
        size = list(visual.image_size)
        image = batch.image
        if list(image.shape[-2:]) != size:
            image = F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        patches = visual.conv1((image - self.mean) / self.std).flatten(2).mT  # (B, P, C)
        first = visual.class_embedding.expand(len(patches), 1, -1)
        tokens = visual.ln_pre(torch.cat([first, patches], 1) + visual.positional_embedding)
        out = visual.ln_post(visual.transformer(tokens))
        seen = []
        for width in self.windows:
            place = F.unfold(torch.arange(1.0, self.grid**2 + 1).view(1, 1, self.grid, self.grid), width)
            place = F.pad(place[0].T.long(), (1, 0)).to(tokens.device)  # (W, 1 + width²), the class token first
            inside = tokens[:, place].flatten(0, 1)
            some = torch.cat([visual.transformer(part)[:, 0] for part in inside.split(1024)])
            seen.append(F.normalize(visual.ln_post(some) @ visual.proj, dim=1).view(len(image), len(place), -1))
        return F.normalize(out[:, 0] @ visual.proj, dim=1), F.normalize(out[:, 1:], dim=2), seen

    def _damaged(self, seen: Tensor, about: Tensor) -> Tensor:
        """Return how probably (B, W, D) are damaged rather than flawless: (B, W)."""
        return (seen @ about.mT / self.temperature).softmax(2)[..., 1]

    def _unlike(self, seen: list[Tensor]) -> Tensor:
        """Return how far the patches and windows of images are from all known ones, for each patch: (B, g, g)."""
        if not self._banks or self._banks[0].points.data_ptr() != self.known0.data_ptr():
            self._banks = [NeighbourIndex(getattr(self, f"known{scale}")) for scale in range(len(seen))]
        maps = []
        for rows, bank, width in zip(seen, self._banks, (1, *self.windows), strict=True):
            distance = bank.nearest(rows.flatten(0, 1))[0].view(rows.shape[:2])
            maps.append(spread(distance.square() / 4, width))  # half of 1 - cos, for rows of length 1
        return torch.stack(maps).mean(0)


def sentences(name: str, states: Sequence[str] = DAMAGED) -> list[str]:
    """Return all sentences about a part in these states."""
    photos = [f"a {kind} photo of {article} {{}}." for kind in KINDS for article in ("a", "the")]
    photos += [f"a photo of {article}{size} {{}}." for size in ("", " small", " large") for article in ("a", "the")]
    photos += [f"a photo of {article} {{}} for {purpose}." for purpose in PURPOSES for article in ("a", "the")]
    return [photo.format(state.format(name)) for state in states for photo in photos]


def spread(scores: Tensor, width: int) -> Tensor:
    """Give each patch the harmonic mean of the windows (B, W) of ``width`` patches over it: (B, g, g)."""
    side = round(scores.shape[1] ** 0.5)
    kernel = scores.new_ones(1, 1, width, width)
    inverse = 1 / scores.clamp(min=LEAST).view(-1, 1, side, side)
    over = F.conv_transpose2d(torch.ones_like(inverse), kernel)
    return (over / F.conv_transpose2d(inverse, kernel))[:, 0]


def harmonic(maps: Tensor) -> Tensor:
    """Return the harmonic mean of maps (S, B, g, g): (B, g, g)."""
    return len(maps) / (1 / maps.clamp(min=LEAST)).sum(0)


def _clip(model: str, weights: str) -> nn.Module:
    """Make CLIP with weights from a file, or from open_clip's cache or home; none: random, but always the same."""
    if model not in open_clip.list_models():
        raise UnknownName(f"open_clip has no model {model!r}.{did_you_mean(model, open_clip.list_models())}")
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(0)
        made = open_clip.create_model(model, pretrained=None, precision="fp32")
    visual = getattr(made, "visual", None)
    usual = isinstance(visual, VisionTransformer) and visual.pool_type == "tok" and visual.attn_pool is None
    if not usual or getattr(made, "text_pool_type", "") != "argmax" or visual.proj is None:
        raise BadConfig(f"{model} is not a plain CLIP with a vision transformer. Take one such as ViT-B-16.")
    if weights != "none":
        file = Path(weights).expanduser()
        _fill(made, file if file.is_file() else _fetched(model, weights))
    return made.requires_grad_(False).eval()


def _fetched(model: str, weights: str) -> Path:
    """Return the file of one of open_clip's tags, downloaded if need be."""
    tags = open_clip.list_pretrained_tags_by_model(model)
    tag = TAG if weights in ("", "auto") else weights
    if tag not in tags:
        raise BadConfig(f"{model} has no weights {tag!r}. weights= takes a file, none or one of: {', '.join(tags)}.")
    config = open_clip.get_pretrained_cfg(model, tag)
    kept = Path(CACHE).expanduser() / str(config.get("url", "")).rpartition("/")[2]
    if kept.is_file():
        return kept
    try:
        if network_is_there():
            return Path(open_clip.download_pretrained(config, prefer_hf_hub=False))
    except (OSError, RuntimeError):
        pass
    raise Missing(
        f"the weights {tag} of {model} are not on this machine and cannot be downloaded. Get "
        f"{config.get('url') or config.get('hf_hub')} and give the file as weights=FILE."
    )


def _fill(clip: nn.Module, file: Path) -> None:
    """Load weights; nothing is ever unpickled but tensors."""
    try:
        open_clip.load_checkpoint(clip, str(file), weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise BadConfig(f"{file} cannot be read as weights of this CLIP ({type(error).__name__}).") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Let nobody be warned that weights are random: they are filled in, or were asked for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
