"""Loads a student from the folder of its run; teacher, bodies, pretrained weights and datasets may be gone.

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
from fastreid_clip3d.common.images import AnyImage, Channels
from fastreid_clip3d.config_loading import inference_config, load_run_config
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.onnx_model import OnnxModel
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


def load_model(run: str | Path, device: str = "", allow_imports: bool = False) -> ReIDModel:
    """A trained student, ready for pictures.

    Args:
        run: a run folder (its ``model_final.pth``, or the file that ``last_checkpoint`` names), a checkpoint with
            ``config.yaml`` beside it, or an ``.onnx`` file of ``clip3d export``.
        device: ``cpu``, ``cuda`` or ``cuda:N``; "": CUDA where there is a device, else the CPU.
        allow_imports: whether the run's own modules (``IMPORTS`` in its config.yaml) may be imported. They are Python
            code of the person who trained the run.

    Raises:
        ClearError: the file that is missing, damaged or does not fit, and what the user can do.

    >>> model = load_model("logs/demo/clip3d", device="cpu")
    >>> features = model(["a.jpg", "b.jpg"])
    >>> tuple(features.shape) == (2, model.feature_dim), features.norm(dim=1).round(decimals=4)
    (True, tensor([1., 1.]))
    """
    path = Path(run)
    if path.suffix.lower() == ".onnx":
        return OnnxModel(path, device)
    return load_torch_model(path, device, allow_imports)


def load_torch_model(run: str | Path, device: str = "", allow_imports: bool = False) -> TorchModel:
    """:func:`load_model` for callers that need the network itself: it refuses an ``.onnx`` file."""
    if Path(run).suffix.lower() == ".onnx":
        raise ClearError(f"{run} is an exported student. Give the run folder or checkpoint that it was exported from.")
    return TorchModel(*find_run_files(Path(run)), device, allow_imports)


class TorchModel(ReIDModel):
    """A student that PyTorch runs.

    Attributes:
        network: the ``CLIP3DReID``, ``Baseline`` or other meta-architecture, in eval mode and without training losses.
        cfg: the run's config, reduced to inference.
    """

    network: Any  # a meta-architecture of fast-reid, which has no types; nn.Module does not declare its parts

    def __init__(self, checkpoint: Path, config: Path, device: str = "", allow_imports: bool = False) -> None:
        self.run_folder = checkpoint.parent
        self.device = find_device(device)
        weights = read_weights(checkpoint)
        full_cfg = load_run_config(config, allow_imports)
        self.recipe = InputSize.from_config(full_cfg)
        self.network, self.cfg = _build_network(full_cfg, weights, checkpoint, self.device)
        self.backbone_name = f"{self.cfg.MODEL.BACKBONE.NAME} {self.cfg.MODEL.BACKBONE.DEPTH}"
        self.fingerprint = _fingerprint(self.network, self.cfg, self.recipe)
        self._full_cfg, self._checkpoint = full_cfg, checkpoint
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
                f"{self._checkpoint} is too old to hold its phrases, and the teacher that has them cannot be loaded: "
                f"{error}"
            ) from error


def find_run_files(run: Path) -> tuple[Path, Path]:
    """Checkpoint and config.yaml of a run folder or of a checkpoint in it.

    Raises:
        ClearError: one of them is missing; the message names it.
    """
    if not run.exists():
        raise ClearError(f"{run}: no such run folder or checkpoint.")
    checkpoint = find_checkpoint(run)
    config = checkpoint.parent / "config.yaml"
    if not config.is_file():
        raise ClearError(
            f"{config} is missing. Training writes it beside its checkpoints, and it describes the network of "
            f"{checkpoint.name}. Copy it there from the run's folder."
        )
    return checkpoint, config


def _build_network(
    full_cfg: CfgNode, weights: dict[str, Tensor], checkpoint: Path, device: torch.device
) -> tuple[Any, CfgNode]:
    """The student with all of its weights, in eval mode, and the config that built it."""
    cfg = inference_config(full_cfg)
    cfg.MODEL.DEVICE = str(device)
    weights = with_current_names(weights, ())
    classifiers = [value for name, value in weights.items() if is_classifier(name)]
    cfg.MODEL.HEADS.NUM_CLASSES = len(classifiers[0]) if classifiers else 1
    with torch.random.fork_rng(devices=[]), whole_students():  # initial weights draw random numbers, to be overwritten
        network = build_model(cfg)
    student = f"the student that {checkpoint.parent / 'config.yaml'} describes"
    fit = fitting_weights(weights, network, "inference", f"Checkpoint {checkpoint}", student)
    network.load_state_dict(fit.weights, strict=False)
    return network.eval().requires_grad_(False), cfg


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
