"""Any timm network that gives a feature map or tokens, as a fast-reid backbone.

B: images. d': width of the student. N = h x w: patches.
"""

from __future__ import annotations

import difflib
import logging
import math
from typing import Any

import timm
import torch
from fastreid.config import CfgNode
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from torch import Tensor, nn

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.backbones.last_stride import remove_last_stride
from fastreid_clip3d.modeling.weights import read_weights

logger = logging.getLogger(__name__)


class TimmBackbone(nn.Module):
    """A timm network without its pooling and classifier.

    ``forward`` gives what fast-reid's heads pool: the feature map [B, d', h, w], or the class token [B, d', 1, 1] of a
    network that classifies by it. :meth:`maps` gives that and the patches.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model  # timm's networks have no common type
        self.num_features = int(getattr(model, "num_features"))  # noqa: B009  (torch types attributes as modules)
        class_token = getattr(model, "cls_token", None) is not None
        self.num_prefix_tokens: int = getattr(model, "num_prefix_tokens", None) or int(class_token)
        self.uses_class_token: bool = class_token and getattr(model, "global_pool", None) == "token"

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images)[0]

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] -> what the head pools, [B, d', h, w] or [B, d', 1, 1], and the patches [B, d', h, w]."""
        features = self.model.forward_features(images)
        if features.dim() == 4:
            if getattr(self.model, "output_fmt", None) == "NHWC":
                features = features.permute(0, 3, 1, 2)
            return features, features
        # Networks that pool their patches normalise after pooling; here each patch is normalised.
        if getattr(self.model, "fc_norm", None) is not None:
            features = self.model.fc_norm(features)
        patches = features[:, self.num_prefix_tokens :]
        height, width = self._grid(patches.shape[1], images.shape[2], images.shape[3])
        feature_map = patches.transpose(1, 2).unflatten(2, (height, width))
        if self.uses_class_token:
            return features[:, 0, :, None, None], feature_map
        return feature_map, feature_map

    def _grid(self, num_patches: int, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the patches: the network's own grid, or the one in the image's proportions."""
        embed = getattr(self.model, "patch_embed", None)
        grid = embed.dynamic_feat_size((height, width)) if embed and hasattr(embed, "dynamic_feat_size") else None
        if grid is not None and grid[0] * grid[1] == num_patches:
            return tuple(grid)
        rows = round(math.sqrt(num_patches * height / width))
        return rows, num_patches // max(rows, 1)


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode) -> TimmBackbone:
    """The timm network named by ``MODEL.BACKBONE.DEPTH``, for images of ``INPUT.SIZE_TRAIN``.

    Keys of fast-reid with their meaning here: ``PRETRAIN_PATH`` a weights file of that network ("" with ``PRETRAIN``
    True: from timm's hub); ``LAST_STRIDE`` 1 takes the last downsampling away where the network has one that can be
    (by dilation where timm offers it); ``DROP_PATH_RATIO``, ``DROP_RATIO`` for networks made for one image size, i.e.
    transformers. Position embeddings are resized to ``SIZE_TRAIN``. Not every network uses ImageNet's mean and standard
    deviation: see ``PIXEL_MEAN`` in the table of students.

    Raises:
        ClearError: for a name that timm does not know (with the nearest ones), a last stride other than 1 or 2, a
            network without patches, weights that are missing or belong to another network.
    """
    options = cfg.MODEL.BACKBONE
    if options.LAST_STRIDE not in (1, 2):
        raise ClearError(f"MODEL.BACKBONE.LAST_STRIDE must be 1 or 2, got {options.LAST_STRIDE!r}.")
    check_timm_name(options.DEPTH)
    image_size = tuple(cfg.INPUT.SIZE_TRAIN)
    weights: dict[str, Any] = {"pretrained": bool(options.PRETRAIN)}
    if options.PRETRAIN and options.PRETRAIN_PATH:
        # timm renames tensors of other versions and resizes position embeddings on the way.
        weights["pretrained_cfg_overlay"] = {"state_dict": _without_classifier(options)}
    for_one_size = {"img_size": image_size, "drop_path_rate": options.DROP_PATH_RATIO, "drop_rate": options.DROP_RATIO}
    if tuple(cfg.INPUT.SIZE_TEST) != image_size:
        for_one_size["dynamic_img_size"] = True
    settings = [for_one_size, {"img_size": image_size}]
    if options.LAST_STRIDE == 1:
        settings.append({"output_stride": 16})
    model, used = _create(options.DEPTH, [*settings, {}], weights)
    model.pretrained_cfg = {**model.pretrained_cfg, "state_dict": None}
    backbone = TimmBackbone(model)
    check_patches(backbone, options.DEPTH, image_size)
    by_hand = options.LAST_STRIDE == 1 and "output_stride" not in used
    if by_hand and not (_gives_a_map(backbone, image_size) and remove_last_stride(model, image_size, backbone)):
        logger.info(f"timm {options.DEPTH} has no last stride that can be set to 1; it stays as timm builds it")
    return backbone


def check_timm_name(name: str, named_by: str = "") -> None:
    """Raises unless timm knows a network of this name, and its weights if a tag follows after a dot.

    Args:
        named_by: how an error calls the place of the name; "": the key.

    Raises:
        ClearError: naming the nearest names or the known tags.
    """
    architecture, _, tag = str(name).partition(".")
    subject = named_by or f"MODEL.BACKBONE.DEPTH {name!r}"
    if not timm.is_model(architecture):
        nearest = difflib.get_close_matches(architecture, timm.list_models(), 3, 0.5)
        hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
        raise ClearError(f"{subject}: timm {timm.__version__} has no network of that name.{hint}")
    known = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in known:
        raise ClearError(
            f"{subject}: timm {timm.__version__} knows no weights of that tag. Known: {', '.join(known) or 'none'}."
        )


def check_patches(backbone: TimmBackbone, name: str, image_size: tuple[int, int]) -> None:
    """Raises unless the network turns an image of that size into a feature map.

    Raises:
        ClearError: naming the network.
    """
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            feature_map = backbone.maps(torch.zeros(1, 3, *image_size))[1]
    except Exception as error:  # whatever a network made for something else does
        raise ClearError(
            f"timm {name} (MODEL.BACKBONE.DEPTH) gives no feature map for images of {image_size[0]} x {image_size[1]} "
            f"(INPUT.SIZE_TRAIN): {error}"
        ) from error
    finally:
        backbone.train(was_training)
    if feature_map.dim() != 4 or feature_map.shape[1] != backbone.num_features:
        raise ClearError(
            f"timm {name} (MODEL.BACKBONE.DEPTH) gives {tuple(feature_map.shape)} for one image, not a feature map of "
            f"width {backbone.num_features}."
        )


def _without_classifier(options: CfgNode) -> dict[str, Tensor]:
    """The named tensors of ``PRETRAIN_PATH`` but for the layers that timm calls the network's classifier."""
    known = timm.get_pretrained_cfg(options.DEPTH)
    classifiers = (known.classifier if known else None) or ()
    layers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    return {
        name: value
        for name, value in read_weights(options.PRETRAIN_PATH).items()
        if not name.startswith(tuple(f"{layer}." for layer in layers))
    }


def _gives_a_map(backbone: TimmBackbone, image_size: tuple[int, int]) -> bool:
    """Whether the network itself ends in a map and not in tokens, whose grid is fixed by the position embedding."""
    with torch.no_grad():
        return backbone.model.forward_features(torch.zeros(1, 3, *image_size)).dim() == 4


def _create(name: str, settings: list[dict], weights: dict) -> tuple[Any, dict]:
    """The network with the first settings that its constructor takes, and these settings."""
    for chosen in settings:
        try:
            return timm.create_model(name, num_classes=0, **chosen, **weights), chosen
        except (TypeError, AssertionError, NotImplementedError) as error:
            if not chosen:
                raise ClearError(f"timm {name} (MODEL.BACKBONE.DEPTH) cannot be built: {error}") from error
    raise AssertionError("the last settings are empty")
