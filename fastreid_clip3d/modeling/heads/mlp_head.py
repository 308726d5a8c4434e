"""A head whose global feature is the pooled feature map through an MLP with one hidden layer (paper, Section 3.1)."""

from __future__ import annotations

from typing import Any

from fastreid.config import CfgNode, configurable
from fastreid.modeling.heads import REID_HEADS_REGISTRY, EmbeddingHead
from torch import Tensor, nn

from fastreid_clip3d.modeling.losses import MLP


class PooledMLP(nn.Module):
    """Feature map [B, C, H, W] to f_id [B, D, 1, 1], the shape of a pooled feature map.

    With `residual` the pooled features are added, and the MLP's last layer starts at zero: a pretrained student starts
    from its own features. It needs C = D.
    """

    def __init__(self, pool: nn.Module, mlp: MLP, residual: bool) -> None:
        super().__init__()
        self.pool, self.mlp, self.residual = pool, mlp, residual
        if residual:
            for parameter in mlp[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, feature_map: Tensor) -> Tensor:
        pooled = self.pool(feature_map).flatten(1)
        features = self.mlp(pooled)
        if self.residual:
            features = features + pooled
        return features[..., None, None]


@REID_HEADS_REGISTRY.register()
class MLPHead(EmbeddingHead):
    """fast-reid's ``EmbeddingHead`` with f_id = MLP(pool(F)); its neck and classifier layers work on f_id as usual.

    Keys: all of ``MODEL.HEADS`` and ``MODEL.HEADS.MLP.{HIDDEN_DIM, OUT_DIM, RESIDUAL}``.
    """

    @configurable
    def __init__(self, *, pooled_dim: int, hidden_dim: int, residual: bool, **embedding_head: Any) -> None:
        super().__init__(**embedding_head)
        mlp = MLP(pooled_dim, hidden_dim, embedding_head["feat_dim"])
        self.pool_layer: nn.Module = PooledMLP(self.pool_layer, mlp, residual)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        arguments = super().from_config(cfg)
        pooled_dim, keys = cfg.MODEL.BACKBONE.FEAT_DIM, cfg.MODEL.HEADS.MLP
        out_dim = keys.OUT_DIM or pooled_dim
        if keys.RESIDUAL and out_dim != pooled_dim:
            raise ValueError(
                f"MODEL.HEADS.MLP.RESIDUAL needs OUT_DIM 0 or {pooled_dim} (the pooled width), not {out_dim}"
            )
        arguments["feat_dim"] = out_dim
        return {
            "pooled_dim": pooled_dim,
            "hidden_dim": keys.HIDDEN_DIM or pooled_dim,
            "residual": keys.RESIDUAL,
            **arguments,
        }


def global_feature_dim(cfg: CfgNode, side: str = "") -> int:
    """Width of f_id before or after the neck, for any head; `side` "": as ``MODEL.HEADS.NECK_FEAT`` says."""
    width = cfg.MODEL.BACKBONE.FEAT_DIM
    if cfg.MODEL.HEADS.NAME == "MLPHead":
        width = cfg.MODEL.HEADS.MLP.OUT_DIM or width
    if (side or cfg.MODEL.HEADS.NECK_FEAT) == "after" and cfg.MODEL.HEADS.EMBEDDING_DIM > 0:
        width = cfg.MODEL.HEADS.EMBEDDING_DIM
    return width
