"""The settings of a teacher's training, with the shape of its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class TrainingSettings:
    """Settings of a training, apart from its pictures.

    The first `frozen_stages` stages of the visual trunk keep their ImageNet weights. With `views` above 0, their output
    is computed once for that many random views per picture, which halves the cost of a step. With 0, each step draws
    new views. `shape_weight` weighs a linear head, for training only, that reads the body's scores and betas off the
    image embedding: phrases say on which side of a threshold a body lies, the head asks by how much. `relation_weight`
    asks that two images be as similar as their bodies are, so that clothes do not fill the embedding. Against learning
    people by heart: `dropout` before the projection, `drop_path` of blocks, `hidden`, the share of views with a patch
    painted over, and `mixup`, the share of batches whose images are averages of two.
    """

    steps: int = 1500
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 100
    text_steps: int = 200
    caption_weight: float = 0.05
    shape_weight: float = 1.0
    relation_weight: float = 0.0
    dropout: float = 0.2
    drop_path: float = 0.0
    hidden: float = 0.0
    mixup: float = 0.0
    average_decay: float = 0.995
    seed: int = 0
    frozen_stages: int = 0
    views: int = 0
    visual_tower: str = "tf_efficientnet_lite0"
    image_size: tuple[int, int] = (128, 64)
    embed_dim: int = 128
    text_width: int = 64
    text_layers: int = 2
    context_length: int = 48
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def model_config(self) -> dict[str, Any]:
        """``model_cfg`` of open_clip_config.json."""
        drop_path = {"timm_drop_path": self.drop_path} if self.drop_path else {}
        return {
            "embed_dim": self.embed_dim,
            "vision_cfg": {
                "timm_model_name": self.visual_tower,
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
                "timm_drop": self.dropout,
                **drop_path,
                "image_size": list(self.image_size),
            },
            "text_cfg": {
                "context_length": self.context_length,
                "vocab_size": 49408,
                "width": self.text_width,
                "heads": max(1, self.text_width // 32),
                "layers": self.text_layers,
            },
        }

    def preprocess_config(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "std": list(self.std), "interpolation": "bicubic", "resize_mode": "squash"}
