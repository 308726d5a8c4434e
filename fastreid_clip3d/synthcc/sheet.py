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


def contact_sheet(
    people: int,
    seed: int,
    variant: Variant = "natural",
    framing: Framing = "fixed",
    outfits: int = 2,
    images: int = 4,
    size: tuple[int, int] = (128, 64),
) -> np.ndarray:
    """RGB uint8 [people * H, outfits * images * W, 3]: one row per person, outfit by outfit."""
    per_person = outfits * images
    rows = []
    batches = sample_people(
        people,
        per_person,
        seed,
        size=size,
        variant=variant,
        framing=framing,
        population="sheet",
        outfits_per_person=outfits,
        batch_size=per_person,
    )
    for batch in batches:
        order = np.argsort(batch["clothes_id"].numpy(), kind="stable")
        pictures = batch["images"].permute(0, 2, 3, 1).numpy()[order]
        rows.append(np.concatenate(list(pictures), 1))
    return np.concatenate(rows, 0)


def write_sheet(
    path: str | Path,
    people: int,
    seed: int,
    variant: Variant = "natural",
    framing: Framing = "fixed",
    quality: int = 85,
    **sizes,
) -> None:
    """Writes a contact sheet as JPEG or PNG, by the file's ending."""
    path = check_writable(path, IMAGE_ENDINGS)
    save_image(Image.fromarray(contact_sheet(people, seed, variant, framing, **sizes)), path, quality)
