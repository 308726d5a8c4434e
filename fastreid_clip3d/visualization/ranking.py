"""Queries with the top matches of one or more models side by side, hits and misses framed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fastreid_clip3d.common.images import read_image, save_image
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import Protocol
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, ProtocolResult, evaluate

HIT, MISS, QUERY = (40, 160, 70), (205, 60, 50), (90, 90, 90)
FRAME = 3
CAPTION = 14
HEADING = 40


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
) -> Path:
    """Saves :func:`draw_ranking` and returns `output`."""
    return save_image(draw_ranking(models, protocol, queries, top, tile), output)


def draw_ranking(
    models: Sequence[RankedModel],
    protocol: Protocol,
    queries: Sequence[int],
    top: int = 8,
    tile: tuple[int, int] = (64, 128),
) -> Image.Image:
    """One block per query with one row per model; camera and outfit stand below each picture.

    Args:
        models: the names of their items are the images' paths.
        protocol: its rule removes gallery images; a query without a match is left out.
        queries: positions in query. tile: width and height of one picture, pixels.

    Raises:
        ClearError: the models have different queries or galleries, or an image cannot be read.
    """
    check_comparable(models)
    results = [evaluate(model.query, model.gallery, [protocol], top_matches=top)[protocol.name] for model in models]
    place = {int(query): row for row, query in enumerate(results[0].queries)}
    shown = [query for query in queries if query in place]
    title_width = 14 + max(int(_font().getlength(model.title)) for model in models)
    cell_width, cell_height = tile[0] + 2 * FRAME + 4, tile[1] + 2 * FRAME + CAPTION + 4
    heading = f"{protocol.name}: query, then the {top} closest gallery images"
    legend = "green: same person, red: another; c: camera" + (
        "" if models[0].query.clothes_ids is None else ", o: outfit"
    )
    written = 12 + max(int(_font().getlength(heading)), int(_font(10).getlength(legend)))
    width = max(title_width + (top + 1) * cell_width + 8, written)
    sheet = Image.new("RGB", (width, len(shown) * len(models) * cell_height + 8 * len(shown) + HEADING), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((6, 5), heading, fill=(0, 0, 0), font=_font())
    draw.text((6, 21), legend, fill=QUERY, font=_font(10))
    y = HEADING
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
    return sheet


def check_comparable(models: Sequence[RankedModel]) -> None:
    """Refuses models whose items differ in number, order or people, or have no image paths.

    Raises:
        ClearError: names the model and the side.
    """
    first = models[0]
    for model in models:
        for side in ("query", "gallery"):
            own, others = getattr(model, side), getattr(first, side)
            if not own.names:
                raise ClearError(f"{model.title}: its {side} features have no image paths, so nothing can be drawn.")
            if len(own) != len(others) or not (np.array_equal(own.pids, others.pids)):
                raise ClearError(
                    f"{model.title} and {first.title} have different {side} items ({len(own)} and {len(others)}, or "
                    "other people). Give features of one test set."
                )


def choose_queries(result_queries: np.ndarray, pids: np.ndarray, count: int, seed: int = 0) -> list[int]:
    """Up to `count` queries of different people, drawn at random from those that have a match."""
    generator = np.random.default_rng(seed)
    chosen: dict[int, int] = {}
    for query in generator.permutation(result_queries):
        chosen.setdefault(int(pids[query]), int(query))
        if len(chosen) == count:
            break
    return list(chosen.values())


def sorted_queries(
    result: ProtocolResult, query: LabelledFeatures, sort: Sequence[str], count: int, seed: int = 0
) -> tuple[list[int], str]:
    """The queries to draw, and the order in words.

    Args:
        sort: ("worst",), ("best",): up to `count` people's queries by average precision, each person once;
            ("random",): drawn at random; else names of query pictures, or the end of their paths, in this order.

    Raises:
        ClearError: a name that no query has, that several have, or whose query has no match.
    """
    if tuple(sort) == ("random",):
        return choose_queries(result.queries, query.pids, count, seed), f"drawn at random (seed {seed})"
    if len(sort) == 1 and sort[0] in ("worst", "best"):
        order = np.argsort(result.average_precisions * (1 if sort[0] == "worst" else -1), kind="stable")
        _, first = np.unique(query.pids[result.queries[order]], return_index=True)
        return result.queries[order[np.sort(first)[:count]]].tolist(), f"{sort[0]} first"
    return [_named_query(result, query, name) for name in sort], "as named"


def _named_query(result: ProtocolResult, query: LabelledFeatures, name: str) -> int:
    parts = Path(name).parts
    found = [row for row, path in enumerate(query.names) if parts and Path(path).parts[-len(parts) :] == parts]
    if len(found) != 1:
        fault = "no query picture has this name" if not found else f"{len(found)} query pictures end in this name"
        raise ClearError(f"--sort {name}: {fault}. Give worst, best, random, or names of query pictures.")
    if found[0] not in result.queries:
        raise ClearError(f"--sort {name}: this query has no match under protocol {result.protocol.name}.")
    return found[0]


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
