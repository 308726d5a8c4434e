"""The frozen teacher: any open_clip model, used for image embeddings and for one table of phrase embeddings.

Shape letters: B images, 3 x H x W the teacher's own input, d embedding width (768 for ViT-L/14, 512 for ViT-B).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import open_clip
import timm
import torch
from PIL import Image
from torch import nn

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher.folding import fold_batch_norm
from fastreid_clip3d.teacher.labels import choose_phrases, phrase_scores
from fastreid_clip3d.teacher.preprocess import ImageTransform, normalize
from fastreid_clip3d.teacher.sources import EMBEDDED_TEACHER, LOCAL_DIR, WeightSource, find_weights
from fastreid_clip3d.vocabulary import prompts

PRECISIONS = ("amp", "bf16", "fp32")
_TEXT_PARTS = ("text", "transformer", "token_embedding", "ln_final", "text_decoder")


@dataclass(frozen=True)
class Fingerprint:
    """Everything that a teacher's answers depend on; two equal fingerprints give equal labels."""

    teacher: str
    weights: str
    preprocessing: dict
    prompts: list[str]
    versions: dict[str, str]
    precision: str

    def as_dict(self) -> dict:
        return dict(vars(self))

    def digest(self) -> str:
        """One hash of everything."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


class Teacher:
    """A frozen CLIP model: no gradients, always in eval mode, no part of any ``nn.Module``, state dict or optimiser.

    Attributes:
        name, pretrained: as given to :func:`load_teacher`.
        image_transform: PIL image to uint8 [3, H, W]. Can be pickled, so each dataset worker can have a copy.
        phrase_table: raw text embeddings of ``vocabulary.prompts()``, float32 [32, d], on the teacher's device.
        embed_dim: d.
        image_size: (H, W) of the teacher's input, pixels.
        fingerprint: see :class:`Fingerprint`.
    """

    def __init__(
        self,
        model: Any,  # open_clip's models have no common type
        image_transform: ImageTransform,
        phrase_table: torch.Tensor,
        fingerprint: Fingerprint,
        name: str,
        pretrained: str,
        device: str | torch.device,
        precision: str,
    ) -> None:
        self.name, self.pretrained = name, pretrained
        self.image_transform = image_transform
        self.fingerprint = fingerprint
        self.precision = precision
        self._channels_last = prefers_channels_last(model)
        self._model = _freeze(_fold_visual(model, image_transform.size))
        self.phrase_table = phrase_table.detach().float()
        self._mean = torch.tensor(image_transform.mean).view(3, 1, 1)
        self._std = torch.tensor(image_transform.std).view(3, 1, 1)
        self.to(device)

    @property
    def embed_dim(self) -> int:
        return self.phrase_table.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        return self.image_transform.size

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """A PIL image as the teacher's input, uint8 [3, H, W]; mirror it before, if the student's image is mirrored."""
        return self.image_transform(image)

    @torch.no_grad()
    def encode_images(self, teacher_images: torch.Tensor) -> torch.Tensor:
        """g, the raw (not normalised) image embeddings.

        Args:
            teacher_images: [B, 3, H, W], values 0..255 (uint8 or float), as `image_transform` makes them, any device.

        Returns:
            float32 [B, d] on the teacher's device, without gradient.
        """
        images = normalize(teacher_images.to(self.device, non_blocking=True), self._mean, self._std)
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            return self._model.encode_image(images, normalize=False).float()

    def label_images(self, teacher_images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(g [B, d], scores [B, 32], phrase_choices int64 [B, 16]) of ready images, see :meth:`encode_images`."""
        features = self.encode_images(teacher_images)
        scores = phrase_scores(features, self.phrase_table)
        return features, scores, choose_phrases(scores)

    def to(self, device: str | torch.device) -> Teacher:
        """Moves the teacher; mixed precision applies on CUDA only."""
        self.device = torch.device(device)
        self._model.to(self.device)
        if self._channels_last:
            self._model.to(memory_format=torch.channels_last)
        self.phrase_table = self.phrase_table.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)
        return self

    def train(self, mode: bool = True) -> Teacher:
        """Has no effect: the teacher stays in eval mode."""
        return self

    def eval(self) -> Teacher:
        return self

    @property
    def training(self) -> bool:
        return any(part.training for part in self._model.modules())

    def parameters(self) -> Iterator[nn.Parameter]:
        """The frozen weights, for inspection; none requires a gradient."""
        return self._model.parameters()

    def _autocast(self) -> torch.autocast:
        """The teacher's own precision, whatever the caller's autocast is."""
        precision = effective_precision(self.precision, self.device)
        if precision == "fp32":
            return torch.autocast(self.device.type, enabled=False)
        return torch.autocast("cuda", dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def effective_precision(precision: str, device: str | torch.device) -> str:
    """The precision a teacher computes in: as asked on CUDA, always fp32 on a CPU."""
    return precision if torch.device(device).type == "cuda" else "fp32"


def load_teacher(
    name: str = EMBEDDED_TEACHER,
    pretrained: str = "",
    resize: str = "squash",
    device: str | torch.device = "cpu",
    precision: str = "amp",
) -> Teacher:
    """Loads a frozen teacher.

    Args:
        name: an open_clip model ("ViT-L-14", "ViT-B-32", ...), "embedded" (ships with the package),
            "local-dir:FOLDER" (open_clip_config.json and weights) or "hf-hub:OWNER/REPOSITORY".
        pretrained: for an open_clip model its pretrained tag ("openai", ...) or the path of a weights file.
        resize: "squash" or "pad" (to the input's aspect ratio with the mean colour).
        device: where it runs.
        precision: "amp" (float16 autocast), "bf16" or "fp32"; on a CPU always float32.

    Raises:
        ClearError: unknown name, tag or option, missing or unreadable weights, or no network for a download.
    """
    if precision not in PRECISIONS:
        raise ClearError(f"teacher precision '{precision}' is unknown; choose one of: {', '.join(PRECISIONS)}.")
    source = find_weights(name, pretrained)
    model = create_open_clip(source, name, pretrained)
    transform = image_transform_of(model, resize)
    table = encode_prompts(model, source.model_name, prompts())
    fingerprint = Fingerprint(
        teacher=f"{name} / {pretrained}" if pretrained else name,
        weights=hash_weights(model),
        preprocessing=transform.settings(),
        prompts=prompts(),
        versions={"open_clip": open_clip.__version__, "timm": timm.__version__, "torch": torch.__version__},
        precision=effective_precision(precision, device),
    )
    return Teacher(_drop_text_tower(model), transform, table, fingerprint, name, pretrained, device, precision)


def image_transform_of(model: Any, resize: str = "squash") -> ImageTransform:
    """What open_clip's own config of a model says about its images; `resize` as in :func:`load_teacher`."""
    settings = model.visual.preprocess_cfg
    size = settings["size"]
    return ImageTransform(
        size=(size, size) if isinstance(size, int) else tuple(size),
        mean=settings["mean"],
        std=settings["std"],
        interpolation=settings["interpolation"],
        resize=resize,
    )


@torch.no_grad()
def encode_prompts(model: Any, model_name: str, sentences: list[str]) -> torch.Tensor:
    """Raw text embeddings [len(sentences), d] of an open_clip model on a CPU, in float32."""
    try:
        tokenizer = open_clip.get_tokenizer(model_name)
    except ModuleNotFoundError as error:
        raise ClearError(
            f"teacher {model_name}: its tokenizer needs the Python package {error.name}, which is not installed. "
            f"Install it (pip install {error.name}) and keep the tokenizer's files (tokenizer.json, "
            "tokenizer_config.json, special_tokens_map.json) in the teacher's folder or in the hub's cache."
        ) from error
    return model.eval().encode_text(tokenizer(sentences), normalize=False).float()


def hash_weights(model: nn.Module) -> str:
    """SHA-256 over names, shapes and values of a model's state."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.view(torch.uint8).numpy() if value.dim() else value.reshape(1).view(torch.uint8).numpy())
    return digest.hexdigest()


def create_open_clip(source: WeightSource, name: str, pretrained: str) -> Any:
    """open_clip's own model of a teacher, on a CPU, with its weights; raises ClearError where these do not load."""
    subject = f"{name} / {pretrained}" if pretrained else name
    try:
        with _quiet_open_clip(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="QuickGELU mismatch")
            return open_clip.create_model(
                source.model_name,
                pretrained=source.weights_path,
                # open_clip only warns when weights were trained with QuickGELU and the model name says otherwise
                force_quick_gelu=source.quick_gelu,
                force_preprocess_cfg=source.preprocess,
                require_pretrained=True,
                pretrained_image=False,
                pretrained_text=False,
                weights_only=True,
            )
    except Exception as error:  # open_clip, torch, safetensors and json each raise their own
        where = source.weights_path or source.model_name[len(LOCAL_DIR) :]
        raise ClearError(
            f"the weights of teacher {subject} in {where} cannot be loaded: {_first_line(error)} "
            "The file must be a whole state dict of exactly this model (safetensors, or a .pt without pickled code)."
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """open_clip logs to the root logger, a dozen lines for every model."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(previous)


def prefers_channels_last(model: nn.Module) -> bool:
    """Convolutional towers do; a transformer's one patch convolution makes no difference."""
    return any(isinstance(part, nn.BatchNorm2d) for part in model.modules())


def _fold_visual(model: Any, size: tuple[int, int]) -> Any:
    model.eval()
    if prefers_channels_last(model):
        model.visual = fold_batch_norm(
            model.visual, torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
        )
    return model


def _drop_text_tower(model: Any) -> Any:
    """After the table is made the text tower would only take memory (a third of ViT-L/14)."""
    for part in _TEXT_PARTS:
        if isinstance(getattr(model, part, None), nn.Module):
            setattr(model, part, nn.Identity())
    return model


def _freeze(model: Any) -> Any:
    model.eval().requires_grad_(False)
    model.train = types.MethodType(_stay_in_eval, model)
    return model


def _stay_in_eval(model: nn.Module, mode: bool = True) -> nn.Module:
    return model
