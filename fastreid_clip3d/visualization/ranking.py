"""Queries with the top matches of one or more models side by side, hits and misses framed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fastreid_clip3d.compat.pixels import read_image
from fastreid_clip3d.evaluation.protocols import Protocol
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, evaluate

HIT, MISS, QUERY = (40, 160, 70), (205, 60, 50), (90, 90, 90)
FRAME = 3
CAPTION = 14


@dataclass(frozen=True)
class RankedModel:
    """One model's features of the same query and gallery as the others'."""

    title: str
    query: LabelledFeatures
    gallery: LabelledFeatures


def ranking_sheet(
    models: Sequence[RankedModel],
    protocol: Protocol,
    queries: Sequence[int],
    output: str | Path,
    top: int = 8,
    tile: tuple[int, int] = (64, 128),
    metric: str = "cosine",
) -> Path:
    """Draws one block of rows a query, one row a model, and saves it.

    Args:
        models: their features carry the image paths as names.
        protocol: whose removal rule decides what is listed; a query without a match is passed over.
        queries: positions in query.
        tile: width and height of one picture, pixels.

    Returns:
        `output`.
    """
    results = [
        evaluate(model.query, model.gallery, [protocol], metric, top_matches=top)[protocol.name] for model in models
    ]
    place = {int(query): row for row, query in enumerate(results[0].queries)}
    shown = [query for query in queries if query in place]
    title_width = 14 + max(int(_font().getlength(model.title)) for model in models)
    cell_width, cell_height = tile[0] + 2 * FRAME + 4, tile[1] + 2 * FRAME + CAPTION + 4
    width = title_width + (top + 1) * cell_width + 8
    sheet = Image.new("RGB", (width, len(shown) * len(models) * cell_height + 8 * len(shown) + 24), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((6, 5), f"{protocol.name}: query, then the {top} closest gallery images", fill=(0, 0, 0), font=_font())
    y = 24
    for query in shown:
        for model, result in zip(models, results):
            draw.text((6, y + tile[1] // 2), model.title, fill=(0, 0, 0), font=_font())
            _put(sheet, (title_width, y), model.query, query, QUERY, tile)
            for rank, item in enumerate(result.top_matches[place[query]]):
                if item >= 0:
                    hit = model.gallery.pids[item] == model.query.pids[query]
                    x = title_width + 8 + (rank + 1) * cell_width
                    _put(sheet, (x, y), model.gallery, int(item), HIT if hit else MISS, tile)
            y += cell_height
        y += 8
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(output)
    return output


def choose_queries(result_queries: np.ndarray, pids: np.ndarray, count: int, seed: int = 0) -> list[int]:
    """Queries of different persons, drawn at random from those that have a match: nobody picks the pretty ones."""
    generator = np.random.default_rng(seed)
    chosen: dict[int, int] = {}
    for query in generator.permutation(result_queries):
        chosen.setdefault(int(pids[query]), int(query))
        if len(chosen) == count:
            break
    return list(chosen.values())


def _put(
    sheet: Image.Image,
    corner: tuple[int, int],
    items: LabelledFeatures,
    index: int,
    colour: tuple[int, int, int],
    tile: tuple[int, int],
) -> None:
    image = ImageOps.fit(read_image(items.names[index]), tile)
    sheet.paste(ImageOps.expand(image, FRAME, fill=colour), corner)
    clothes = "" if items.clothes_ids is None else f" o{int(items.clothes_ids[index])}"
    caption = f"c{int(items.camids[index])}{clothes}"
    ImageDraw.Draw(sheet).text((corner[0] + 1, corner[1] + tile[1] + 2 * FRAME), caption, fill=colour, font=_font(10))


def _font(size: int = 12) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
