"""The found pictures: thumbnails, a sheet as one image, and a page that needs no other file."""

from __future__ import annotations

import base64
import html
import io
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.common.images import UnreadableImage, read_image, save_image
from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.search.answers import Answers, Hit

TILE = (96, 192)  # width, height
SAME, OTHER, UNKNOWN = (40, 160, 70), (205, 60, 50), (120, 120, 120)
_FRAME = 3
_CAPTION = 30
_LONGEST_SIDE = {".png": 1_000_000, ".webp": 16_383, ".jpg": 65_500, ".jpeg": 65_500}
"""Pixels that Pillow writes into a file of each ending."""
_MOST_PIXELS = 2 * 89_478_485
"""PIL opens no larger picture unless it is told to."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def thumbnail(path: Path | None, size: tuple[int, int] = TILE) -> Image.Image:
    """A picture inside a box of this size, uncropped; a grey box where the picture can no longer be read."""
    canvas = Image.new("RGB", size, (235, 235, 235))
    if path is None:
        return canvas
    try:
        picture = ImageOps.contain(read_image(path), size)
    except UnreadableImage:
        return canvas
    canvas.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
    return canvas


def _same_person(hit: Hit) -> bool | None:
    return hit.comparison.same_person if hit.comparison else None


def _number(hit: Hit, kind: str) -> str:
    return f"{hit.similarity:.3f}" if kind == "similarity" else f"{hit.similarity:.2g}"


def draw_sheet(found: Answers, path: str | Path) -> Path:
    """Draws one row per query: the query, then its hits; returns `path`.

    Frames are green (same person), red (another person) or grey (no verdict).

    Raises:
        ClearError: the sheet is larger than a file of this format can be, or the file cannot be written.
    """
    font = ImageFont.load_default(11)
    cell = (TILE[0] + 2 * _FRAME + 6, TILE[1] + 2 * _FRAME + _CAPTION)
    columns = 1 + max((len(answer.hits) for answer in found.answers), default=0)
    size = columns * cell[0] + 12, max(1, len(found.answers)) * cell[1] + 8
    _check_size(size, Path(path))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)

    def put(column: int, row: int, picture: Path | None, colour: tuple[int, int, int], lines: list[str]) -> None:
        x, y = 6 + column * cell[0], 6 + row * cell[1]
        sheet.paste(ImageOps.expand(thumbnail(picture), _FRAME, fill=colour), (x, y))
        for number, line in enumerate(lines):
            place = (x, y + TILE[1] + 2 * _FRAME + 12 * number)
            draw.text(place, shortened(line, font, TILE[0]), fill=colour, font=font)

    names = {hit.name: os.path.relpath(hit.name, found.gallery) for answer in found.answers for hit in answer.hits}
    captions = dict(zip(names, differing_parts(list(names.values()))))
    for row, answer in enumerate(found.answers):
        words = [os.path.basename(answer.query)] if answer.picture else answer.query.split(", ")[:2]
        put(0, row, answer.picture, (0, 0, 0), words)
        for rank, hit in enumerate(answer.hits, start=1):
            colour = {True: SAME, False: OTHER, None: UNKNOWN}[_same_person(hit)]
            put(rank, row, hit.picture, colour, [f"{rank}. {_number(hit, found.kind)}", captions[hit.name]])
    return save_image(sheet, path)


def _check_size(size: tuple[int, int], path: Path) -> None:
    longest = _LONGEST_SIDE.get(path.suffix.lower(), 0) or max(size)  # another ending is refused by `save_image`
    if max(size) > longest or size[0] * size[1] > _MOST_PIXELS:
        raise ClearError(
            f"{printable(str(path))}: the sheet would be {size[0]} x {size[1]} pixels, more than such a file can have. "
            "Give fewer queries, a smaller --top, a .png file, or --html FILE."
        )


def differing_parts(names: Sequence[str]) -> list[str]:
    """Names without the words that all of them begin and end with, so that a short caption tells them apart.

    >>> differing_parts(["day_1/camera_03_0017.jpg", "day_1/camera_11_0017.jpg"])
    ['03', '11']
    """
    words = [re.findall(r"[^\W_]+|[\W_]", name) for name in names]
    if len(set(names)) < 2:
        return list(names)
    first = _shared(words)
    last = _shared([own[first:][::-1] for own in words])
    return ["".join(own[first : len(own) - last]) or name for own, name in zip(words, names)]


def _shared(words: Sequence[Sequence[str]]) -> int:
    """The number of words that all lists begin with."""
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, zip(*words)))


def shortened(text: str, font: Font, width: int) -> str:
    """A text whose middle is cut out where it does not fit into `width` pixels."""
    text = printable(text)
    if font.getlength(text) <= width:
        return text
    kept = len(text) - 1
    while kept and font.getlength(_without_middle(text, kept)) > width:
        kept -= 1
    return _without_middle(text, kept)


def _without_middle(text: str, kept: int) -> str:
    return text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff; }}
h1 {{ font-size: 1.3rem; }} h2 {{ font-size: 1rem; overflow-wrap: anywhere; margin: 2rem 0 .5rem; }}
.row {{ display: flex; flex-wrap: wrap; gap: .7rem; }}
figure {{ margin: 0; width: 8.5rem; }}
img {{ width: 100%; border: 4px solid #787878; border-radius: 4px; box-sizing: border-box; }}
.query img {{ border-color: #222; }} .same img {{ border-color: #28a046; }} .other img {{ border-color: #cd3c32; }}
figcaption {{ font-size: 12px; overflow-wrap: anywhere; }} .number {{ font-weight: 600; }} .verdict {{ color: #555; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def write_page(found: Answers, path: str | Path) -> Path:
    """Writes a page with all answers and their pictures inside; it loads and runs nothing. Returns `path`."""
    parts = []
    for answer in found.answers:
        figures = [_figure("query", answer.picture, "query", "", "")] if answer.picture else []
        for rank, hit in enumerate(answer.hits, start=1):
            style = {None: "", True: "same", False: "other"}[_same_person(hit)]
            name = os.path.relpath(hit.name, found.gallery)
            figures.append(_figure(style, hit.picture, f"{rank}. {_number(hit, found.kind)}", name, hit.verdict))
        parts.append(f'<h2>{_escaped(answer.query)}</h2>\n<div class="row">\n' + "\n".join(figures) + "\n</div>")
        if answer.nobody:
            parts.append(f"<p>{_escaped(answer.nobody_sentence)}</p>")
    if found.note:
        parts.insert(0, f"<p>{_escaped(found.note)}</p>")
    if found.unreadable:
        items = "\n".join(f"<li>{_escaped(reason)}</li>" for _, reason in found.unreadable)
        parts.append(f"<h2>{len(found.unreadable)} pictures could not be read</h2>\n<ul>\n{items}\n</ul>")
    title = _escaped(f"Search in {found.gallery}, {found.gallery_size:,} pictures")
    write_atomically(path, _PAGE.format(title=title, body="\n".join(parts)).encode("utf-8"))
    return Path(path)


def _figure(style: str, picture: Path | None, number: str, name: str, verdict: str) -> str:
    stored = io.BytesIO()
    thumbnail(picture).save(stored, "JPEG", quality=85)
    data = base64.b64encode(stored.getvalue()).decode("ascii")
    return (
        f'<figure class="{style}"><img alt="{_escaped(name or number)}" src="data:image/jpeg;base64,{data}">'
        f'<figcaption><span class="number">{_escaped(number)}</span> {_escaped(name)} '
        f'<span class="verdict">{_escaped(verdict)}</span></figcaption></figure>'
    )


def _escaped(text: str) -> str:
    return html.escape(printable(text), quote=True)
