"""Contact sheets: every picture at its place, under its label."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from fastreid_clip3d.body import sheets
from fastreid_clip3d.body.model import load_body_model


def test_tile_puts_pictures_in_rows_and_fills_up_with_white(monkeypatch):
    monkeypatch.setattr(sheets, "PICTURE_SIZE", (40, 20))
    rows = [
        (np.stack([np.full((40, 20), value, np.uint8) for value in values]), [""] * len(values))
        for values in ((1, 2, 3), (4,))
    ]
    sheet = sheets.tile(rows)
    assert sheet.shape == (80, 60)
    assert (sheet[:40, 20:40] == 2).all() and (sheet[40:, :20] == 4).all() and (sheet[40:, 20:] == 255).all()


def test_drawn_bodies_differ_by_shape_and_keep_their_scale():
    model = load_body_model(gender="male")
    betas = torch.zeros(2, model.num_betas)
    betas[1, 0] = 2.5  # the first direction is stature, more than anything
    pictures = sheets.draw_bodies(model, betas, sheets.relaxed_pose().expand(2, -1))
    rows = [(picture < 255).any(1).sum() for picture in pictures]
    assert abs(int(rows[0]) - int(rows[1])) > 10
    assert pictures.shape == (2, *sheets.PICTURE_SIZE) and 0.05 < (pictures < 255).mean() < 0.5


def test_sheet_of_everything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(sheets, "PICTURE_SIZE", (32, 16))
    monkeypatch.setattr(sheets, "EXTREMES_OF", 5)
    np.save(tmp_path / "poses.npy", np.zeros((21, 72), np.float32))
    sheets.write_sheet(tmp_path / "sheet.png", poses=str(tmp_path / "poses.npy"))
    sheet = cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_UNCHANGED)
    # Four rows of shape directions, four of descriptors, 21 poses in two rows of at most 20.
    assert sheet.shape == ((4 + 4 + 2) * 32 + 3 * 12, 20 * 16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["poses.npy", "sheet.png"]
