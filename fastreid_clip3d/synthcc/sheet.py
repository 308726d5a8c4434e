"""Contact sheets: people by row, outfits and cameras by column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fastreid_clip3d.body.constants import Framing
from fastreid_clip3d.common.files import check_writable
from fastreid_clip3d.common.images import IMAGE_ENDINGS, save_image
from fastreid_clip3d.synthcc.person import Variant
from fastreid_clip3d.synthcc.sampling import sample_people

OUTFITS, IMAGES = 2, 8
"""Outfits and images per person."""


def contact_sheet(people: int, seed: int, variant: Variant, framing: Framing) -> np.ndarray:
    """RGB uint8 [people * H, IMAGES * W, 3]: one row per person, outfit by outfit."""
    rows = []
    for batch in sample_people(people, IMAGES, seed, (128, 64), variant, framing, "sheet", OUTFITS, batch_size=IMAGES):
        order = np.argsort(batch["clothes_id"].numpy(), kind="stable")
        pictures = batch["images"].permute(0, 2, 3, 1).numpy()[order]
        rows.append(np.concatenate(list(pictures), 1))
    return np.concatenate(rows, 0)


def write_sheet(path: str | Path, people: int, seed: int, variant: Variant, framing: Framing) -> None:
    """Writes a contact sheet as JPEG or PNG, by the file's ending."""
    path = check_writable(path, IMAGE_ENDINGS)
    save_image(Image.fromarray(contact_sheet(people, seed, variant, framing)), path, quality=85)
