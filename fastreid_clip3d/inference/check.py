"""What `clip3d check-model` does: it tries a model on two pictures and describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.foreign import ForeignModel, probe_pictures
from fastreid_clip3d.inference.image_settings import write_settings


def check_model(model: ReIDModel) -> dict[str, Any]:
    """What a model takes and gives.

    Returns:
        ``source``, ``network``, ``size`` (height, width), for a file of another tool its ``mean``, ``std``,
        ``channels`` and ``range``, ``feature_dim``, ``device``, ``fingerprint``, and ``similarity``, the cosine of two
        unlike pictures.

    Raises:
        ClearError: the features of two unlike pictures are equal or not finite.
    """
    features = model.encode(probe_pictures(model.size))
    similarity = float(features[0] @ features[1])
    if float((features[0] - features[1]).abs().max()) < 1e-6:
        raise ClearError(f"{model.source} gives the same feature for two different pictures; is it trained?")
    settings = model.settings.given() if isinstance(model, ForeignModel) else {}
    return {
        "source": model.source,
        "network": model.backbone_name,
        "size": list(model.size),
        **{name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()},
        "feature_dim": model.feature_dim,
        "device": str(model.device),
        "fingerprint": model.fingerprint,
        "similarity": round(similarity, 4),
    }


def save_settings(model: ReIDModel) -> Path:
    """Writes the yaml file beside a file of another tool, and returns it.

    Raises:
        ClearError: the model knows its settings itself.
    """
    if not isinstance(model, ForeignModel):
        raise ClearError(f"{model.source} knows its settings itself; only files of other tools need a yaml file.")
    return write_settings(model.path, model.settings)
