"""Why a model finds two pictures alike: the share of each patch in their similarity.

The similarity of two pictures whose features are means of patch features is a sum over pairs of patches
(Stylianou et al., "Visualizing Deep Similarity Networks", WACV 2019, arXiv 1901.00536). A patch's share is the sum over
its pairs with all patches of the other picture:

    share_i = a_i . (sum_j b_j) / (|sum_i a_i| |sum_j b_j|)

We take as a patch's feature what the head makes of this patch alone. With average pooling and a batch norm as neck the
shares of a picture add up to the similarity of the two features. With other heads (GeM, an MLP, a class token) they add
up to another number; both are reported.

N = h x w: patches. d': width of the feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreid_clip3d.common.figures import save_figure
from fastreid_clip3d.common.images import read_image
from fastreid_clip3d.inference.encoder import ReIDModel

COLOURS = "RdBu_r"


@dataclass(frozen=True)
class Alike:
    """What :func:`find_alike` found.

    Attributes:
        shares: float32 [2, h, w]: of each patch of both pictures; negative where a patch makes them different.
        similarity: cosine of the pictures' features. explained: the sum of the shares of one picture.
    """

    shares: Tensor
    similarity: float
    explained: float


def patch_shares(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The shares of the patches of two pictures, [N] and [M], from their features [N, d'] and [M, d'].

    Both add up to the cosine of the two sums.

    >>> patch_shares(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    (tensor([0.6000, 0.0000]), tensor([0.6000]))
    """
    sums = first.sum(0), second.sum(0)
    scale = (sums[0].norm() * sums[1].norm()).clamp_min(1e-12)
    return first @ sums[1] / scale, second @ sums[0] / scale


def find_alike(model: ReIDModel, first: str | Path, second: str | Path) -> Alike:
    """The shares of the patches of two image files.

    Raises:
        ClearError: a model without a feature map, or an image that cannot be read.
    """
    paths = [str(first), str(second)]
    features = model(paths)
    patches = model.patch_features(paths)
    shares = patch_shares(*patches.flatten(1, 2))
    maps = torch.stack(shares).reshape(patches.shape[:3])
    return Alike(maps, float(features[0] @ features[1]), float(shares[0].sum()))


def alike_sheet(paths: tuple[str | Path, str | Path], found: Alike, output: str | Path, size: tuple[int, int]) -> Path:
    """Draws both pictures with their maps beside them, with one colour scale; returns `output`.

    Args:
        size: height and width of the model's input.
    """
    from matplotlib.figure import Figure

    pictures = [np.asarray(read_image(str(path)).resize((size[1], size[0]))) for path in paths]
    height = 2.0 * size[0] / size[1]
    figure = Figure(figsize=(8.6, height + 1.0), layout="constrained", dpi=110)
    axes = figure.subplots(1, 4)
    limit = max(float(found.shares.abs().max()), 1e-6)
    extent = (0, size[1], size[0], 0)
    heat: Any = None
    for place, (picture, shares) in enumerate(zip(pictures, found.shares)):
        plain, mapped = (axes[0], axes[1]) if place == 0 else (axes[3], axes[2])
        plain.imshow(picture, extent=extent)
        mapped.imshow(picture, extent=extent)
        heat = mapped.imshow(
            shares.numpy(), cmap=COLOURS, vmin=-limit, vmax=limit, alpha=0.6, extent=extent, interpolation="bilinear"
        )
        plain.set_title("AB"[place], fontsize=9)
        mapped.set_title(f"what {'AB'[place]} shares with {'BA'[place]}", fontsize=9)
    for own in axes:
        own.set_axis_off()
    bar = figure.colorbar(heat, ax=axes, orientation="horizontal", fraction=0.04, aspect=60)
    bar.set_label("share of a patch in the similarity; red: alike, blue: different", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(f"similarity {found.similarity:.3f}, sum of the shares {found.explained:.3f}", fontsize=10)
    return save_figure(figure, output)
