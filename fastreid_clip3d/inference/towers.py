"""Image towers of timm and open_clip as ReID models, with their own input size, pixel statistics and interpolation.

They were never trained to recognise people: their scores are baselines. B: images. d': width of the feature.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from fastreid_clip3d.common.devices import find_device
from fastreid_clip3d.common.hub import HUB, hub_endpoint
from fastreid_clip3d.common.images import AnyImage, Channels
from fastreid_clip3d.compat.blocks import watch_loading
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.encoder import NetworkModel
from fastreid_clip3d.inference.preprocess import InputSize, Interpolation
from fastreid_clip3d.inference.tower_maps import tower_patches
from fastreid_clip3d.modeling.backbones.timm_backbone import check_timm_name
from fastreid_clip3d.modeling.weights import read_weights
from fastreid_clip3d.teacher.clip import create_open_clip, hash_weights, image_transform_of
from fastreid_clip3d.teacher.preprocess import ImageTransform
from fastreid_clip3d.teacher.sources import (
    EMBEDDED_TEACHER,
    LOCAL_DIR,
    find_weights,
    require_connection,
)

TIMM, OPEN_CLIP = "timm:", "open_clip:"
_WEIGHTS = "?weights="


class Tower(nn.Module):
    """A network behind the normalisation of its pixels, as fast-reid's meta-architectures have it.

    ``forward`` takes float images [B, 3, h, w] in 0..255, RGB, and gives features [B, d'] as the network does.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        for name, values in (("pixel_mean", mean), ("pixel_std", std)):
            self.register_buffer(name, 255 * torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        features = self.network(self.normalised(images))
        return features[0] if isinstance(features, tuple) else features  # open_clip's towers may also give tokens

    def normalised(self, images: Tensor) -> Tensor:
        """The network's own input."""
        return (images - self.pixel_mean) / self.pixel_std


class TowerModel(NetworkModel):
    """An image tower; pictures of any shape are squeezed to its input, so that no part of a person is cut off.

    Attributes:
        network: the :class:`Tower`, in eval mode.
        run_folder: ``logs/NAME``, where ``clip3d calibrate`` keeps its result.
    """

    def __init__(self, source: str, name: str, network: nn.Module, transform: ImageTransform, device: str) -> None:
        self.source, self.backbone_name, self.device = source, name, find_device(device)
        self.meta_architecture = name.partition(" ")[0]
        self.run_folder = Path("logs") / re.sub(r"[^\w.-]+", "_", source)
        self.recipe = InputSize(transform.size, interpolation=cast(Interpolation, transform.interpolation))
        weights = hash_weights(network)
        self.network = Tower(network, transform.mean, transform.std).eval().requires_grad_(False).to(self.device)
        settings = json.dumps([name, weights, transform.settings()], sort_keys=True)
        self.fingerprint = hashlib.sha256(settings.encode()).hexdigest()[:32]
        try:
            probe = self._raw(torch.zeros(1, 3, *self.size, dtype=torch.uint8))
        except Exception as error:  # whatever a network does with images of another size
            raise ClearError(f"{source} cannot be run on images {self.size[0]} x {self.size[1]}: {error}") from error
        if probe.ndim != 2:
            raise ClearError(f"{source} gives {list(probe.shape)} for one image, not one vector.")
        self.feature_dim = probe.shape[1]

    @torch.no_grad()
    def _raw(self, pixels: Tensor) -> Tensor:
        return self.network(pixels.to(self.device).float()).float()

    def _features(self, pixels: Tensor) -> Tensor:
        if not len(pixels):
            return torch.zeros(0, self.feature_dim)
        return F.normalize(self._raw(pixels)).cpu()

    @torch.no_grad()
    def patch_features(self, images: AnyImage | Iterable[AnyImage], channels: Channels = "RGB") -> Tensor:
        pixels = self.preprocess(images, channels).to(self.device)
        return tower_patches(self.network.network, self.network.normalised(pixels), self.source).cpu()


def timm_tower(source: str, device: str = "", size: tuple[int, int] | None = None) -> TowerModel:
    """A network of timm without its classifier: its pooled features.

    Args:
        source: ``timm:NAME``, with timm's published weights; ``timm:NAME?weights=FILE``; ``timm:local-dir:FOLDER`` or
            ``timm:hf-hub:OWNER/NAME``, folders that timm itself has written.
        size: (height, width) of the input, where the network can have another one than its own.

    Raises:
        ClearError: no such network; weights that are missing, cannot be downloaded or do not fill the network.
    """
    name, _, file = source.removeprefix(TIMM).partition(_WEIGHTS)
    options: dict[str, Any] = {"pretrained": True, "num_classes": 0}
    if not name.startswith((LOCAL_DIR, HUB)):
        check_timm_name(name, source)
        if not file:
            _require_timm_weights(source, name)
    elif file:
        raise ClearError(f"{source}: that folder has its own weights. Leave {_WEIGHTS}FILE out.")
    if file:
        options["pretrained_cfg_overlay"] = {"state_dict": read_weights(file, source), "custom_load": False}
    with watch_loading() as records:
        network = _create_timm(source, name, options, size)
    missing = records[-1].missing if records else []
    unknown = [key for key in (records[-1].unexpected if records else []) if not _is_classifier(network, key)]
    for keys, what in ((missing, "lack"), (unknown, "have other tensors than")):
        if keys:
            raise ClearError(f"{source}: the weights {what} {len(keys)} of the network's: {', '.join(keys[:5])}.")
    network.pretrained_cfg = {**network.pretrained_cfg, "state_dict": None}
    config = resolve_model_data_config(network)
    transform = ImageTransform(size or config["input_size"][1:], config["mean"], config["std"], config["interpolation"])
    return TowerModel(source, f"timm {name}", network, transform, device)


def _create_timm(source: str, name: str, options: dict[str, Any], size: tuple[int, int] | None) -> Any:
    settings: list[dict[str, Any]] = [{"img_size": size}, {}] if size else [{}]
    for chosen in settings:
        try:
            return timm.create_model(name, **options, **chosen)
        except TypeError as error:  # a network for images of any size has no img_size
            if not chosen:
                raise ClearError(f"{source} cannot be built: {error}") from error
        except Exception as error:  # timm, torch, safetensors and the hub's client each raise their own
            reason = " ".join(str(error).split())[:300]
            raise ClearError(
                f"{source}: its weights cannot be loaded ({reason}). Another file: {TIMM}NAME{_WEIGHTS}FILE."
            ) from error
    raise AssertionError("the last settings are empty")


def _require_timm_weights(source: str, name: str) -> None:
    """Raises at once where timm's published weights are neither in the hub's cache nor can be downloaded."""
    from huggingface_hub import try_to_load_from_cache

    published = timm.get_pretrained_cfg(name)
    repository = published.hf_hub_id if published else None
    if not repository:
        return
    cached = (try_to_load_from_cache(repository, file) for file in ("model.safetensors", "pytorch_model.bin"))
    if not any(isinstance(path, str) for path in cached):
        address = f"{hub_endpoint()}/{repository}"
        advice = f"By hand: download model.safetensors from {address} and write {TIMM}{name}{_WEIGHTS}FILE."
        require_connection(address, source, advice)


def _is_classifier(network: Any, key: str) -> bool:
    about = network.pretrained_cfg
    layers = about.get("classifier") or ()
    return key.startswith(tuple(f"{layer}." for layer in ((layers,) if isinstance(layers, str) else layers)))


def open_clip_tower(source: str, device: str = "") -> TowerModel:
    """The image tower of a model of open_clip, with its projection into the space shared with texts.

    Args:
        source: ``open_clip:NAME/TAG``, where TAG is one of open_clip's or a weights file (or ``TAG=FILE``);
            ``open_clip:embedded``, the teacher of this package; ``open_clip:local-dir:FOLDER``;
            ``open_clip:hf-hub:OWNER/NAME``.

    Raises:
        ClearError: no such model or tag; weights that are missing, cannot be downloaded or do not fill the model.
    """
    name, tag = source.removeprefix(OPEN_CLIP), ""
    if name != EMBEDDED_TEACHER and not name.startswith((LOCAL_DIR, HUB)):
        name, _, tag = name.partition("/")
        if not tag:
            raise ClearError(f"{source}: give {OPEN_CLIP}NAME/TAG, for example {OPEN_CLIP}ViT-B-32/openai.")
    try:
        model = create_open_clip(find_weights(name, tag), name, tag)
    except ClearError as error:
        raise ClearError(f"{source}: {error}") from error
    return TowerModel(source, f"open_clip {name}", model.visual, image_transform_of(model), device)
