"""Columns of the transport plan as blue-to-red maps: to which patches the plan sends a phrase (paper, Figure 3).

B: images. N = h x w: patches. M: phrases of an image (16). P: drawn phrases. d': width of the student.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fastreid.config import CfgNode
from torch import Tensor

from fastreid_clip3d.common.figures import save_figure
from fastreid_clip3d.common.images import read_image
from fastreid_clip3d.common.phrases import require_phrase
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.model import TorchModel
from fastreid_clip3d.modeling.losses import OTLoss
from fastreid_clip3d.teacher.clip import Teacher
from fastreid_clip3d.teacher.guidance import teacher_from_config
from fastreid_clip3d.teacher.listing import label_images
from fastreid_clip3d.vocabulary import PHRASES

COLOURS = "RdYlBu_r"
NARROWEST = 1e-4
"""Least half-width of a colour scale, in units of a uniform plan, so that rounding errors stay pale."""


@dataclass(frozen=True)
class PhraseMaps:
    """What :func:`transport_maps` found.

    Attributes:
        phrases: the P phrases, as the vocabulary writes them.
        maps: float32 [B, P, h, w], the plan's column of the phrase times N M: 1 is a uniform plan's value and the mean
            of every map.
        chosen: bool [B, P], whether the phrase is the image's label; otherwise its opposite is.
    """

    phrases: tuple[str, ...]
    maps: Tensor
    chosen: Tensor


@torch.no_grad()
def phrase_maps(
    solver: OTLoss,
    local_features: Tensor,
    projected_table: Tensor,
    phrase_choices: Tensor,
    rows: Sequence[int],
    map_size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """The columns of the loss's own plans for the phrases of some `rows` of the table.

    A plan transports to the 16 phrases of an image. Where the image has the opposite of a drawn phrase, we exchange the
    two and keep the other 15: the map then shows where the plan would send the phrase if it were the label.

    Args:
        solver: cost and plan of the run's settings.
        local_features: [B, N, d']. projected_table: Psi of the phrases, unit rows [2 M, d'].
        phrase_choices: int64 [B, M], the image's labels.
        map_size: h and w.

    Returns:
        Maps and labels as in :class:`PhraseMaps`.
    """
    count, patches, pairs = len(local_features), local_features.shape[1], phrase_choices.shape[1]
    if patches != map_size[0] * map_size[1]:
        raise ValueError(f"{patches} patches do not fill a map of {map_size[0]} x {map_size[1]}")
    maps, chosen = [], []
    for row in rows:
        pair, choice = divmod(row, 2)
        asked = phrase_choices.clone()
        asked[:, pair] = choice
        plan = solver.plan(solver.cost(local_features, projected_table, asked))
        maps.append(plan[:, :, pair].reshape(count, *map_size) * (patches * pairs))
        chosen.append(phrase_choices[:, pair] == choice)
    return torch.stack(maps, 1).float(), torch.stack(chosen, 1)


def transport_maps(
    model: TorchModel, images: Sequence[str | Path], phrases: Sequence[str], teacher: Teacher | None = None
) -> PhraseMaps:
    """Maps of a run's model for images and phrases.

    Args:
        model: of a run with OTLoss. images: paths. phrases: some of the 32.
        teacher: gives the images' labels; None: the run's own.

    Raises:
        ClearError: a run without OTLoss, an unknown phrase, a missing teacher, an unreadable image.
    """
    rows = [require_phrase(phrase) for phrase in phrases]
    table = phrase_table(model)
    labels = label_images(teacher or teacher_from_config(model.cfg), images)
    choices = torch.from_numpy(np.stack([label.phrase_choices for label in labels]))
    local_features = model.local_features([str(path) for path in images]).cpu().float()
    maps, chosen = phrase_maps(
        solver_of(model.cfg, table.shape[1]), local_features, table, choices, rows, model.map_size
    )
    return PhraseMaps(tuple(PHRASES[row] for row in rows), maps, chosen)


def phrase_table(model: TorchModel) -> Tensor:
    """Psi of the 32 phrases, unit rows float32 [32, d'].

    Raises:
        ClearError: the run was trained without OTLoss.
    """
    table = model.phrase_features
    if table is None:
        raise ClearError(
            "This run has no transport plan: it was trained without OTLoss in MODEL.LOSSES.NAME. Give a CLIP3DReID "
            "run, such as one of configs/CLIP3D/."
        )
    return torch.nn.functional.normalize(table.detach().cpu().float(), dim=1)


def solver_of(cfg: CfgNode, width: int) -> OTLoss:
    """The loss with a run's lambda, iterations, tolerance and centring, for its cost and plan; its Psi is not used.

    With ``MODEL.LOSSES.OT.CENTER batch`` the mean is that of the images that are drawn together.
    """
    keys = cfg.MODEL.LOSSES.OT
    return OTLoss(1, width, 1, keys.REG, keys.NUM_ITERS, keys.TOLERANCE, center=keys.CENTER)


def colour_limits(maps: Tensor) -> list[tuple[float, float]]:
    """The colour scale of each phrase of maps [B, P, h, w]: symmetric about 1 and wide enough for all images."""
    spread = (maps - 1).abs().amax((0, 2, 3)).clamp(min=NARROWEST)
    return [(1 - float(half), 1 + float(half)) for half in spread]


def transport_sheet(
    images: Sequence[str | Path], found: PhraseMaps, output: str | Path, size: tuple[int, int], opacity: float = 0.6
) -> Path:
    """Draws one row per person, with the image and its map for each phrase, and the scales below; returns `output`.

    Colours run from blue (low) over pale yellow (a uniform plan) to red (high). A phrase has one scale for all people.
    A phrase in brackets is not the label that the teacher gave this image.

    Args:
        size: height and width of the student's input.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    limits = colour_limits(found.maps)
    people, phrases = found.maps.shape[:2]
    width, height = 1.1, 1.1 * size[0] / size[1]
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.0)
    figure = Figure(figsize=(1.14 * width * (phrases + 1), people * (height + 0.22) + 0.55), layout=layout, dpi=110)
    grid = figure.add_gridspec(people + 1, phrases + 1, height_ratios=[1.0] * people + [0.03])
    for person, path in enumerate(images):
        picture = np.asarray(read_image(str(path)).resize((size[1], size[0])))
        for column in range(phrases + 1):
            axes = figure.add_subplot(grid[person, column])
            axes.set_axis_off()
            axes.imshow(picture, extent=(0, size[1], size[0], 0))
            if column == 0:
                axes.set_title("image" if person == 0 else "", fontsize=8)
                continue
            low, high = limits[column - 1]
            heat = axes.imshow(
                found.maps[person, column - 1].numpy(),
                cmap=COLOURS,
                vmin=low,
                vmax=high,
                alpha=opacity,
                extent=(0, size[1], size[0], 0),
                interpolation="bilinear",
            )
            phrase = found.phrases[column - 1]
            is_label = bool(found.chosen[person, column - 1])
            axes.set_title(phrase if is_label else f"({phrase})", fontsize=8, color="black" if is_label else "0.45")
            if person == people - 1:
                bar = figure.colorbar(heat, cax=figure.add_subplot(grid[people, column]), orientation="horizontal")
                bar.set_ticks([low, 1, high], labels=[f"{low:.3f}", "1", f"{high:.3f}"])
                bar.ax.tick_params(labelsize=6, length=2)
    figure.supxlabel(
        "Transport plan, 1 = uniform. (Brackets): the teacher's label is the opposite phrase.", fontsize=7, color="0.3"
    )
    return save_figure(figure, output)
