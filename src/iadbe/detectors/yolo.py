"""A YOLO network of ultralytics (detection, segmentation or classification), trained on labelled defects.

Paper: Redmon et al., "You Only Look Once: Unified, Real-Time Object Detection", CVPR 2016, 1506.02640; the networks
    from v8 on are Ultralytics' (Jocher et al., 2023). The code is ultralytics', an extra: network, augmentation,
    training loop and non-maximum suppression. It knows the defects that were labelled, and not what is normal.
Differs:
    * The boxes of a defect are those of its mask's 8-connected regions, and there is one class, "defect". Labelled
      anomalies without a mask serve classification alone.
    * The score is the highest confidence of the network, before any threshold; of a classifier, 1 - p(good). The map
      has at each pixel the highest confidence of the boxes or masks there that non-maximum suppression leaves.
    * The last epoch's moving average counts: there is no validation set to choose another by.
    * ultralytics' own mAP50 and mAP50-95 on the test images are rows of the result, yolo_map50 and yolo_map50_95.
    * Training that was interrupted starts again, and a protocol's precision and accumulation are refused.
Numbers: none of defects; those of ultralytics' documentation are of COCO.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iadbe import cache, progress, system
from iadbe.data.images import Batch, Images, read_mask_view, read_view
from iadbe.detector import Detector
from iadbe.errors import BadConfig, Missing
from iadbe.layers.foreign.boxes import box_map, mask_map, regions_of
from iadbe.layers.foreign.options import parse_options
from iadbe.layers.foreign.scratch import all_seeded, scratch_folder
from iadbe.layers.foreign.weight_files import read_weight_file, state_of
from iadbe.layers.training.precision import current_arithmetic
from iadbe.networks.backbone import state_fingerprint
from iadbe.types import Prediction, TrainingLabel

# read when ultralytics is imported: no network, no packages installed, its settings in IADBE's own cache
os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
os.environ["YOLO_CONFIG_DIR"] = str(cache.cache_folder() / "ultralytics")
try:
    import cv2
    from ultralytics.cfg import DEFAULT_CFG_DICT
    from ultralytics.models.yolo.classify import ClassificationTrainer, ClassificationValidator
    from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
    from ultralytics.models.yolo.segment import SegmentationTrainer, SegmentationValidator
    from ultralytics.nn import tasks
    from ultralytics.utils import SETTINGS, nms, ops
except ImportError as absent:
    raise Missing(
        "the detector yolo needs the package ultralytics. Install it with: pip install 'iadbe[yolo]'"
    ) from absent

REPORTING = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")  # settings: all off
SETTINGS.update(dict.fromkeys(REPORTING, False) | {"api_key": "", "vscode_msg": False, "openvino_msg": False})
KINDS: dict[str, tuple[type, type, type]] = {
    "detect": (tasks.DetectionModel, DetectionTrainer, DetectionValidator),
    "segment": (tasks.SegmentationModel, SegmentationTrainer, SegmentationValidator),
    "classify": (tasks.ClassificationModel, ClassificationTrainer, ClassificationValidator),
}
TASKS = {  # the last layer of a network -> what it does
    **dict.fromkeys(("Detect", "v10Detect"), "detect"),
    **dict.fromkeys(("Segment", "Segment26"), "segment"),
    "Classify": "classify",
}
ACTIVATION = re.compile(r"(torch\.)?nn\.\w+\([\w\s=.,+-]*\)")  # nn.SiLU(), nn.LeakyReLU(0.1)
NAMES = {0: "defect"}
CLASSES = ("defect", "good")  # of a classifier, in the order of their folders
STRIDE = 32  # pixels: sides of the network's input are multiples
LEAST_CONFIDENCE = 0.001  # of boxes in a map, ultralytics' own for mAP
OVERLAP = 0.7  # IoU above which non-maximum suppression keeps one box, ultralytics' own for validation
MOST_BOXES = 300  # likewise
OWN = (  # training arguments that are not options: IADBE sets them, or they write or fetch files
    *("model", "data", "epochs", "batch", "imgsz", "device", "project", "name", "seed", "resume", "pretrained", "save"),
    *(
        "save_dir",
        "val",
        "plots",
        "amp",
        "workers",
        "task",
        "mode",
        "cfg",
        "exist_ok",
        "single_cls",
        "tracker",
        "cache",
    ),
    *("source", "patience", "augmentations", "distill_model"),
)


class YOLO(Detector):
    """YOLO by ultralytics."""

    paper = "Redmon et al., You Only Look Once: Unified, Real-Time Object Detection, CVPR 2016, arXiv 1506.02640"
    year = 2016
    kind = "other tool"
    foreign = "ultralytics"
    needs = frozenset({"image", "labels"})
    can = frozenset({"localise", "labelled"})
    whole_image = "its models learn from whole images: they know no region"
    not_exportable = "it finds another number of boxes in each image. Ultralytics' own `yolo export` writes its network"
    paper_view = {"resize": 640}
    weight_files = {"weights": "ultralytics' .pt of COCO or ImageNet, for instance yolo11n.pt"}

    def __init__(
        self,
        model: str = "yolo11n.yaml",
        weights: str = "none",
        options: str = "",
        epochs: int = 100,
        batch: int = 16,
    ) -> None:
        """Choose network and training.

        Args:
            model: ultralytics' name of a network (yolov8n.yaml, yolo11n-seg.yaml, yolo11n-cls.yaml …) or a yaml file
            weights: with which training starts: none (random), or a weight file, whose network is then taken
            options: training arguments of ultralytics, written name=value,name=value, for instance lr0=0.01,mosaic=0
            epochs: of training
            batch: images per step
        """
        super().__init__()
        if epochs < 1 or batch < 1:
            raise BadConfig("epochs and batch must be at least 1.")
        self.epochs, self.batch = epochs, batch
        self.options = parse_options(options, [k for k in DEFAULT_CFG_DICT if k not in OWN], "ultralytics' training")
        self.architecture: Tensor
        self.register_buffer("architecture", torch.empty(0, dtype=torch.uint8))  # JSON: the network's yaml
        self.network: nn.Module = nn.Module()
        self.start: Mapping[str, Tensor] = {}
        self.task: str = ""
        self.description: Tensor
        self.register_buffer("description", torch.empty(0, dtype=torch.uint8))  # of the weights, as text
        if weights in ("none", "auto", ""):
            if model:  # a saved model brings its network
                self._build(_network_yaml(model))
                self._describe(f"{Path(model).name}: random-{state_fingerprint(self.network.state_dict())} from random")
        else:
            self._read(weights)

    def weights(self) -> str:
        return bytes(self.description.tolist()).decode()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        if not self.task:
            raise BadConfig("which network? Give ultralytics' name of one as model, or a weight file.")
        arithmetic = current_arithmetic()
        if (arithmetic.precision, arithmetic.accumulate) != ("fp32", 1):
            raise BadConfig("ultralytics trains by its own loop, in fp32 and without accumulation.")
        usable = [
            i for i, label in enumerate(train.labels) if self.task == "classify" or label is not TrainingLabel.ANOMALOUS
        ]
        if not any(train.labels[i] is not TrainingLabel.NORMAL for i in usable):
            raise BadConfig(
                "no training image is labelled anomalous with a mask that the view shows. The settings semi and "
                "supervised label some."
            )
        if left := len(train) - len(usable):
            progress.note(f"{left} labelled anomalies without a mask were left out: YOLO needs their boxes.")
        with all_seeded(rng) as seed, scratch_folder() as folder:
            self._build(json.loads(bytes(self.architecture.tolist())))
            data = self._write(train.subset(usable), folder / "data")
            self._train(train, data, folder, seed)
        self.to(train.device).eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        height, width = batch.image.shape[-2:]
        if self.task == "classify":
            found = self.network(batch.image)
            return Prediction(1 - _first(found)[:, CLASSES.index("good")].float())
        padded = nn.functional.pad(batch.image, (0, -width % STRIDE, 0, -height % STRIDE), value=114 / 255)
        found = self.network(padded)
        raw = _first(found)  # (B, 4 + classes …, N), or (B, N, 6 …)
        ends = bool(getattr(self.network, "end2end", False))
        score = raw[..., 4].amax(1) if ends else raw[:, 4 : 4 + len(NAMES)].amax((1, 2))
        kept = nms.non_max_suppression(
            raw.clone(), LEAST_CONFIDENCE, OVERLAP, max_det=MOST_BOXES, nc=len(NAMES), end2end=ends
        )
        prototypes = None if self.task == "detect" else _prototypes(found)
        maps = []
        for number, boxes in enumerate(kept):
            if prototypes is not None and len(boxes):
                masks = ops.process_mask(
                    prototypes[number], boxes[:, 6:], boxes[:, :4], padded.shape[2:], upsample=True
                )
                map_ = mask_map(masks > 0, boxes[:, 4])
            else:
                map_ = box_map(boxes[:, :4], boxes[:, 4], *padded.shape[2:])
            maps.append(map_[:height, :width])
        return Prediction(score.float(), torch.stack(maps).float())

    def own_measures(self, test: Images) -> dict[str, float]:
        """Return ultralytics' mAP50 and mAP50-95 of boxes, and of masks, or the accuracy, on test images."""
        with scratch_folder() as folder:
            known = [i for i, item in enumerate(test.items) if self.task == "classify" or not item.sample.is_anomaly
                     or read_mask_view(test.dataset, item.sample, test.view).any()]  # fmt: skip
            labels = [TrainingLabel.MASKED if e.sample.is_anomaly else TrainingLabel.NORMAL for e in test.items]
            items = [test.items[i]._replace(label=labels[i]) for i in known]
            data = self._write(Images(test.dataset, items, test.view), folder / "data")
            arguments = self._arguments(test, data, folder) | {"split": "val", "mode": "val"}
            validator = KINDS[self.task][2](args=arguments, save_dir=folder)
            validator.args.conf = None if self.task == "classify" else LEAST_CONFIDENCE
            validator(model=copy.deepcopy(self.network))
            found = validator.metrics
        if self.task == "classify":
            return {"yolo_top1": float(found.top1)}
        rows = {"yolo_map50": float(found.box.map50), "yolo_map50_95": float(found.box.map)}
        if self.task == "segment":
            rows |= {"yolo_mask_map50": float(found.seg.map50), "yolo_mask_map50_95": float(found.seg.map)}
        return rows

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load as any detector, with the network that the tensors were of."""
        if (text := tensors.get("architecture")) is not None and len(text):
            self._build(_checked_yaml(json.loads(bytes(text.tolist()))))
        super().load_tensors(tensors)

    def _build(self, architecture: Mapping[str, Any]) -> None:
        """Make the network, with the weights of the file where there are some."""
        architecture = {**architecture, "nc": len(CLASSES) if _task(architecture) == "classify" else len(NAMES)}
        self.task = _task(architecture)
        text = json.dumps(architecture).encode()
        self.architecture = torch.tensor(list(text), dtype=torch.uint8)
        self.can = YOLO.can - ({"localise"} if self.task == "classify" else set())
        network = KINDS[self.task][0](json.loads(text), nc=architecture["nc"], verbose=False)
        own = network.state_dict()
        fitting = {k: v for k, v in self.start.items() if k in own and v.shape == own[k].shape}
        network.load_state_dict({k: v.to(own[k].dtype) for k, v in fitting.items()}, strict=False)
        self.network = network.eval()

    def _read(self, path: str) -> None:
        """Take network and weights from a file of ultralytics."""
        found = read_weight_file(path, lambda file: tasks.torch_safe_load(str(file), safe_only=True)[0])
        held = (found.get("ema") or found.get("model")) if isinstance(found, Mapping) else found
        if not isinstance(held, nn.Module) or not isinstance(getattr(held, "yaml", None), Mapping):
            state_of(found, path)
            raise BadConfig(f"{path} holds tensors without their network. Give a .pt file of ultralytics.")
        self.start = {k: v.detach().float() for k, v in held.state_dict().items()}
        self._build(_checked_yaml(json.loads(json.dumps(held.yaml))))
        self._describe(f"{Path(path).name}: {state_fingerprint(self.start)} from a file")

    def _describe(self, text: str) -> None:
        self.description = torch.tensor(list(text.encode()), dtype=torch.uint8)

    def _train(self, train: Images, data: Path, folder: Path, seed: int) -> None:
        """Train with ultralytics' trainer, which keeps nothing but the network in memory."""
        arguments = self._arguments(train, data, folder)
        trainer = _quiet(KINDS[self.task][1])(overrides={**arguments, **self.options, "seed": seed % 2**16})
        trainer.model, planned, done = self.network.train(), 0, 0

        def seen(one: Any) -> None:
            nonlocal planned, done
            planned, done = one.epochs * len(one.train_loader), done + 1
            progress.report("fit", done, planned)
            progress.loss(float(one.loss.detach()))
            one.stop = one.stop or progress.time_is_up()

        trainer.add_callback("on_train_batch_end", seen)
        trainer.train()
        progress.training_steps(done, planned)
        self.network = trainer.ema.ema.float().cpu().requires_grad_(False)
        for name in ("args", "criterion"):
            self.network.__dict__.pop(name, None)

    def _arguments(self, images: Images, data: Path, folder: Path) -> dict[str, Any]:
        side = -(-max(images.view.shape) // STRIDE) * STRIDE
        device = str(images.device).removeprefix("cuda:") if images.device.index else images.device.type
        return {
            **{"model": "yolo.yaml", "task": self.task, "data": str(data), "epochs": self.epochs, "batch": self.batch},
            **{"imgsz": side, "device": "0" if device == "cuda" else device, "project": str(folder), "name": "run"},
            **{"pretrained": False, "save": False, "val": False, "plots": False, "amp": False, "workers": 0},
            **{"exist_ok": True, "cache": False, "patience": 0, "verbose": False, "deterministic": True},
        }

    def _write(self, images: Images, folder: Path) -> Path:
        """Write images with boxes, polygons or classes as ultralytics reads them; return what describes them."""
        for number, (sample, label) in enumerate(images.items):
            pixels, _ = read_view(images.dataset, sample, images.view)
            bad = label is not TrainingLabel.NORMAL
            place = Path("train") / CLASSES[not bad] if self.task == "classify" else Path("images")
            (folder / place).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / place / f"{number:06d}.png"), np.ascontiguousarray(pixels[:, :, ::-1]))
            if self.task != "classify" and bad:
                mask = read_mask_view(images.dataset, sample, images.view)
                (folder / "labels").mkdir(exist_ok=True)
                rows = "\n".join(self._label_rows(mask))
                (folder / "labels" / f"{number:06d}.txt").write_text(rows, encoding="utf-8")
        if self.task == "classify":
            for name in CLASSES:
                (folder / "train" / name).mkdir(parents=True, exist_ok=True)
            shutil.copytree(folder / "train", folder / "val")  # ultralytics wants one; it is not looked at
            return folder
        text = {"path": str(folder), "train": "images", "val": "images", "names": NAMES}
        (folder / "data.yaml").write_text(json.dumps(text), encoding="utf-8")  # JSON is YAML
        return folder / "data.yaml"

    def _label_rows(self, mask: np.ndarray) -> list[str]:
        """Return a line for each region of a mask: class and box, or for segmentation class and polygon."""
        rows = []
        for box, region in regions_of(mask):
            numbers = np.array(box)
            if self.task == "segment":
                outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
                outline = max(outlines, key=len)[:, 0, :]
                outline = outline if len(outline) > 2 else np.concatenate([outline, outline, outline])[:4]
                numbers = ((outline + 0.5) / mask.shape[::-1]).ravel()
            rows.append(" ".join(["0", *(f"{v:.6f}" for v in numbers)]))
        return rows


def _quiet(kind: type) -> type:
    """Return a trainer of ultralytics that neither validates nor writes pickles."""

    class Quiet(kind):  # type: ignore[misc]
        def validate(self) -> tuple[dict[str, float], float]:
            return {}, 0.0

        def save_model(self) -> bool:
            return False

        def final_eval(self) -> None:
            pass

    return Quiet


def _network_yaml(model: str) -> dict[str, Any]:
    """Return the description of a network by ultralytics' name or in the user's file; nothing is downloaded."""
    name = model if model.endswith((".yaml", ".yml")) else f"{model.removesuffix('.pt')}.yaml"
    try:
        found = tasks.yaml_model_load(str(system.user_path(name)))
    except (OSError, ConnectionError, TypeError, ValueError, SyntaxError) as error:
        raise BadConfig(
            f"ultralytics knows no network {model!r} ({type(error).__name__}). Names are yolov8n.yaml, "
            "yolo11s-seg.yaml, yolo11n-cls.yaml and the like; a weight file is given as weights."
        ) from error
    return _checked_yaml(json.loads(json.dumps(found)))


def _checked_yaml(found: Any) -> dict[str, Any]:
    """Return a network's description, if it names nothing but layers: ultralytics evaluates parts of it as code."""
    if not isinstance(found, dict) or not all(isinstance(found.get(part), list) for part in ("backbone", "head")):
        raise BadConfig("a network of YOLO is described by lists named backbone and head.")
    if (activation := found.get("activation")) is not None and not ACTIVATION.fullmatch(str(activation)):
        raise BadConfig(f"the activation of a network is written nn.NAME() with plain arguments, not {activation!r}.")
    for row in (*found["backbone"], *found["head"]):
        name = str(row[2]) if isinstance(row, list) and len(row) == 4 else ""
        layer = getattr(nn, name[3:], None) if name.startswith("nn.") else getattr(tasks, name, None)
        if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
            raise BadConfig(f"{name or row!r} is no layer of ultralytics.")
    _task(found)
    return found


def _task(architecture: Mapping[str, Any]) -> str:
    """Return what a network does, by its last layer."""
    last = str(architecture["head"][-1][2])
    if last not in TASKS:
        raise BadConfig(f"YOLO networks for detection, segmentation and classification can be used, not {last}.")
    return TASKS[last]


def _first(found: Any) -> Tensor:
    """Return the first of what a network gives: its predictions, before those of training."""
    return found if isinstance(found, Tensor) else _first(found[0])


def _prototypes(found: Any) -> Tensor:
    """Return the prototype masks (B, K, h, w) of a segmentation network's output."""
    return found[0][1] if isinstance(found[0], tuple) else found[1]
