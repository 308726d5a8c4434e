"""The found pictures themselves: thumbnails, a sheet as one image, and a page that needs no other file."""

from __future__ import annotations

import base64
import html
import io
import os
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.common.images import UnreadableImage, read_image
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.search.answers import Answers, Hit, printable

TILE = (96, 192)  # width, height
SAME, OTHER, UNKNOWN = (40, 160, 70), (205, 60, 50), (120, 120, 120)
_FRAME = 3
_CAPTION = 30
_SHEET_FORMATS = (".png", ".jpg", ".jpeg", ".webp")


def thumbnail(path: Path | None, size: tuple[int, int] = TILE) -> Image.Image:
    """A picture inside a box of this size, uncropped; grey where it cannot be read any more."""
    canvas = Image.new("RGB", size, (235, 235, 235))
    if path is None:
        return canvas
    try:
        picture = ImageOps.contain(read_image(path), size)
    except UnreadableImage:
        return canvas
    canvas.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
    return canvas


def _colour(hit: Hit) -> tuple[int, int, int]:
    said = hit.comparison.same_person if hit.comparison else None
    return UNKNOWN if said is None else SAME if said else OTHER


def _number(hit: Hit, kind: str) -> str:
    return f"{hit.similarity:.3f}" if kind == "similarity" else f"{hit.similarity:.2g}"


def check_sheet(path: str | Path) -> None:
    """Refuses a sheet's name before any work is done.

    Raises:
        ClearError: its ending is of no picture format.
    """
    if Path(path).suffix.lower() not in _SHEET_FORMATS:
        raise ClearError(f"--sheet {path}: the name must end in {', '.join(_SHEET_FORMATS)}")


def draw_sheet(found: Answers, path: str | Path) -> Path:
    """One row per query: the query, then its hits, framed green (same person), red (other) or grey (no verdict).

    Returns:
        `path`.
    """
    check_sheet(path)
    font = ImageFont.load_default(11)
    cell = (TILE[0] + 2 * _FRAME + 6, TILE[1] + 2 * _FRAME + _CAPTION)
    columns = 1 + max((len(answer.hits) for answer in found.answers), default=0)
    sheet = Image.new("RGB", (columns * cell[0] + 12, max(1, len(found.answers)) * cell[1] + 8), "white")
    draw = ImageDraw.Draw(sheet)

    def put(column: int, row: int, picture: Path | None, colour: tuple[int, int, int], lines: list[str]) -> None:
        x, y = 6 + column * cell[0], 6 + row * cell[1]
        sheet.paste(ImageOps.expand(thumbnail(picture), _FRAME, fill=colour), (x, y))
        for number, line in enumerate(lines):
            draw.text(
                (x, y + TILE[1] + 2 * _FRAME + 12 * number), _fitting(line, font, TILE[0]), fill=colour, font=font
            )

    for row, answer in enumerate(found.answers):
        words = [os.path.basename(answer.query)] if answer.picture else answer.query.split(", ")[:2]
        put(0, row, answer.picture, (0, 0, 0), words)
        for rank, hit in enumerate(answer.hits, start=1):
            put(
                rank,
                row,
                hit.picture,
                _colour(hit),
                [f"{rank}. {_number(hit, found.kind)}", os.path.basename(hit.name)],
            )
    stored = io.BytesIO()
    suffix = Path(path).suffix.lower()
    sheet.save(stored, {"jpg": "JPEG", "jpeg": "JPEG"}.get(suffix[1:], suffix[1:].upper()))
    write_atomically(path, stored.getvalue())
    return Path(path)


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The end of a text, which tells names apart, as far as it fits into `width` pixels."""
    text = printable(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text


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
figcaption {{ font-size: 12px; overflow-wrap: anywhere; }} .number {{ font-weight: 600; }} .sure {{ color: #555; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def write_page(found: Answers, path: str | Path) -> Path:
    """A page with all answers, pictures inside it, that loads nothing and runs nothing.

    Returns:
        `path`.
    """
    parts = []
    for answer in found.answers:
        figures = [_figure("query", answer.picture, "query", "", "")] if answer.picture else []
        for rank, hit in enumerate(answer.hits, start=1):
            said = hit.comparison.same_person if hit.comparison else None
            shown = {None: "", True: "same", False: "other"}[said]
            name = os.path.relpath(hit.name, found.gallery)
            figures.append(_figure(shown, hit.picture, f"{rank}. {_number(hit, found.kind)}", name, hit.verdict))
        parts.append(f'<h2>{_escaped(answer.query)}</h2>\n<div class="row">\n' + "\n".join(figures) + "\n</div>")
    if found.note:
        parts.insert(0, f"<p>{_escaped(found.note)}</p>")
    if found.unreadable:
        items = "\n".join(f"<li>{_escaped(reason)}</li>" for _, reason in found.unreadable)
        parts.append(f"<h2>{len(found.unreadable)} pictures could not be read</h2>\n<ul>\n{items}\n</ul>")
    title = _escaped(f"Search in {found.gallery}, {found.gallery_size:,} pictures")
    page = _PAGE.format(title=title, body="\n".join(parts))
    write_atomically(path, page.encode("utf-8"))
    return Path(path)


def _figure(kind: str, picture: Path | None, number: str, name: str, verdict: str) -> str:
    stored = io.BytesIO()
    thumbnail(picture).save(stored, "JPEG", quality=85)
    data = base64.b64encode(stored.getvalue()).decode("ascii")
    return (
        f'<figure class="{kind}"><img alt="{_escaped(name or number)}" src="data:image/jpeg;base64,{data}">'
        f'<figcaption><span class="number">{_escaped(number)}</span> {_escaped(name)} '
        f'<span class="sure">{_escaped(verdict)}</span></figcaption></figure>'
    )


def _escaped(text: str) -> str:
    return html.escape(printable(text), quote=True)
