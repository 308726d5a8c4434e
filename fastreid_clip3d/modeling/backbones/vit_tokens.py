"""Patch tokens of fast-reid's own ViT, which returns its class token alone."""

from __future__ import annotations

import torch
from fastreid.modeling.backbones.vision_transformer import VisionTransformer
from torch import Tensor


def vit_maps(vit: VisionTransformer, images: Tensor) -> tuple[Tensor, Tensor]:
    """Images [B, 3, H, W] -> class token [B, d', 1, 1], equal to ``vit(images)``, and patch tokens [B, d', h, w]."""
    patches = vit.patch_embed(images)
    tokens = torch.cat([vit.cls_token.expand(len(patches), -1, -1), patches], 1)
    tokens = vit.pos_drop(tokens + vit.pos_embed)
    for block in vit.blocks:
        tokens = block(tokens)
    tokens = vit.norm(tokens)
    feature_map = tokens[:, 1:].transpose(1, 2).unflatten(2, (vit.patch_embed.num_y, vit.patch_embed.num_x))
    return tokens[:, 0, :, None, None], feature_map
