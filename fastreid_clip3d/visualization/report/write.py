"""Writes the page of a run: it reads the run and draws its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastreid_clip3d.common.files import check_writable, write_atomically
from fastreid_clip3d.visualization.report.page import page
from fastreid_clip3d.visualization.report.pictures import Picture, Pictures
from fastreid_clip3d.visualization.report.record import read_run
from fastreid_clip3d.visualization.report.scores import score_tables
from fastreid_clip3d.visualization.report.settings import default_settings, differences
from fastreid_clip3d.visualization.run_files import run_titles


def write_report(
    run: str | Path,
    output: str | Path = "",
    compare: str | Path = "",
    bodies: str = "",
    images: Sequence[str] = (),
    data: str = "",
    with_pictures: bool = True,
    device: str = "",
) -> tuple[Path, list[Picture]]:
    """Writes the page of a run.

    Args:
        run: a run folder. The page names what is missing in it.
        output: the file; "": report.html in the run folder. compare: another run in the same curves and tables.
        bodies: folder of synthetic bodies to predict; "": those of the training.
        images: people for the transport plans; (): queries of the test set.
        data: the test set whose features are drawn, where the run has several.
        device: as in ``load_model``.

    Returns:
        The file, and its pictures; a picture without data has the reason as its caption.

    Raises:
        ClearError: no such run, or the file cannot be written.
    """
    record = read_run(run)
    path = check_writable(output or record.folder / "report.html", (".html", ".htm"))
    other = read_run(compare) if compare else None
    if other:
        record.title, other.title = run_titles([record.folder, other.folder])
    tables, other_tables = score_tables(record), score_tables(other) if other else []
    found = differences(record.settings, default_settings(), other.settings if other else None)
    pictures = Pictures(record, other, bodies, images, data, device).all() if with_pictures else []
    text = page(record, other, tables, other_tables, found, pictures)
    write_atomically(path, text.encode("utf-8"))
    return path, pictures
