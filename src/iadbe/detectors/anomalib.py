"""Any image model of anomalib, trained by anomalib's own engine; its raw score and map, not normalised.

Paper: Akcay et al., "Anomalib: A Deep Learning Library for Anomaly Detection", ICIP 2022, 2202.08341. The code is
    anomalib's, an extra: model, pre-processing (resize, normalisation), training loop, optimizer and schedule. It
    stands beside our own detectors so that both can be compared on the same images, views and metrics.
Differs:
    * Images come in the view of the protocol, and anomalib's pre-processing follows; maps are resized to the view.
    * Scores and maps are those of the network. anomalib's post-processing, which scales them by the smallest and
      largest values of a validation set, and its thresholds are off.
    * Where pixels do not count (padding, a region), a score that is its map's highest value is the highest one that
      counts. Scores that a model makes otherwise, and its training, are of the whole image.
    * No validation set: anomalib takes half of the test images. Early stopping on it is off, and the last epoch counts.
      EfficientAd, whose maps are scaled by quantiles, gets a tenth of the good training images for them.
    * Epochs are those of anomalib's example configs, unless they are given.
    * Networks of timm get the weights that IADBE finds. Other files of a model (torchvision's, CLIP's, DSR's, the
      teacher of EfficientAd) are anomalib's own downloads; what cannot be had is one sentence.
    * Training that was interrupted starts again, and a protocol's precision and accumulation are refused.
Numbers: those of anomalib's documentation are of other views and validation sets; see docs/other_tools.md.
"""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from iadbe import progress, system
from iadbe.data.images import Batch, Images, read_view
from iadbe.detector import Detector
from iadbe.errors import BadConfig, Missing, UnknownName, did_you_mean
from iadbe.layers.features.region import image_score
from iadbe.layers.foreign.options import parse_options
from iadbe.layers.foreign.pretrained import pretrained_weights
from iadbe.layers.foreign.scratch import all_seeded, scratch_folder
from iadbe.layers.foreign.weight_files import read_weight_file, state_of
from iadbe.layers.training.precision import current_arithmetic
from iadbe.networks.backbone import state_fingerprint
from iadbe.types import Prediction

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anomalib about its own parts
        import anomalib.models
        from anomalib.callbacks import ModelCheckpoint
        from anomalib.data import ImageBatch, ImageItem
        from anomalib.engine import Engine
    from lightning.pytorch import LightningDataModule
    from lightning.pytorch.callbacks import Callback, EarlyStopping
except ImportError as absent:
    raise Missing(
        "the detector anomalib needs the package anomalib. Install it with: pip install 'iadbe[anomalib]'"
    ) from absent

REFUSED = {  # models that cannot be compared here, and why
    "AiVad": "it takes videos",
    "Fuvas": "it takes videos",
    "CFM": "it takes depth beside the image",
    "VlmAd": "it sends images to a language model over the network",
}
WITHOUT_MAPS = ("Dfkde", "Ganomaly")
COMPONENTS = ("self", "pre_processor", "post_processor", "evaluator", "visualizer", "kwargs", "args")
EPOCHS = {  # of anomalib's examples/configs/model; models that are not named train for one epoch, or as they say
    **{"Cfa": 30, "Cflow": 50, "Csflow": 240, "Draem": 700, "Dsr": 700, "EfficientAd": 1000, "Fastflow": 500},
    **{"Fre": 220, "Ganomaly": 100, "Glass": 100, "InpFormer": 200, "Patchflow": 200, "ReverseDistillation": 200},
    **{"Stfpm": 100, "Uflow": 200, "UniNet": 100},
}
STEPS = {"Dinomaly": 5000, "EfficientAd": 70000}  # likewise
FOLDERS = {"EfficientAd": "imagenet_dir", "Draem": "dtd_dir", "Glass": "anomaly_source_path"}  # options with images
DFKDE_COMPONENTS = 16  # default of Dfkde's n_pca_components: with fewer images it stays without a density
HELD_OUT = 0.1  # share of the good training images that EfficientAd's quantiles are of
UNREACHABLE = (OSError, ConnectionError, TimeoutError)  # of a download
logging.getLogger("anomalib").setLevel(logging.ERROR)
for _name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
    logging.getLogger(_name).setLevel(logging.ERROR)


class Anomalib(Detector):
    """A model of anomalib."""

    paper = "Akcay et al., Anomalib: A Deep Learning Library for Anomaly Detection, ICIP 2022, arXiv 2202.08341"
    year = 2022
    kind = "other tool"
    foreign = "anomalib"
    can = frozenset({"localise"})
    whole_image = "its models learn from whole images: they know no region"
    not_exportable = "its model is anomalib's code, whose own `anomalib export` writes it"
    paper_view = {"resize": 256}
    weight_files = {"weights": "the model's own, where it has some: EfficientAd's teacher, CLIP, DINOv2"}

    def __init__(
        self,
        model: str = "Padim",
        options: str = "",
        weights: str = "auto",
        images: str = "",
        epochs: int = 0,
        steps: int = 0,
        batch: int = 32,
    ) -> None:
        """Choose model and training.

        Args:
            model: anomalib's name of it: Padim, Patchcore, EfficientAd, Fastflow, Stfpm …
            options: parameters of anomalib's class, written name=value,name=value with + between items of a list
            weights: auto, none (random), or a file: of its backbone, of EfficientAd's teacher, or a trained model
            images: folder of other images, in folders by class: EfficientAd's ImageNet, textures for Draem and Glass
            epochs: of training; 0: as many as in anomalib's example configs
            steps: training ends after so many; 0: as in anomalib's example configs
            batch: images per step; EfficientAd takes one
        """
        super().__init__()
        if min(epochs, steps) < 0 or batch < 1:
            raise BadConfig("epochs and steps must be at least 0, and batch at least 1.")
        self.model, self.initial, self.images = _model_name(model), weights, images
        self.options = self._checked(options)
        self.epochs, self.steps, self.batch = epochs, steps, 1 if self.model == "EfficientAd" else batch
        if self.model in WITHOUT_MAPS:
            self.can = self.can - {"localise"}
        self._file: Mapping[str, Tensor] | None = None
        self.description: Tensor
        self.register_buffer("description", torch.empty(0, dtype=torch.uint8))  # of the weights, as text
        if weights not in ("auto", "none", ""):
            self._file = state_of(read_weight_file(weights), weights)
        self.module: nn.Module
        self._build(np.random.default_rng(int(torch.randint(2**31, ()))))

    def weights(self) -> str:
        return bytes(self.description.tolist()).decode()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        least = self.options.get("n_pca_components", DFKDE_COMPONENTS) if self.model == "Dfkde" else 1
        seen = min(len(train), self.steps * self.batch or len(train))
        if self.model in ("Dfkde", "Padim") and seen <= least:  # a density or covariance of fewer is undefined
            raise BadConfig(f"anomalib's {self.model} needs more than {least} good images, and steps for them.")
        self._build(rng)
        self.module.to(train.device)
        if self._is_trained_model():
            progress.note("the model is that of the weight file: it was not trained on these images.")
            return
        arithmetic = current_arithmetic()
        if (arithmetic.precision, arithmetic.accumulate) != ("fp32", 1):
            raise BadConfig("anomalib trains by its own engine, in fp32 and without accumulation.")
        with all_seeded(rng), scratch_folder() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's advice on workers and loggers
            _reported(self.model, lambda: self._train(train, rng, folder))
        _own_storage(self.module)
        self.module.to(train.device).eval()
        self._try(train)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load as any detector; what anomalib first fills in ``fit`` may get another type there."""
        for name, own in self.named_buffers():
            if name in tensors and tensors[name].dtype != own.dtype:
                own.data = tensors[name].new_empty(0)
        super().load_tensors(tensors)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        found = self.module.model(self.module.pre_processor(batch.image))
        score, map_ = _field(found, "pred_score"), _field(found, "anomaly_map")
        score = None if score is None else score.float().reshape(len(batch))
        if map_ is not None:
            map_ = map_.float().reshape(len(batch), *map_.shape[-2:])
            if score is None or torch.allclose(score, map_.amax((1, 2))):
                score = image_score(map_, batch.region)
            size = batch.image.shape[-2:]
            map_ = F.interpolate(map_[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        return Prediction(score, map_)

    def _try(self, train: Images) -> None:
        """Score one image, because some models fit in phases and stay unfinished after too few steps or epochs."""
        try:
            self.predict(next(train.subset([0]).batches(1)))
        except RuntimeError as error:
            raise BadConfig(
                f"anomalib's {self.model} cannot score after this training ({_first_sentence(error)}). Leave out steps "
                "and epochs, or give more."
            ) from error

    def _checked(self, text: str) -> dict[str, Any]:
        """Return the options, which the model's class must have."""
        kind = getattr(anomalib.models, self.model)
        own = [name for name in inspect.signature(kind.__init__).parameters if name not in COMPONENTS]
        chosen = parse_options(text, [n for n in own if n != FOLDERS.get(self.model)], f"anomalib's {self.model}")
        if not self.images:
            return chosen
        if self.model not in FOLDERS:
            raise BadConfig(f"anomalib's {self.model} takes no folder of images; {', '.join(FOLDERS)} do.")
        return {**chosen, FOLDERS[self.model]: str(system.user_path(self.images))}

    def _build(self, rng: np.random.Generator) -> None:
        """Make the model that training starts from."""
        kind = getattr(anomalib.models, self.model)
        teacher = self.model == "EfficientAd"
        backbone = None if self._file is None or teacher or self._is_trained_model() else self._file
        where = "none" if self._is_trained_model() else self.initial or "auto"
        with all_seeded(rng), pretrained_weights(where, backbone) as described, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of anomalib about its own parts
            self.module = _reported(
                self.model, lambda: kind(**self.options, post_processor=False, evaluator=False, visualizer=False)
            )
        if teacher:
            self._give_teacher()
        elif self._is_trained_model():
            _take(self.module, self._file or {}, self.model)
        if self._is_trained_model() or (teacher and self._file):
            described = [f"{self.model}: {state_fingerprint(self._file or {})} from a file"]
        self.description = torch.tensor(list("; ".join(described).encode()), dtype=torch.uint8)
        _own_storage(self.module)
        self.module.eval()

    def _is_trained_model(self) -> bool:
        """Return whether the weight file is a checkpoint of the whole model, whose tensors Lightning names so."""
        return self._file is not None and all(name.startswith("model.") for name in self._file if "." in name)

    def _give_teacher(self) -> None:
        """Give EfficientAd's teacher its weights from the file, or random ones; anomalib would download them."""
        if self._is_trained_model():
            _take(self.module, self._file or {}, self.model)
        if self.initial == "none" or (self._file is not None and not self._is_trained_model()):
            if self._file is not None:
                _take(self.module.model.teacher, self._file, "EfficientAd's teacher")
            self.module.prepare_pretrained_model = lambda: None

    def _train(self, train: Images, rng: np.random.Generator, folder: Path) -> None:
        """Train with anomalib's engine, which writes into ``folder``."""
        validated = train.subset([])
        if self.model == "EfficientAd":
            if not self.images or not system.user_path(self.images).is_dir():
                raise Missing(
                    "anomalib's EfficientAd trains on images of ImageNet too. Give a folder with images=FOLDER, whose "
                    "folders hold images by class."
                )
            train, validated = train.split(HELD_OUT, rng) if len(train) > 1 else (train, train)
        module, device = self.module, train.device
        own = module.configure_callbacks
        module.configure_callbacks = lambda: [c for c in _listed(own()) if not isinstance(c, EarlyStopping)]
        steps = self.steps or STEPS.get(self.model, -1)
        epochs = self.epochs or EPOCHS.get(self.model, 0) or (-1 if steps > 0 else 1)
        watcher = _Watcher()
        engine = Engine(
            callbacks=[watcher, ModelCheckpoint(folder, save_top_k=0)], default_root_dir=folder, max_epochs=epochs,
            max_steps=steps, accelerator=_accelerator(device), devices=[device.index or 0] if device.index else 1,
            limit_val_batches=1.0 if len(validated) else 0, num_sanity_val_steps=0, enable_progress_bar=False,
            enable_model_summary=False, logger=False,
        )  # fmt: skip
        try:
            module.train()
            engine.fit(module, datamodule=_Data(train, validated, self.batch))
        finally:
            del module.configure_callbacks
            module.__dict__.pop("imagenet_loader", None)
            module.__dict__.pop("imagenet_iterator", None)
            module.trainer = None
        watcher.count()


class _Watcher(Callback):
    """Tells IADBE how far training is, and ends it when the run's budget is spent."""

    def __init__(self) -> None:
        self.done, self.planned, self.stopped = 0, 0, False

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.planned = max(0, int(min(trainer.estimated_stepping_batches, 2**31)))

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.done += 1
        progress.report("fit", self.done, self.planned)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            progress.loss(float(loss.detach()))
        if progress.time_is_up():
            self.stopped = trainer.should_stop = True

    def count(self) -> None:
        """Say at the end how many of the planned steps were done."""
        progress.training_steps(self.done, self.planned if self.stopped else self.done)


class _Items(Dataset):
    """Images of IADBE as items of anomalib."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ImageItem:
        pixels, _ = read_view(self.images.dataset, self.images.items[index].sample, self.images.view)
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        return ImageItem(image=image, gt_label=torch.tensor(0), gt_mask=torch.zeros(image.shape[1:], dtype=torch.bool))


class _Data(LightningDataModule):
    """Training images, and those of a validation, where a model needs one."""

    name, category = "images", ""

    def __init__(self, train: Images, validated: Images, batch: int) -> None:
        super().__init__()
        self.train_images, self.validated = train, validated
        self.train_batch_size = self.eval_batch_size = batch

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.train_images, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.validated, shuffle=False)

    def _loader(self, images: Images, shuffle: bool) -> DataLoader:
        return DataLoader(_Items(images), self.train_batch_size, shuffle=shuffle, collate_fn=ImageBatch.collate)


def _model_name(text: str) -> str:
    """Return anomalib's name of a model that may be written in any usual way: padim, Padim, reverse_distillation."""
    known = sorted(anomalib.models.list_models(case="pascal"))
    spellings = {name.lower(): name for name in known}
    found = spellings.get(text.replace("_", "").replace("-", "").lower())
    if found is None:
        usable = [name for name in known if name not in REFUSED]
        raise UnknownName(f"anomalib has no model {text!r}.{did_you_mean(text, usable)} It has: {', '.join(usable)}.")
    if found in REFUSED:
        raise BadConfig(f"anomalib's {found} cannot be a detector here: {REFUSED[found]}.")
    return found


def _reported(model: str, what: Callable[[], Any]) -> Any:
    """Call ``what``; errors of downloads and of options become one sentence."""
    try:
        return what()
    except UNREACHABLE as error:
        raise Missing(
            f"anomalib's {model} needs files that are not on this machine and cannot be downloaded "
            f"({type(error).__name__}: {_first_sentence(error)})."
        ) from error
    except ImportError as error:
        raise Missing(f"anomalib's {model} needs a package that is not installed: {error}.") from error
    except (TypeError, ValueError, KeyError) as error:
        raise BadConfig(f"anomalib's {model} cannot be made or trained so: {type(error).__name__}: {error}") from error


def _first_sentence(error: Exception) -> str:
    """Return the beginning of an error's message, without its full stop."""
    return re.split(r"[.!?]\s|\n", str(error))[0].rstrip(".")


def _take(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load a state dict that must hold all of a module; buffers may have other shapes, as memory banks do."""
    try:
        lacking, unknown = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise BadConfig(f"the weight file does not fit anomalib's {name}: {error}") from error
    if lacking:
        raise BadConfig(f"the weight file does not fit {name}: it lacks {', '.join(lacking[:3])}.")
    del unknown  # post-processing, which is off here


def _own_storage(module: nn.Module) -> None:
    """Give every tensor a storage of its own, whole and in order, as they are saved; some are views of larger ones."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)


def _field(found: Any, name: str) -> Tensor | None:
    return found if isinstance(found, Tensor) and name == "anomaly_map" else getattr(found, name, None)


def _listed(callbacks: Any) -> list[Any]:
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]


def _accelerator(device: torch.device) -> str:
    return {"cuda": "gpu", "mps": "mps"}.get(device.type, "cpu")
