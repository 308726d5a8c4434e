"""Draws bodies at the deciles of body-mass index: the picture of docs/bodies.md."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from fastreid_clip3d.body.encoding import encode_png
from fastreid_clip3d.body.measurements import mesh_volume
from fastreid_clip3d.body.model import load_body_model
from fastreid_clip3d.body.sampling import sample_betas
from fastreid_clip3d.body.sheets import draw_bodies, relaxed_pose
from fastreid_clip3d.common.files import write_atomically
from tools.assets.bodies.survey import DENSITY, SEXES

NUM_BODIES = 400
SEED = 5
STEPS = 11
"""The least body-mass index, nine deciles, the greatest."""

LABEL_HEIGHT = 14


def write_deciles(path: Path) -> None:
    """Writes a PNG: for each sex a row of fronts and a row of sides, from the least body-mass index on."""
    write_atomically(path, encode_png(decile_sheet()))


def decile_sheet() -> np.ndarray:
    """The picture, uint8 [4 * H, 11 * W], with the body-mass index below each body."""
    rows = []
    for sex in SEXES:
        model = load_body_model(gender=sex)
        betas = torch.from_numpy(sample_betas(NUM_BODIES, SEED, model.num_betas))
        with torch.no_grad():
            vertices = model.shape(betas)
        stature = vertices[..., 1].amax(1) - vertices[..., 1].amin(1)
        bmi = DENSITY * mesh_volume(vertices, model.faces) / stature**2
        chosen = bmi.argsort()[torch.linspace(0, NUM_BODIES - 1, STEPS).round().long()]
        for azimuth in (0.0, 90.0):
            pictures = draw_bodies(model, betas[chosen], relaxed_pose().expand(STEPS, -1), azimuth)
            rows.append(np.concatenate([_labelled(*pair) for pair in zip(pictures, bmi[chosen].tolist())], axis=1))
    return np.concatenate(rows)


def _labelled(picture: np.ndarray, bmi: float) -> np.ndarray:
    """The picture [H, W] above a white strip with the number."""
    labelled = np.pad(picture, ((0, LABEL_HEIGHT), (0, 0)), constant_values=255)
    place = (picture.shape[1] // 2 - 12, len(labelled) - 4)
    return cv2.putText(labelled, f"{bmi:.1f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.35, 40, 1, cv2.LINE_AA)
