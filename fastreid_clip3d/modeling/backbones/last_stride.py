"""A last stride of 1, person ReID's habit, for networks whose builders offer no choice: twice the patches each way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def remove_last_stride(
    model: nn.Module, image_size: tuple[int, int], feature_map: Callable[[Tensor], Tensor] | None = None
) -> bool:
    """Sets the strides to 1 in the layers that bring ``model`` to its final resolution; weights stay as they are.

    Args:
        model: gives a feature map [B, d', h, w] for images [B, 3, H, W].
        image_size: (H, W) to try it with.
        feature_map: the model's way from images to the map, if it is not ``model`` itself.

    Returns:
        Whether the map has now twice the height and width; if not, the model is as it was.
    """
    feature_map = feature_map or model
    image = torch.zeros(1, 3, *image_size, device=next(model.parameters()).device)
    halving: list[tuple[Any, tuple[int, ...]]] = []

    def note_halving(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        halving.append((layer, tuple(output.shape[2:])))

    hooks = [
        layer.register_forward_hook(note_halving)
        for layer in model.modules()
        if isinstance(layer, _STRIDED) and layer.stride in (2, (2, 2))
    ]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            before = tuple(feature_map(image).shape[2:])
            last = [(layer, layer.stride) for layer, size in halving if size == before]
            for layer, stride in last:
                layer.stride = 1 if isinstance(stride, int) else (1, 1)
            try:
                after = tuple(feature_map(image).shape[2:])
            except Exception:  # a layer made for the smaller map
                after = before
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    if after == (2 * before[0], 2 * before[1]):
        return True
    for layer, stride in last:
        layer.stride = stride
    return False
