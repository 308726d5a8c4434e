"""Contact sheets to look at: bodies by shape direction, descriptors at both extremes, the pool of poses.

Legend: R rows and C columns of pictures, each uint8 [H, W].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from fastreid_clip3d.body.constants import GENDERS, JOINTS, NUM_JOINTS
from fastreid_clip3d.body.descriptors import describe
from fastreid_clip3d.body.encoding import encode_png
from fastreid_clip3d.body.model import BodyModel, load_body_model
from fastreid_clip3d.body.poses import load_pose_pool
from fastreid_clip3d.body.rendering import Draw, GreyRenderer, lights_of, stand_on_ground, to_bytes, views_of
from fastreid_clip3d.body.sampling import sample_betas
from fastreid_clip3d.common.files import check_writable, write_atomically
from fastreid_clip3d.vocabulary import PHRASE_PAIRS

PICTURE_SIZE = (192, 96)
BODIES_AT_ONCE = 10
SHAPE_STEP = 2.5
"""Standard deviations at which a shape direction is shown."""

EXTREMES_OF = 400
"""Bodies of one sex among which the extremes of a descriptor are looked for."""


def write_sheet(path: str | Path, body_model: str = "", poses: str = "", seed: int = 0) -> None:
    """Writes one picture with three sheets, one below the other.

    1. Shape directions, one per column: female and male at -2.5 and +2.5 standard deviations.
    2. Descriptors, one per column: for both sexes the body with the highest (phrase 1) and the lowest score (phrase 2).
    3. Every pose of the pool, on the mean female body and seen from its left front.

    `path` is a PNG file; `body_model` a folder or a file, "" for the embedded one; `poses` a file, "" for the built-in
    pool. `seed` draws the bodies among which extremes are looked for.
    """
    check_writable(path, (".png",))
    models = [load_body_model(body_model, gender=gender) for gender in GENDERS]
    sheets = [shape_sheet(models), descriptor_sheet(models, seed), pose_sheet(models[0], load_pose_pool(poses))]
    width = max(sheet.shape[1] for sheet in sheets)
    padded = [np.pad(sheet, ((0, 12), (0, width - sheet.shape[1])), constant_values=255) for sheet in sheets]
    write_atomically(path, encode_png(np.concatenate(padded)))


def shape_sheet(models: Sequence[BodyModel]) -> np.ndarray:
    """Every shape direction at both ends, uint8 [R * H, C * W]."""
    rows = []
    for model in models:
        for step in (-SHAPE_STEP, SHAPE_STEP):
            betas = torch.eye(model.num_betas) * step
            labels = [f"{model.gender[0].upper()} b{number} {step:+.1f}" for number in range(model.num_betas)]
            rows.append((draw_bodies(model, betas, relaxed_pose().expand(len(betas), -1)), labels))
    return tile(rows)


def descriptor_sheet(models: Sequence[BodyModel], seed: int = 0) -> np.ndarray:
    """The bodies at both extremes of every descriptor, uint8 [R * H, C * W]."""
    rows = []
    for model in models:
        betas = torch.from_numpy(sample_betas(EXTREMES_OF, seed, model.num_betas))
        scores = torch.cat([describe(model.shape(part), model) for part in betas.split(100)])
        for choice, extreme in enumerate((scores.argmax(0), scores.argmin(0))):
            labels = [f"{model.gender[0].upper()} {pair[choice]}" for pair in PHRASE_PAIRS]
            rows.append((draw_bodies(model, betas[extreme], relaxed_pose().expand(len(extreme), -1)), labels))
    return tile(rows)


def pose_sheet(model: BodyModel, pool: torch.Tensor, columns: int = 20) -> np.ndarray:
    """Every pose of a pool [K, 72] on the mean body, uint8 [R * H, C * W]."""
    pictures = draw_bodies(model, torch.zeros(len(pool), model.num_betas), pool, azimuth=30.0)
    labels = [str(number) for number in range(len(pool))]
    starts = range(0, len(pool), columns)
    return tile([(pictures[start : start + columns], labels[start : start + columns]) for start in starts])


def relaxed_pose() -> torch.Tensor:
    """Arms held a little away from the body, so that its outline shows, [1, 72]."""
    pose = torch.zeros(NUM_JOINTS, 3)
    for side, sign in (("left", -1), ("right", 1)):
        pose[JOINTS[f"{side}_shoulder"], 2] = sign * np.deg2rad(65)
        pose[JOINTS[f"{side}_elbow"], 1] = sign * np.deg2rad(12)
    return pose.view(1, -1)


def draw_bodies(model: BodyModel, betas: torch.Tensor, poses: torch.Tensor, azimuth: float = 0.0) -> np.ndarray:
    """Pictures uint8 [B, H, W] of bodies [B, K] in poses [B, 72], all at one scale and under one light."""
    view = Draw(
        azimuth=azimuth, elevation=5.0, distance=5.0, margin=0.0, shift=(0.0, 0.0), light=(-40.0, 35.0), ambient=0.4
    )
    renderer = GreyRenderer(model.faces, PICTURE_SIZE)
    pictures = []
    with torch.no_grad():
        for part, posed in zip(betas.split(BODIES_AT_ONCE), poses.split(BODIES_AT_ONCE)):
            vertices = stand_on_ground(model.pose(part, posed)[0])
            draws = [view] * len(part)
            pictures.append(
                to_bytes(renderer.render(vertices, views_of(vertices, draws, PICTURE_SIZE, "fixed"), lights_of(draws)))
            )
    return np.concatenate(pictures)


def tile(rows: Sequence[tuple[np.ndarray, Sequence[str]]]) -> np.ndarray:
    """Rows of labelled pictures as one picture; shorter rows are filled up with white."""
    columns = max(len(pictures) for pictures, _ in rows)
    lines = []
    for pictures, labels in rows:
        line = np.full((PICTURE_SIZE[0], columns * PICTURE_SIZE[1]), 255, np.uint8)
        for column, (picture, label) in enumerate(zip(pictures, labels)):
            picture = picture.copy()
            cv2.putText(picture, label, (2, 9), cv2.FONT_HERSHEY_SIMPLEX, 0.27, 60, 1, cv2.LINE_AA)
            line[:, column * PICTURE_SIZE[1] : (column + 1) * PICTURE_SIZE[1]] = picture
        lines.append(line)
    return np.concatenate(lines)
