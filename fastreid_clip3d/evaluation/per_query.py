"""The results of single queries as a table, csv or parquet.

Columns: protocol; query (its number, from 0), query_name, pid, camid, clothes_id; matches (how many are kept); AP, INP
(0 to 1) and first_match_rank (from 1; with ties these are expected values, see metrics); top_matches (numbers of the
closest kept gallery items, closest first, joined by spaces), top_are_matches (1 or 0 for each), top_names (joined by
tabs, since names may hold spaces). A query without a match has matches 0 and no further values.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping

import numpy as np

from fastreid_clip3d.common.files import check_writable, write_atomically
from fastreid_clip3d.common.names import as_utf8
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, ProtocolResult, taking_part

FORMATS = ("csv", "parquet")
COLUMNS = (
    "protocol", "query", "query_name", "pid", "camid", "clothes_id", "matches", "AP", "INP", "first_match_rank",
    "top_matches", "top_are_matches", "top_names",
)  # fmt: skip


def check_format(path: str | os.PathLike) -> str:
    """The format of a table by its path's ending, checked before the work.

    Raises:
        ClearError: another ending; parquet without pyarrow.
    """
    ending = check_writable(path, [f".{known}" for known in FORMATS]).suffix[1:].lower()
    if ending == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ClearError(f"{path}: parquet needs the package pyarrow; install it, or name a .csv file") from error
    return ending


def per_query_table(
    results: Mapping[str, ProtocolResult], query: LabelledFeatures, gallery: LabelledFeatures
) -> dict[str, list]:
    """The table's columns, with one value per protocol and query that the protocol asks."""
    table: dict[str, list] = {name: [] for name in COLUMNS}
    gallery_pids = [int(pid) for pid in gallery.pids]
    for name, result in results.items():
        asked, _ = taking_part(result.protocol, query, gallery)
        line_of = {int(number): line for line, number in enumerate(result.queries)}
        for number in np.flatnonzero(asked).tolist():
            line = line_of.get(number)
            pid = int(query.pids[number])
            top = [] if line is None else [item for item in result.top_matches[line].tolist() if item >= 0]
            scores = (result.average_precisions, result.inverse_negative_penalties, result.first_match_ranks)
            values = (
                name,
                number,
                query.names[number] if query.names else None,
                pid,
                int(query.camids[number]),
                None if query.clothes_ids is None else int(query.clothes_ids[number]),
                0.0 if line is None else float(result.match_counts[line]),
                *(None if line is None else float(values[line]) for values in scores),
                " ".join(map(str, top)),
                " ".join(str(int(gallery_pids[item] == pid)) for item in top),
                "\t".join(gallery.names[item] for item in top) if gallery.names else None,
            )
            for column, value in zip(table.values(), values):
                column.append(value)
    return table


def write_per_query(
    path: str | os.PathLike, results: Mapping[str, ProtocolResult], query: LabelledFeatures, gallery: LabelledFeatures
) -> None:
    """Writes the table to a .csv or .parquet file.

    In parquet a column of ids above 2**63 - 1 holds texts, and a byte of a name that is not UTF-8 becomes ``\\xNN``.
    """
    table = per_query_table(results, query, gallery)
    if check_format(path) == "csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(table)
        writer.writerows(zip(*table.values()))
        write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))
        return
    import pyarrow
    from pyarrow import parquet

    for name in ("pid", "camid", "clothes_id"):
        if any(value is not None and value >= 2**63 for value in table[name]):  # more than parquet's int64
            table[name] = list(map(str, table[name]))
    for name in ("query_name", "top_names"):
        table[name] = [text if text is None else as_utf8(text) for text in table[name]]
    write_atomically(path, lambda stream: parquet.write_table(pyarrow.table(table), stream))
