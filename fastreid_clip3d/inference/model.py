"""A student from the folder of its run, run by PyTorch; teacher, bodies, pretrained weights and datasets may be gone.

B: images. N = h x w: patches. d: width of the teacher. d': width of the student.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.modeling.meta_arch import build_model
from torch import Tensor, nn

from fastreid_clip3d.common.devices import find_device
from fastreid_clip3d.common.hub import HUB
from fastreid_clip3d.common.images import AnyImage, Channels
from fastreid_clip3d.config_loading import find_config, inference_config, load_run_config
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.encoder import NetworkModel
from fastreid_clip3d.inference.hub import downloaded
from fastreid_clip3d.inference.preprocess import InputSize
from fastreid_clip3d.modeling.backbones.build import student_maps, whole_students
from fastreid_clip3d.modeling.losses import OTLoss
from fastreid_clip3d.modeling.weights import (
    find_checkpoint,
    fitting_weights,
    is_classifier,
    read_weights,
    with_current_names,
)


def load_torch_model(run: str | Path, device: str = "", allow_imports: bool = False, config: str = "") -> TorchModel:
    """The network of a run, checkpoint or model of the hub, for callers that need its parts.

    The arguments are those of ``load_model``, which also takes sources without such a network.
    """
    if Path(run).suffix.lower() == ".onnx":
        raise ClearError(f"{run} is an exported student. Give the run folder or checkpoint that it was exported from.")
    return TorchModel(*find_run_files(run, config), device, allow_imports)


class TorchModel(NetworkModel):
    """A student that PyTorch runs.

    Attributes:
        checkpoint: the file of its weights.
        network: the ``CLIP3DReID``, ``Baseline`` or other meta-architecture, in eval mode and without training losses.
        cfg: the run's config, reduced to inference.
    """

    def __init__(self, checkpoint: Path, config: Path, device: str = "", allow_imports: bool = False) -> None:
        self.source, self.checkpoint, self.run_folder = str(checkpoint), checkpoint, checkpoint.parent
        self.device = find_device(device)
        weights = read_weights(checkpoint)
        full_cfg = load_run_config(config, allow_imports)
        self.recipe = InputSize.from_config(full_cfg)
        self.network, self.cfg = _build_network(full_cfg, weights, checkpoint, config, self.device)
        self.meta_architecture = str(self.cfg.MODEL.META_ARCHITECTURE)
        self.backbone_name = f"{self.cfg.MODEL.BACKBONE.NAME} {self.cfg.MODEL.BACKBONE.DEPTH}"
        self.fingerprint = _fingerprint(self.network, self.cfg, self.recipe)
        self._full_cfg = full_cfg
        self._phrase_weights = {
            name: value.clone() for name, value in weights.items() if name.startswith(("ot_loss.", "phrase_table"))
        }
        self.feature_dim = self.encode(torch.full((1, 3, *self.size), 255, dtype=torch.uint8)).shape[1]

    @torch.no_grad()
    def _features(self, pixels: Tensor) -> Tensor:
        if not len(pixels):
            return torch.zeros(0, self.feature_dim)
        return F.normalize(self.network({"images": self._as_input(pixels)}).float()).cpu()

    def _as_input(self, pixels: Tensor) -> Tensor:
        """A float copy of pixels (the student normalises in place), in the memory layout of the training."""
        layout = torch.channels_last if self.cfg.MODEL.CHANNELS_LAST else torch.contiguous_format
        return pixels.to(self.device).to(torch.float32, memory_format=layout, copy=True)

    @torch.no_grad()
    def local_features(self, images: AnyImage | Iterable[AnyImage], channels: Channels = "RGB") -> Tensor:
        """F, the student's patches from top left to bottom right, float32 [B, N, d'] on the CPU, not normalised.

        Raises:
            ClearError: as in calling the model, or a network without a feature map (MGN).
        """
        batch = self.preprocess(images, channels)
        return self._feature_map(self._as_input(batch)).flatten(2).transpose(1, 2).float().cpu()

    @functools.cached_property
    def map_size(self) -> tuple[int, int]:
        """Rows and columns of the patches, N = h x w."""
        with torch.no_grad():
            rows, columns = self._feature_map(self._as_input(torch.zeros(1, 3, *self.size))).shape[2:]
        return rows, columns

    @torch.no_grad()
    def patch_features(self, images: AnyImage | Iterable[AnyImage], channels: Channels = "RGB") -> Tensor:
        patches = self.local_features(images, channels)
        alone = self.network.heads(patches.flatten(0, 1)[:, :, None, None].to(self.device)).float().cpu()
        return alone.unflatten(0, (len(patches), *self.map_size))

    def _feature_map(self, images: Tensor) -> Tensor:
        if not hasattr(self.network, "heads"):
            raise ClearError(
                f"{self.run_folder}: MODEL.META_ARCHITECTURE {self.cfg.MODEL.META_ARCHITECTURE} has no one feature map."
            )
        return student_maps(self.network.backbone, self.network.preprocess_image({"images": images})).feature_map

    @functools.cached_property
    def phrase_features(self) -> Tensor | None:
        """Psi of the 32 phrases, L2-normalised, float32 [32, d'] on the CPU; None for a training without ``OTLoss``.

        Raises:
            ClearError: the checkpoint is too old to hold the phrase table, and the teacher cannot be loaded.
        """
        weights = self._phrase_weights
        if "ot_loss.projection.0.weight" not in weights:
            return None
        table = weights.get("phrase_table")
        if table is None:
            table = self._table_of_teacher()
        with torch.no_grad():
            return OTLoss.from_weights(weights).project(table.float())

    def _table_of_teacher(self) -> Tensor:
        from fastreid_clip3d.teacher.guidance import guidance_from_config

        cfg = self._full_cfg.clone()
        cfg.MODEL.DEVICE = "cpu"
        try:
            return guidance_from_config(cfg).phrase_table.cpu()
        except ClearError as error:
            raise ClearError(
                f"{self.checkpoint} is too old to hold its phrases, and the teacher that has them cannot be loaded: "
                f"{error}"
            ) from error


def find_run_files(run: str | Path, config: str = "") -> tuple[Path, Path]:
    """Checkpoint and config file of a run folder, of a checkpoint, or of a model of the hub.

    Args:
        run: also ``hf-hub:OWNER/NAME``. config: the config file, also the name of one that comes with the package; "":
            ``config.yaml`` beside the checkpoint.

    Raises:
        ClearError: one of them is missing; the message names it.
    """
    path = downloaded(run) if isinstance(run, str) and run.startswith(HUB) else Path(run)
    if not path.exists():
        raise ClearError(f"{path}: no such run folder or checkpoint.")
    checkpoint = find_checkpoint(path)
    if config:
        return checkpoint, find_config(config, "--config")
    beside = checkpoint.parent / "config.yaml"
    if not beside.is_file():
        raise ClearError(
            f"{beside} is missing. Training writes it beside its checkpoints, and it describes the network of "
            f"{checkpoint.name}. Copy it there from the run's folder, or name the config file: --config FILE "
            "(load_model(..., config=FILE))."
        )
    return checkpoint, beside


def _build_network(
    full_cfg: CfgNode, weights: dict[str, Tensor], checkpoint: Path, config: Path, device: torch.device
) -> tuple[Any, CfgNode]:
    """The student with all of its weights, in eval mode, and the config that built it."""
    cfg = inference_config(full_cfg)
    cfg.MODEL.DEVICE = str(device)
    weights = with_current_names(weights, ())
    classifiers = [value for name, value in weights.items() if is_classifier(name)]
    cfg.MODEL.HEADS.NUM_CLASSES = len(classifiers[0]) if classifiers else 1
    with torch.random.fork_rng(devices=[]), whole_students():  # initial weights draw random numbers, to be overwritten
        network = build_model(cfg)
    student = f"the student that {config} describes"
    fit = fitting_weights(weights, network, "inference", f"Checkpoint {checkpoint}", student)
    network.load_state_dict(fit.weights, strict=False)
    _check_pixels(weights, network, checkpoint, config)
    return network.eval().requires_grad_(False), cfg


def _check_pixels(weights: dict[str, Tensor], network: Any, checkpoint: Path, config: Path) -> None:
    """Refuses a config with other pixel statistics than those that fast-reid's older releases kept in checkpoints."""
    for name in ("pixel_mean", "pixel_std"):
        stored, of_config = weights.get(name), getattr(network, name, None)
        if stored is None or of_config is None:
            continue
        if not torch.allclose(stored.flatten().float(), of_config.flatten().float().cpu(), atol=1e-2):
            raise ClearError(
                f"{checkpoint} was trained with {name} {stored.flatten().tolist()}, and MODEL.{name.upper()} of "
                f"{config} is {of_config.flatten().tolist()}. Name the config that belongs to this checkpoint."
            )


def _fingerprint(network: nn.Module, cfg: CfgNode, recipe: InputSize) -> str:
    """Digest of all that features depend on: weights, network, pixel statistics, input size."""
    backbone = {key: value for key, value in cfg.MODEL.BACKBONE.items() if not key.startswith("PRETRAIN")}
    heads = {key: value for key, value in cfg.MODEL.HEADS.items() if key != "NUM_CLASSES"}
    settings: dict[str, Any] = {
        "meta_architecture": cfg.MODEL.META_ARCHITECTURE,
        "backbone": backbone,
        "heads": heads,
        "pixels": [cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD],
        "input": [recipe.resize, recipe.crop],
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, value in sorted(network.state_dict().items()):
        if not is_classifier(name) and not name.endswith("num_batches_tracked"):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
