"""Features of single patches from an image tower: its last feature map, and what its head makes of one patch.

B: images. N = h x w: patches. P: tokens before the patches' (class, registers). c: channels of the map. d': width of
the feature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from fastreid_clip3d.errors import ClearError

PATCHES_AT_ONCE = 32


class LastMap(NamedTuple):
    """The last feature map of a network.

    Attributes:
        output: [B, c, h, w], [B, h, w, c] or, with tokens, [B, P + N, c].
        head: such an output -> features [B, d'].
        prefix: P. channels_last: whether a map of four axes ends with c.
    """

    output: Tensor
    head: Callable[[Tensor], Tensor]
    prefix: int = 0
    channels_last: bool = False


@torch.no_grad()
def tower_patches(network: nn.Module, images: Tensor, source: str) -> Tensor:
    """The feature of each patch: what the head makes of a map that has this patch at every place.

    Args:
        network: a network of timm, or the image tower of a model of open_clip.
        images: normalised, float32 [B, 3, H, W]. source: the network's name, for messages.

    Returns:
        float32 [B, h, w, d'].

    Raises:
        ClearError: the network has no feature map that we know, or its tokens are no grid.
    """
    found = _last_map(network, images)
    if found is None or found.output.ndim not in (3, 4):
        raise ClearError(
            f"{source} has no feature map: its last layer before the head gives no grid of patches. Convolutional "
            "networks of timm, Swin, ViT and EVA-02, and open_clip's towers have one."
        )
    output = found.output
    if output.ndim == 4:
        channels = output if found.channels_last else output.permute(0, 2, 3, 1)
    else:
        grid = _grid(output.shape[1] - found.prefix, images.shape[2], images.shape[3], source)
        channels = output[:, found.prefix :].unflatten(1, grid)
    parts = [_alone(found, patches) for patches in channels.flatten(0, 2).split(PATCHES_AT_ONCE)]
    return torch.cat(parts).unflatten(0, channels.shape[:3])


def _alone(found: LastMap, patches: Tensor) -> Tensor:
    """Features float32 [n, d'] of patches [n, c], each at every place of its own map."""
    shape = found.output.shape
    if found.output.ndim == 3 or found.channels_last:
        filled = patches.reshape(len(patches), *[1] * (len(shape) - 2), -1).expand(-1, *shape[1:])
    else:
        filled = patches[:, :, None, None].expand(-1, *shape[1:])
    return found.head(filled.contiguous()).float()


def _last_map(network: Any, images: Tensor) -> LastMap | None:
    if isinstance(network, TimmModel):
        return _map_of_timm(network.trunk, images, network.head)
    if isinstance(network, VisionTransformer):
        return LastMap(_output_of(network.transformer, network, images), lambda tokens: _clip_head(network, tokens), 1)
    if isinstance(network, ModifiedResNet):
        return LastMap(_output_of(network.layer4, network, images), network.attnpool)
    if hasattr(network, "forward_features") and hasattr(network, "forward_head"):
        return _map_of_timm(network, images)
    return None


def _map_of_timm(network: Any, images: Tensor, projection: Callable[[Tensor], Tensor] | None = None) -> LastMap | None:
    output = network.forward_features(images)
    if not isinstance(output, Tensor):
        return None

    def head(features: Tensor) -> Tensor:
        pooled = network.forward_head(features)
        return pooled if projection is None else projection(pooled)

    prefix = getattr(network, "num_prefix_tokens", None) or 0
    return LastMap(output, head, prefix, str(getattr(network, "output_fmt", "")) == "NHWC")


def _clip_head(network: Any, tokens: Tensor) -> Tensor:
    pooled, _ = network._pool(tokens)
    return pooled if network.proj is None else pooled @ network.proj


def _output_of(layer: nn.Module, network: nn.Module, images: Tensor) -> Tensor:
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        network(images)
    finally:
        handle.remove()
    return outputs[0]


def _grid(count: int, height: int, width: int, source: str) -> tuple[int, int]:
    """Rows and columns of `count` square patches of an image."""
    side = math.sqrt(height * width / max(count, 1))
    rows, columns = round(height / side), round(width / side)
    if rows * columns != count or count < 2:
        raise ClearError(f"{source} has no feature map: its {count} tokens are no grid over {height} x {width} pixels.")
    return rows, columns
