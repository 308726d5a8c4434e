"""A student from the folder of its run, with nothing else at hand.

B: images. N = h x w: patches. d: width of the teacher. d': width of the student.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, Iterable, Mapping

import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.modeling.meta_arch import build_model
from torch import Tensor, nn

from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.config_loading import inference_config
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.preprocess import InputSize, Picture
from fastreid_clip3d.modeling.backbones.build import student_maps, whole_students
from fastreid_clip3d.modeling.losses import OTLoss

_TRAINING_ONLY = ("ot_loss.", "global_distill_loss.", "body_shape_loss.", "clothes_loss.", "phrase_table", "pixel_")
"""Starts of names in a checkpoint that inference does without; the classifier is one more."""


def load_model(run: str | Path, device: str = "") -> ReIDModel:
    """A trained student, ready for pictures.

    Args:
        run: a run folder (its ``model_final.pth``, or the file that ``last_checkpoint`` names), a checkpoint with
            ``config.yaml`` beside it, or an ``.onnx`` file of ``clip3d export``.
        device: ``cpu``, ``cuda`` or ``cuda:N``; "": CUDA where there is a device, else the CPU.

    Raises:
        ClearError: what is missing, damaged or does not fit, by file, and what helps.
    """
    path = Path(run)
    if path.suffix.lower() == ".onnx":
        from fastreid_clip3d.inference.onnx_model import OnnxModel

        return OnnxModel(path, device)
    return load_torch_model(path, device)


def load_torch_model(run: str | Path, device: str = "") -> TorchModel:
    """:func:`load_model` for what needs the network itself: an ``.onnx`` file is refused."""
    if Path(run).suffix.lower() == ".onnx":
        raise ClearError(f"{run} is an exported student; this needs the run folder or checkpoint it was exported from.")
    return TorchModel(*find_run_files(Path(run)), device)


class TorchModel(ReIDModel):
    """A student that PyTorch runs.

    Attributes:
        network: the ``CLIP3DReID``, ``Baseline`` or other meta-architecture, in eval mode and without training losses.
        cfg: the run's config, reduced to inference.
    """

    def __init__(self, checkpoint: Path, config: Path, device: str = "") -> None:
        self.run_folder = checkpoint.parent
        self.device = choose_device(device)
        weights = read_checkpoint(checkpoint)
        full_cfg = load_config(str(config))
        self.recipe = InputSize.from_config(full_cfg)
        self.network, self.cfg = _build_network(full_cfg, weights, checkpoint, self.device)
        self.backbone_name = f"{self.cfg.MODEL.BACKBONE.NAME} {self.cfg.MODEL.BACKBONE.DEPTH}"
        self.fingerprint = _fingerprint(self.network, self.cfg, self.recipe)
        self._full_cfg, self._checkpoint = full_cfg, checkpoint
        self._phrase_weights = {
            name: value.clone() for name, value in weights.items() if name.startswith(("ot_loss.", "phrase_table"))
        }
        self.feature_dim = self.encode(torch.zeros(1, 3, *self.size, dtype=torch.uint8)).shape[1]

    @torch.no_grad()
    def _features(self, pixels: Tensor) -> Tensor:
        if not len(pixels):
            return torch.zeros(0, self.feature_dim)
        return F.normalize(self.network({"images": self._as_input(pixels)}).float()).cpu()

    def _as_input(self, pixels: Tensor) -> Tensor:
        """Pixels as a float batch of its own (the student normalises in place), in the layout of the training."""
        layout = torch.channels_last if self.cfg.MODEL.CHANNELS_LAST else torch.contiguous_format
        return pixels.to(self.device).to(torch.float32, memory_format=layout, copy=True)

    @torch.no_grad()
    def local_features(self, images: Picture | Iterable[Picture], channels: str = "RGB") -> Tensor:
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
            return tuple(self._feature_map(self._as_input(torch.zeros(1, 3, *self.size))).shape[2:])

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
            ClearError: a checkpoint of before the phrase table was kept in it, and the teacher is not at hand.
        """
        weights = self._phrase_weights
        if "ot_loss.projection.0.weight" not in weights:
            return None
        table = weights.get("phrase_table")
        if table is None:
            table = self._table_of_teacher()
        first, second = (weights[f"ot_loss.projection.{layer}.weight"] for layer in (0, 2))
        loss = OTLoss(first.shape[1], second.shape[0], first.shape[0])
        own = {name: value for name, value in weights.items() if name.startswith("ot_loss.")}
        loss.load_state_dict({name.removeprefix("ot_loss."): value for name, value in own.items()})
        with torch.no_grad():
            return loss.project(table.float())

    def _table_of_teacher(self) -> Tensor:
        from fastreid_clip3d.teacher.guidance import guidance_from_config

        cfg = self._full_cfg.clone()
        cfg.MODEL.DEVICE = "cpu"
        try:
            return guidance_from_config(cfg).phrase_table.cpu()
        except ClearError as error:
            raise ClearError(
                f"{self._checkpoint} is from before checkpoints kept their phrases, and the teacher that has them is "
                f"not at hand: {error}"
            ) from error


def choose_device(device: str) -> torch.device:
    """The named device; "": CUDA where there is one, else the CPU.

    Raises:
        ClearError: no such device here.
    """
    if not device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ClearError(f"Device {device!r} is unknown; say cpu, cuda or cuda:N.") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ClearError(f"Device {device}: torch {torch.__version__} sees no such CUDA device here; say cpu.")
    return chosen


def find_run_files(run: Path) -> tuple[Path, Path]:
    """Checkpoint and config.yaml of a run folder or of a checkpoint in it.

    Raises:
        ClearError: names what is not there.
    """
    if not run.exists():
        raise ClearError(f"{run}: no such run folder or checkpoint.")
    checkpoint = run if run.is_file() else _checkpoint_of_folder(run)
    config = checkpoint.parent / "config.yaml"
    if not config.is_file():
        raise ClearError(
            f"{config} is missing: training writes it beside its checkpoints, and it says which network "
            f"{checkpoint.name} belongs to. Copy it there from the run's folder."
        )
    return checkpoint, config


def _checkpoint_of_folder(folder: Path) -> Path:
    final, tag = folder / "model_final.pth", folder / "last_checkpoint"
    if final.is_file():
        return final
    if tag.is_file():
        named = folder / Path(tag.read_text(encoding="utf-8", errors="replace").strip()).name
        if named.is_file():
            return named
        raise ClearError(f"{tag} names {named.name}, which is not in {folder}. Name a checkpoint, not the folder.")
    others = sorted(path.name for path in folder.glob("*.pth"))
    hint = (
        f"Name one of its checkpoints: {', '.join(others)}."
        if others
        else ("A run folder is the OUTPUT_DIR of a training that has written a checkpoint.")
    )
    raise ClearError(f"{folder} has neither model_final.pth nor last_checkpoint. {hint}")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; nothing but tensors is ever unpickled.

    Raises:
        ClearError: damaged, not a checkpoint, or without a model in it.
    """
    try:
        # Mapped, so that the optimiser's state is never read.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # zip, pickle and EOF errors alike
        reason = (str(error).splitlines() or [""])[0]
        raise ClearError(
            f"Checkpoint {path} cannot be read ({type(error).__name__}: {reason}). If it is damaged, name another "
            "checkpoint of the run."
        ) from error
    weights = content.get("model", content) if isinstance(content, Mapping) else None
    is_filled = isinstance(weights, Mapping) and len(weights) > 0
    if not is_filled or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ClearError(f'Checkpoint {path} holds no weights under "model", where fast-reid\'s trainer writes them.')
    return {name.removeprefix("module."): value for name, value in weights.items()}


def _build_network(
    full_cfg: CfgNode, weights: dict[str, Tensor], checkpoint: Path, device: torch.device
) -> tuple[nn.Module, CfgNode]:
    """The student with all of its weights, in eval mode, and the config it was built by."""
    cfg = inference_config(full_cfg)
    cfg.MODEL.DEVICE = str(device)
    classifiers = [value for name, value in weights.items() if _is_classifier(name)]
    cfg.MODEL.HEADS.NUM_CLASSES = len(classifiers[0]) if classifiers else 1
    with torch.random.fork_rng(devices=[]), whole_students():  # initial weights draw random numbers, to be overwritten
        network = build_model(cfg)
    expected = network.state_dict()
    needed = [name for name in expected if not _is_classifier(name) and not name.endswith("num_batches_tracked")]
    config = checkpoint.parent / "config.yaml"
    _refuse(
        [name for name in needed if name not in weights],
        f"Checkpoint {checkpoint} lacks {{}} of the {len(needed)} tensors of the student that {config} describes",
    )
    _refuse(
        [
            f"{name} {list(weights[name].shape)}, expected {list(expected[name].shape)}"
            for name in needed
            if weights[name].shape != expected[name].shape
        ],
        f"Checkpoint {checkpoint} has {{}} tensors of another shape than the student that {config} describes",
    )
    _refuse(
        [name for name in weights if name not in expected and not name.startswith(_TRAINING_ONLY)],
        f"Checkpoint {checkpoint} has {{}} tensors more than the student that {config} describes",
    )
    network.load_state_dict({name: value for name, value in weights.items() if name in expected}, strict=False)
    return network.eval().requires_grad_(False), cfg


def _is_classifier(name: str) -> bool:
    """Whether this is a head's classifier, which has a row for each person of the training set."""
    return name.endswith(("heads.weight", "_head.weight"))


def _refuse(names: list[str], problem: str) -> None:
    if names:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise ClearError(f"{problem.format(len(names))}: {shown}. Name the checkpoint that belongs to this config.")


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
        if not _is_classifier(name) and not name.endswith("num_batches_tracked"):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
