"""What tools/search.py does: from a gallery's folder to answers."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Iterator, Sequence, Union

import faiss
import numpy as np
from rich.console import Console
from rich.text import Text
from torch import Tensor

from fastreid_clip3d.compat.pixels import UnreadableImage
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.calibration import (
    Calibration,
    compare_similarity,
    read_calibration,
)
from fastreid_clip3d.inference import load_model
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.extraction import extract
from fastreid_clip3d.inference.pictures import Entry, list_images
from fastreid_clip3d.inference.search.answers import (
    Answer,
    Answers,
    Hit,
    print_answers,
    printable,
    report_unreadable,
    write_json,
)
from fastreid_clip3d.inference.search.approximate import SMALLEST, approximate_index
from fastreid_clip3d.inference.search.index import Gallery, index_folder, open_gallery
from fastreid_clip3d.inference.search.phrases import patch_means, phrase_directions, require_phrases
from fastreid_clip3d.inference.search.pictures import check_sheet, draw_sheet, write_page

Outcomes = Iterator[tuple[Entry, Union[np.ndarray, UnreadableImage]]]


def search(options: argparse.Namespace) -> int:
    """Answers `options.query` or `options.phrases` and writes what `options` asks for; 0, or 1 without any answer.

    Raises:
        ClearError: whatever is wrong with the options, the model or the folders.
    """
    if options.top < 1 or options.batch_size < 1:
        raise ClearError("--top and --batch-size must be 1 or more")
    if options.sheet:
        check_sheet(options.sheet)
    if not os.path.isdir(options.gallery):
        raise ClearError(f"--gallery {options.gallery}: no such folder; it must be the folder that holds the pictures.")
    screen, notes = Console(highlight=False), Console(stderr=True, highlight=False)
    model = load_model(options.model, options.device)
    found = _by_phrases(model, options, notes) if options.phrases else _by_pictures(model, options, notes)
    print_answers(found, screen)
    report_unreadable(found.unreadable, notes)
    for path, write in ((options.json, write_json), (options.sheet, draw_sheet), (options.html, write_page)):
        if path:
            write(found, path)
            notes.print(Text(printable(f"written: {path}")), soft_wrap=True)
    return 0 if found.answers else 1


def open_pictures(model: ReIDModel, options: argparse.Namespace, notes: Console, phrases: bool = False) -> Gallery:
    """The gallery's features (or patch means, for phrases), brought up to date."""
    entries = list_images([options.gallery], tracklets=options.tracklets)
    if not entries:
        raise ClearError(
            f"--gallery {options.gallery}: the folder holds no pictures ({entries.passed_over} other files)."
        )
    key = "-".join([model.fingerprint[:16], *["tracklets"] * options.tracklets, *["phrases"] * phrases])
    folder = index_folder(options.gallery, key, options.index)
    dims = require_phrases(model, options.model).shape[1] if phrases else model.feature_dim

    def compute(missing: Sequence[Entry]) -> Outcomes:
        if phrases:
            return patch_means(model, missing, options.batch_size, progress=True)
        return _features(model, missing, options.batch_size, progress=True)

    gallery = open_gallery(options.gallery, entries, folder, dims, compute, options.rebuild)
    if gallery.computed or gallery.removed:
        told = (
            f"index of {options.gallery}: {gallery.computed} computed, {gallery.removed} removed, in {gallery.folder}"
        )
        notes.print(Text(printable(told)), soft_wrap=True)
    return gallery


def _features(model: ReIDModel, entries: Sequence[Entry], batch_size: int, progress: bool) -> Outcomes:
    for entry, outcome in extract(model, list(entries), batch_size, progress):
        yield entry, outcome.numpy() if isinstance(outcome, Tensor) else outcome


def _by_pictures(model: ReIDModel, options: argparse.Namespace, notes: Console) -> Answers:
    calibration = read_calibration(model.run_folder, model.fingerprint)
    queries = list_images(options.query, tracklets=options.tracklets)
    if not queries:
        raise ClearError(f"--query {' '.join(options.query)}: no pictures there.")
    gallery = open_pictures(model, options, notes)
    readable, unreadable = [], list(gallery.unreadable)
    for entry, outcome in _features(model, queries, options.batch_size, progress=False):
        if isinstance(outcome, UnreadableImage):
            unreadable.append((entry.name, str(outcome)))
        else:
            readable.append((entry, outcome))
    answers: list[Answer] = []
    if readable:
        index = _chosen_index(gallery, options, notes)
        features = np.stack([feature for _, feature in readable])
        rows, similarities = nearest(index, features, gallery, [entry for entry, _ in readable], options.top)
        for (entry, _), own_rows, own in zip(readable, rows, similarities):
            hits = tuple(_hit(gallery.entries[row], similarity, calibration) for row, similarity in zip(own_rows, own))
            answers.append(Answer(entry.name, _shown(entry), hits))
    return Answers(tuple(answers), "similarity", options.gallery, len(gallery.entries), tuple(unreadable))


def nearest(
    index: faiss.Index, features: np.ndarray, gallery: Gallery, queries: Sequence[Entry], top: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Rows and similarities of the best `top` entries for each query, best first; never the query's own files."""
    if not gallery.entries:
        return [[] for _ in queries], [[] for _ in queries]
    own = {os.path.realpath(entry.frames[0]): row for row, entry in enumerate(gallery.entries)} if queries else {}
    similarities, rows = index.search(np.ascontiguousarray(features, np.float32), min(top + 1, index.ntotal))
    kept_rows, kept = [], []
    for query, line, values in zip(queries, rows.tolist(), similarities.tolist()):
        itself = own.get(os.path.realpath(query.frames[0]), -1)
        pairs = [(row, value) for row, value in zip(line, values) if row >= 0 and row != itself][:top]
        kept_rows.append([row for row, _ in pairs])
        kept.append([min(1.0, max(-1.0, value)) for _, value in pairs])
    return kept_rows, kept


def _chosen_index(gallery: Gallery, options: argparse.Namespace, notes: Console) -> faiss.Index:
    if not options.approximate:
        return gallery.index
    if gallery.index.ntotal < SMALLEST:
        notes.print(f"--approximate: below {SMALLEST} pictures the exact index is used, it is as fast")
        return gallery.index
    found = approximate_index(gallery)
    if 2 * found.index.nprobe > found.index.nlist:
        notes.print("--approximate: these pictures form no clusters that could be passed over; the exact index is used")
        return gallery.index
    notes.print(
        f"approximate index: finds {100 * found.recall:.1f} % of the ten nearest (measured on this gallery), looks "
        f"into {found.index.nprobe} of {found.index.nlist} clusters"
    )
    return found.index


def _hit(entry: Entry, similarity: float, calibration: Calibration | None) -> Hit:
    comparison = compare_similarity(similarity, calibration) if calibration else None
    return Hit(entry.name, _shown(entry), similarity, comparison)


def _shown(entry: Entry) -> Path:
    return entry.frames[len(entry.frames) // 2]


def _by_phrases(model: ReIDModel, options: argparse.Namespace, notes: Console) -> Answers:
    names, directions = phrase_directions(model, options.model, options.phrases, options.free_text)
    gallery = open_pictures(model, options, notes, phrases=True)
    hits: tuple[Hit, ...] = ()
    if gallery.entries:
        mean = directions.mean(0, keepdims=True)
        scores, rows = gallery.index.search(mean, min(options.top, gallery.index.ntotal))
        hits = tuple(
            Hit(gallery.entries[row].name, _shown(gallery.entries[row]), score)
            for row, score in zip(rows[0].tolist(), scores[0].tolist())
        )
    answer = Answer(", ".join(names), None, hits)
    return Answers((answer,), "score", options.gallery, len(gallery.entries), tuple(gallery.unreadable))


def evaluate_phrases(options: argparse.Namespace) -> int:
    """Measures the phrases on a SynthCC set and prints the table."""
    from fastreid_clip3d.inference.search.phrase_quality import measure_phrases

    if not options.data:
        raise ClearError("--evaluate-phrases needs --data DATASET, one of the SynthCC sets (SynthCCTiny, ...).")
    quality = measure_phrases(
        load_model(options.model, options.device), options.model, options.data, options.batch_size
    )
    print(quality.table())
    if options.json:
        import json

        from fastreid_clip3d.evaluation.features_file import write_atomically

        text = json.dumps(quality.as_dict(), indent=2, allow_nan=False) + "\n"
        write_atomically(options.json, lambda stream: stream.write(text.encode()))
        print(f"written: {options.json}", file=sys.stderr)
    return 0
