"""Reads a run, draws its pictures and writes the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.visualization.report.page import page
from fastreid_clip3d.visualization.report.pictures import Picture, Pictures
from fastreid_clip3d.visualization.report.record import read_run
from fastreid_clip3d.visualization.report.scores import score_tables
from fastreid_clip3d.visualization.report.settings import default_settings, differences


def write_report(
    run: str | Path,
    output: str | Path = "",
    compare: str | Path = "",
    data: str = "",
    images: Sequence[str] = (),
    dataset: str = "",
    with_pictures: bool = True,
) -> tuple[Path, list[Picture]]:
    """Writes the page of a run.

    Args:
        run: a run folder; whatever is missing in it is missing on the page, with a word about it.
        output: the file; "": report.html in the run folder.
        compare: another run, drawn into the same curves and tables.
        data: folder of synthetic bodies to predict; "": those of the training.
        images: people for the transport plans; (): queries of the test set.
        dataset: whose features are drawn, where the run was tested on several sets.

    Returns:
        The file, and its pictures (those without data carry the reason).

    Raises:
        ClearError: no such run, or the file cannot be written.
    """
    record = read_run(run)
    other = read_run(compare) if compare else None
    tables, other_tables = score_tables(record), score_tables(other) if other else []
    found = differences(record.settings, default_settings(), other.settings if other else None)
    pictures = Pictures(record, other, data, images, dataset).all() if with_pictures else []
    text = page(record, other, tables, other_tables, found, pictures)
    path = Path(output) if output else record.folder / "report.html"
    write_atomically(path, text.encode("utf-8"))
    return path, pictures
