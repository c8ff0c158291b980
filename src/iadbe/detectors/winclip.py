"""CLIP compares windows with prompts of normal and damaged states; the score is the probability of damage.

Paper: Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR 2023, arXiv:2303.14814.
    Seven normal and four anomalous states in 22 templates each give two mean text embeddings. The image and all windows
    of 2 x 2 and 3 x 3 patches, each encoded separately, are compared with both. A patch has the harmonic mean of the
    windows over it, and the map is the harmonic mean of the scales. With normal images (WinCLIP+), every patch and
    window is also compared with theirs: half the smallest cosine distance, averaged over patches and scales. Map and
    score are then the means of text-based and reference-based ones.
Differs:
    * Patch features are the last block's tokens before the projection.
    * Text embeddings are normalised before they are averaged.
    * Images are square views, resized to the model's own size.
    * The object's name is its category, with blanks for underscores, or "object" where there is no category.
Numbers: ViT-B/16+ 240 (LAION-400M), zero-shot image and pixel AUROC: 91.8 and 85.1 on MVTec AD, 78.1 and 79.6 on VisA.
    One-shot: 93.1 and 95.2, 83.8 and 96.4. Not measured here.
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
from iadbe.layers.features.region import HALF, at_grid, image_score
from iadbe.layers.features.row_chunks import row_chunks
from iadbe.layers.memory_bank.nearest_neighbours import NeighbourIndex
from iadbe.networks.backbone import hub_is_reachable
from iadbe.networks.grid import without_aliasing
from iadbe.types import Prediction

try:
    import open_clip
    from open_clip.transformer import VisionTransformer
except ImportError as absent:
    raise Missing("the detector winclip needs open_clip. Install it with: pip install 'iadbe[clip]'") from absent

NORMAL_STATES = (
    *("{}", "flawless {}", "perfect {}", "unblemished {}"),
    *("{} without flaw", "{} without defect", "{} without damage"),
)
ANOMALOUS_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
PHOTOS = ("cropped", "close-up", "bright", "dark", "jpeg corrupted", "blurry")  # kinds of photo
TASKS = ("visual inspection", "anomaly detection")
TAG = "laion400m_e32"
CACHE = "~/.cache/clip"  # open_clip's folder for downloads
BATCH = 4  # images per forward pass; each has hundreds of windows
EPSILON = 1e-6  # minimum of a score in a harmonic mean


class WinCLIP(Detector):
    """Window-based CLIP, zero-shot or few-shot."""

    paper = "Jeong et al., WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation, CVPR 2023, arXiv 2303.14814"
    year = 2023
    kind = "vision-language"
    can = frozenset({"localise", "merge", "zero-shot"})
    whole_image = (
        "half of the score is the distance of texts from the embedding of the whole image, which CLIP has learnt"
    )
    paper_view = {"resize": 240}
    paper_params = {}
    weight_files = {"weights": "open_clip's ViT-B-16-plus-240, laion400m_e32"}
    renamed_tensors = {
        "known0": "reference0",
        "known1": "reference1",
        "known2": "reference2",
        "known3": "reference3",
        "known4": "reference4",
    }

    def __init__(
        self,
        model: str = "ViT-B-16-plus-240",
        weights: str = "auto",
        name: str = "",
        windows: tuple[int, ...] = (2, 3),
        temperature: float = 0.07,
        sigma: float = 0.0,
    ) -> None:
        """Choose CLIP, prompts and windows.

        Args:
            model: name of a vision transformer in open_clip
            weights: a file, none (random), one of open_clip's tags for the model, or auto: laion400m_e32
            name: the object's name in the prompts; empty: its category
            windows: sides of the windows, in patches
            temperature: τ, by which cosines are divided before the softmax; 0.07 is CLIP's initial value
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if temperature <= 0:
            raise BadConfig(f"temperature must be above 0, not {temperature}.")
        self.clip = _load_clip(model, weights)
        self.model, self.name, self.windows, self.temperature, self.sigma = model, name, windows, temperature, sigma
        self.grid = int(self.clip.visual.grid_size[0])
        if not all(1 <= width <= self.grid for width in windows):
            raise BadConfig(f"windows are 1 to {self.grid} patches of {model} wide, not {list(windows)}.")
        self.register_buffer("mean", torch.tensor(self.clip.visual.image_mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(self.clip.visual.image_std).view(1, 3, 1, 1))
        for scale in range(len(windows) + 1):
            self.register_buffer(f"reference{scale}", torch.empty(0))  # (M, D), normalised; 0: patches
        self._banks: list[NeighbourIndex] = []  # of the references; made at the first query
        self._text_embeddings: dict[str, Tensor] = {}  # by object name: (2, D)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train, found = train.normal(), []
        for batch in train.batches(BATCH):
            _, patches, windows = self._encode_image(batch)
            found.append(self._counted([patches, *windows], batch.region))
            progress.report("features", min(len(found) * BATCH, len(train)), len(train))
        for scale, parts in enumerate(zip(*found, strict=True)):
            setattr(self, f"reference{scale}", torch.cat(parts))

    def _counted(self, features: list[Tensor], region: Tensor | None) -> list[Tensor]:
        """Return the rows (N, D) of patches and windows (B, P, D) of each size half of which counts."""
        counts = at_grid(region, (self.grid, self.grid))
        if counts is None:
            return [rows.flatten(0, 1) for rows in features]
        shares = (F.avg_pool2d(counts[:, None].float(), width, 1).flatten(1) for width in (1, *self.windows))
        return [rows[share >= HALF] for rows, share in zip(features, shares, strict=True)]

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        image, patches, windows = self._encode_image(batch)
        if torch.compiler.is_exporting():
            text = self.exported_text.expand(image.shape[0], -1, -1)
        else:
            text = torch.stack([self._text_embedding(name) for name in self._names(batch)])  # (B, 2, D)
        score = self._anomaly_probability(image[:, None], text)  # (B, 1)
        maps = [score.view(-1, 1, 1).expand(-1, self.grid, self.grid)]
        maps += [
            spread_windows(self._anomaly_probability(w, text), width)
            for w, width in zip(windows, self.windows, strict=True)
        ]
        map_ = harmonic_mean(torch.stack(maps))
        score = score[:, 0]
        if len(self.reference0):
            distance = self._reference_distance([patches, *windows])
            score, map_ = (score + image_score(distance, batch.region)) / 2, (map_ + distance) / 2
        return Prediction(score, upsampled(map_, batch.image.shape[-2:], self.sigma, region=batch.region))

    def merge(self, others: Sequence[Self]) -> None:
        """Concatenate the reference patches and windows."""
        for scale in range(len(self.windows) + 1):
            setattr(self, f"reference{scale}", torch.cat([getattr(o, f"reference{scale}") for o in others]))

    def for_export(self) -> Self:
        """Return this detector with the texts of its object: an exported graph is given no category."""
        self.exported_text = self._text_embedding(self._names(Batch(self.mean))[0])[None]
        return self

    def weights(self) -> str:
        """Return the model and the fingerprint of its weights."""
        digest = hashlib.blake2b(digest_size=8)
        for key, value in sorted(self.clip.state_dict().items()):
            digest.update(key.encode() + value.detach().cpu().numpy().tobytes())
        return f"{self.model}: {digest.hexdigest()} from open_clip"

    def _names(self, batch: Batch) -> list[str]:
        names = [self.name] * len(batch) if self.name else batch.category or [""] * len(batch)
        return [name.replace("_", " ").strip() or "object" for name in names]

    def _text_embedding(self, name: str) -> Tensor:
        """Return the normalised text embeddings (2, D) of the normal and the anomalous states of an object."""
        device = self.clip.text_projection.device
        if name not in self._text_embeddings:
            texts = prompts(name, NORMAL_STATES), prompts(name, ANOMALOUS_STATES)
            both = [F.normalize(self._encode_text(t), dim=1).mean(0) for t in texts]
            self._text_embeddings[name] = F.normalize(torch.stack(both), dim=1)
        return self._text_embeddings[name].to(device)

    @torch.no_grad()
    def _encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return CLIP's embeddings of texts (T, D); tokens after the longest text are not computed."""
        clip = self.clip
        tokens = open_clip.get_tokenizer(self.model)(list(texts)).to(clip.text_projection.device)
        ends = tokens.argmax(1)  # the end token has the largest id
        length = int(ends.max()) + 1
        x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
        return x[torch.arange(len(x), device=x.device), ends] @ clip.text_projection

    @torch.no_grad()
    def _encode_image(self, batch: Batch) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return normalised embeddings: (B, D) of images, (B, P, C) of patches, (B, W, D) of windows of each size."""
        visual = self.clip.visual.eval()
        size = list(visual.image_size)
        image = batch.image
        if list(image.shape[-2:]) != size:
            image = without_aliasing(image, (size[0], size[1]), "bicubic").clamp(0, 1)
        patches = visual.conv1((image - self.mean) / self.std).flatten(2).mT  # (B, P, C)
        first = visual.class_embedding.expand(patches.shape[0], 1, -1)
        tokens = visual.ln_pre(torch.cat([first, patches], 1) + visual.positional_embedding)
        out = visual.ln_post(visual.transformer(tokens))
        windows = []
        for width in self.windows:
            place = F.unfold(torch.arange(1.0, self.grid**2 + 1).view(1, 1, self.grid, self.grid), width)
            place = F.pad(place[0].T.long(), (1, 0)).to(tokens.device)  # (W, 1 + width²), the class token first
            inside = tokens[:, place].flatten(0, 1)
            encoded = torch.cat([visual.transformer(part)[:, 0] for part in row_chunks(inside, 1024)])
            windows.append(
                F.normalize(visual.ln_post(encoded) @ visual.proj, dim=1).view(-1, len(place), visual.proj.shape[1])
            )
        return F.normalize(out[:, 0] @ visual.proj, dim=1), F.normalize(out[:, 1:], dim=2), windows

    def _anomaly_probability(self, features: Tensor, text: Tensor) -> Tensor:
        """Return the anomaly probability (B, W) of features (B, W, D), given text embeddings (B, 2, D)."""
        return (features @ text.mT / self.temperature).softmax(2)[..., 1]

    def _reference_distance(self, features: list[Tensor]) -> Tensor:
        """Return half the smallest cosine distance of patches and windows to the references, per patch: (B, g, g)."""
        if not self._banks or self._banks[0].points.data_ptr() != self.reference0.data_ptr():
            self._banks = [NeighbourIndex(getattr(self, f"reference{scale}")) for scale in range(len(features))]
        maps = []
        for rows, bank, width in zip(features, self._banks, (1, *self.windows), strict=True):
            distance = bank.nearest(rows.flatten(0, 1))[0].view(rows.shape[:2])
            maps.append(spread_windows(distance.square() / 4, width))  # half of 1 - cos, for normalised rows
        return torch.stack(maps).mean(0)


def prompts(name: str, states: Sequence[str] = ANOMALOUS_STATES) -> list[str]:
    """Return the prompts: all states in all templates."""
    templates = [f"a {kind} photo of {article} {{}}." for kind in PHOTOS for article in ("a", "the")]
    templates += [f"a photo of {article}{size} {{}}." for size in ("", " small", " large") for article in ("a", "the")]
    templates += [f"a photo of {article} {{}} for {task}." for task in TASKS for article in ("a", "the")]
    return [template.format(state.format(name)) for state in states for template in templates]


def spread_windows(scores: Tensor, width: int) -> Tensor:
    """Return for each patch the harmonic mean (B, g, g) of the scores (B, W) of windows of side ``width`` over it."""
    side = round(scores.shape[1] ** 0.5)
    kernel = scores.new_ones(1, 1, width, width)
    inverse = 1 / scores.clamp(min=EPSILON).view(-1, 1, side, side)
    count = F.conv_transpose2d(torch.ones_like(inverse), kernel)
    return (count / F.conv_transpose2d(inverse, kernel))[:, 0]


def harmonic_mean(maps: Tensor) -> Tensor:
    """Return the harmonic mean of maps (S, B, g, g): (B, g, g)."""
    return len(maps) / (1 / maps.clamp(min=EPSILON)).sum(0)


def _load_clip(model: str, weights: str) -> nn.Module:
    """Make CLIP with weights from a file, open_clip's cache or a download; none: random from a fixed seed."""
    if model not in open_clip.list_models():
        raise UnknownName(f"open_clip has no model {model!r}.{did_you_mean(model, open_clip.list_models())}")
    with torch.random.fork_rng(devices=[]), _without_warnings():
        torch.manual_seed(0)
        made = open_clip.create_model(model, pretrained=None, precision="fp32")
    visual = getattr(made, "visual", None)
    plain = isinstance(visual, VisionTransformer) and visual.pool_type == "tok" and visual.attn_pool is None
    if not plain or getattr(made, "text_pool_type", "") != "argmax" or visual.proj is None:
        raise BadConfig(f"{model} is not a plain CLIP with a vision transformer. Take one such as ViT-B-16.")
    if weights != "none":
        file = Path(weights).expanduser()
        _load_weights(made, file if file.is_file() else _weight_file(model, weights))
    return made.requires_grad_(False).eval()


def _weight_file(model: str, weights: str) -> Path:
    """Return the weight file of one of open_clip's tags, downloaded if necessary."""
    tags = open_clip.list_pretrained_tags_by_model(model)
    tag = TAG if weights in ("", "auto") else weights
    if tag not in tags:
        raise BadConfig(f"{model} has no weights {tag!r}. weights= takes a file, none or one of: {', '.join(tags)}.")
    config = open_clip.get_pretrained_cfg(model, tag)
    cached = Path(CACHE).expanduser() / str(config.get("url", "")).rpartition("/")[2]
    if cached.is_file():
        return cached
    try:
        if hub_is_reachable():
            return Path(open_clip.download_pretrained(config, prefer_hf_hub=False))
    except (OSError, RuntimeError):
        pass
    raise Missing(
        f"the weights {tag} of {model} are not on this machine and cannot be downloaded. Get "
        f"{config.get('url') or config.get('hf_hub')} and give the file as weights=FILE."
    )


def _load_weights(clip: nn.Module, file: Path) -> None:
    """Load weights; nothing is ever unpickled but tensors."""
    try:
        open_clip.load_checkpoint(clip, str(file), weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise BadConfig(f"{file} cannot be read as weights of this CLIP ({type(error).__name__}).") from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppress open_clip's warning of random weights: they are loaded afterwards, or were requested."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
