"""What `clip3d search` does: it indexes the pictures of a folder and answers queries from the index."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text
from torch import Tensor

from fastreid_clip3d.common.files import check_writable, check_writable_folder
from fastreid_clip3d.common.images import IMAGE_ENDINGS, UnreadableImage
from fastreid_clip3d.common.json_file import check_json, write_json
from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.calibration import Calibration, compare_similarity, read_calibration
from fastreid_clip3d.evaluation.calibration_fit import calibration_fit
from fastreid_clip3d.evaluation.refinement import NOTHING_REFINED, Refinement
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.extraction import extract
from fastreid_clip3d.inference.load import ModelSource, open_model
from fastreid_clip3d.inference.model import TorchModel
from fastreid_clip3d.inference.pictures import Entry, list_images
from fastreid_clip3d.inference.search.answers import Answer, Answers, Hit, print_answers, print_unreadable
from fastreid_clip3d.inference.search.index import Gallery, index_folder, open_gallery, vectors_of
from fastreid_clip3d.inference.search.ordering import OnePerson, Ordered, RefinedGallery, query_features
from fastreid_clip3d.inference.search.phrase_quality import measure_phrases
from fastreid_clip3d.inference.search.phrases import patch_means, phrase_directions, require_phrases
from fastreid_clip3d.inference.search.pictures import draw_sheet, write_page

Outcomes = Iterator[tuple[Entry, np.ndarray | UnreadableImage]]


@dataclass(frozen=True)
class GallerySource:
    """The folder of a gallery's pictures, and how we make its index.

    Attributes:
        folder: of the pictures. index: folder of the index; "" keeps it in `folder`.
        run: the model's checkpoint, or where else it comes from. tracklets: a folder of frames is one entry.
        rebuild: compute the whole index anew. batch_size: images at once, 1 or more.
    """

    folder: str
    run: str
    index: str = ""
    tracklets: bool = False
    rebuild: bool = False
    batch_size: int = 64


def search(
    model: str | Path | ModelSource,
    gallery: str,
    *,
    query: Sequence[str] = (),
    phrases: Sequence[str] = (),
    free_text: bool = False,
    top: int = 10,
    one_person: OnePerson = "",
    refinement: Refinement = NOTHING_REFINED,
    tracklets: bool = False,
    json_file: str = "",
    html: str = "",
    sheet: str = "",
    index: str = "",
    rebuild: bool = False,
    batch_size: int = 64,
    device: str = "",
) -> Answers:
    """Answers queries or phrases from a folder of pictures, prints the answers and writes the files that are named.

    Args:
        model: any source of ``load_model``. gallery: folder of the pictures to search in.
        query: pictures, folders, globs or .txt lists. phrases: body-shape phrases, in place of `query`.
        free_text: take other phrases than the 32, through the teacher. top: matches per query, 1 or more.
        one_person: all query pictures show one person, who gets one answer; see ``ordering.OnePerson``.
        refinement: of the order of an answer; not for phrases. tracklets: a folder of frames is one entry.
        json_file, html, sheet: files for the answers as json, as a page and as one picture; "": none. With "-" the json
            goes to standard output and the tables to standard error.
        index: folder of the index; "" keeps it in the gallery. rebuild: compute the whole index anew.
        batch_size: images at once, 1 or more. device: as in ``load_model``.

    Raises:
        ClearError: an argument, the model or a folder is wrong.
    """
    if top < 1 or batch_size < 1:
        raise ClearError("--top and --batch-size must be 1 or more.")
    if phrases and (one_person or refinement):
        raise ClearError("--one-person, --nfc, --expand and --rerank need --query; they do not change phrases.")
    check_json(json_file)
    for path, endings in ((html, (".html", ".htm")), (sheet, IMAGE_ENDINGS)):
        if path:
            check_writable(path, endings)
    if index:
        check_writable_folder(index, "--index")
    if not os.path.isdir(gallery):
        raise ClearError(f"--gallery {gallery}: no such folder; it must be the folder that holds the pictures.")
    screen, notes = Console(stderr=json_file == "-", highlight=False), Console(stderr=True, highlight=False)
    student = open_model(model, device)
    source = GallerySource(gallery, _run_of(student), index, tracklets, rebuild, batch_size)
    if phrases:
        found = _by_phrases(student, source, phrases, free_text, top, notes)
    else:
        found = _by_pictures(student, source, query, top, notes, one_person, refinement)
    print_answers(found, screen)
    print_unreadable(found.unreadable, notes)
    if json_file:
        write_json(json_file, found.as_dict())
    if html:
        write_page(found, html)
    if sheet:  # the last, since a sheet of very many answers is refused
        draw_sheet(found, sheet)
    for path in (json_file, html, sheet):
        if path not in ("", "-"):
            notes.print(Text(printable(f"written: {path}")), soft_wrap=True)
    return found


def open_pictures(model: ReIDModel, source: GallerySource, notes: Console, phrases: bool = False) -> Gallery:
    """The gallery's features (for phrases its patch means), after we have computed those of new and changed files."""
    entries = list_images([source.folder], tracklets=source.tracklets)
    if not entries:
        raise ClearError(
            f"--gallery {source.folder}: the folder holds no pictures ({entries.passed_over} other files)."
        )
    key = "-".join([model.fingerprint[:16], *["tracklets"] * source.tracklets, *["phrases"] * phrases])
    folder = index_folder(source.folder, key, source.index)
    dims = require_phrases(model, source.run).shape[1] if phrases else model.feature_dim

    def compute(missing: Sequence[Entry]) -> Outcomes:
        if phrases:
            return patch_means(model, missing, source.batch_size, progress=True)
        return _features(model, missing, source.batch_size, progress=True)

    gallery = open_gallery(source.folder, entries, folder, dims, compute, source.rebuild)
    if gallery.computed or gallery.removed:
        note = f"index of {source.folder}: {gallery.computed} computed, {gallery.removed} removed, in {gallery.folder}"
        notes.print(Text(printable(note)), soft_wrap=True)
    return gallery


def _features(model: ReIDModel, entries: Sequence[Entry], batch_size: int, progress: bool) -> Outcomes:
    for entry, outcome in extract(model, list(entries), batch_size, progress):
        yield entry, outcome.numpy() if isinstance(outcome, Tensor) else outcome


def _by_pictures(
    model: ReIDModel,
    source: GallerySource,
    query: Sequence[str],
    top: int,
    notes: Console,
    one_person: OnePerson,
    refinement: Refinement,
) -> Answers:
    calibration = read_calibration(model.run_folder, model.fingerprint)
    queries = list_images(query, tracklets=source.tracklets)
    if not queries:
        raise ClearError(f"--query {' '.join(query)}: no pictures there.")
    gallery = open_pictures(model, source, notes)
    readable, unreadable = [], list(gallery.unreadable)
    for entry, outcome in _features(model, queries, source.batch_size, progress=False):
        if isinstance(outcome, UnreadableImage):
            unreadable.append((entry.name, str(outcome)))
        else:
            readable.append((entry, outcome))
    answers: list[Answer] = []
    note = ""
    if calibration and gallery.entries:
        fit = calibration_fit(vectors_of(gallery.index), calibration)
        note = fit.sentence
        if fit.holds is False:
            calibration = None
    if calibration and one_person and len(readable) > 1:
        calibration, note = None, "No verdict: the calibration is one of single pictures, not of several as one query."
    entries = [entry for entry, _ in readable]
    features = np.stack([feature for _, feature in readable]) if readable else np.zeros((0, model.feature_dim))
    for people, found in _orders(features, entries, gallery, top, one_person, refinement):
        hits = tuple(
            _hit(gallery.entries[row], value, calibration) for row, value in zip(found.rows, found.similarities)
        )
        names = tuple(entry.name for entry in people)
        text = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more pictures, {one_person}"
        nobody, sentence = None, ""
        if calibration and hits:
            nobody, sentence = calibration.nobody(found.best, len(gallery.entries))
        answers.append(Answer(text, _shown(people[0]), hits, names, nobody, sentence))
    if refinement:
        note = f"{note} The order is refined ({refinement}); similarities are the plain ones.".strip()
    return Answers(tuple(answers), "similarity", source.folder, len(gallery.entries), tuple(unreadable), note)


def _orders(
    features: np.ndarray,
    entries: Sequence[Entry],
    gallery: Gallery,
    top: int,
    one_person: OnePerson,
    refinement: Refinement,
) -> Iterator[tuple[Sequence[Entry], Ordered]]:
    """The queries of each answer, and the order of the gallery."""
    if not refinement and (not one_person or len(entries) < 2):
        for entry, rows, values in zip(entries, *nearest(features, gallery, entries, top)):
            yield [entry], Ordered(rows, values, max(values, default=-1.0))
        return
    refined = RefinedGallery(gallery.vectors, refinement)
    own = _own_rows(entries, gallery)
    groups = [list(range(len(entries)))] if one_person else [[place] for place in range(len(entries))]
    for group in groups if entries else []:
        left_out = {row for place in group for row in own[place]}
        found = refined.order(query_features(features[group], one_person), left_out, top)
        yield [entries[place] for place in group], found


def _own_rows(queries: Sequence[Entry], gallery: Gallery) -> list[set[int]]:
    """The gallery's rows of each query's own file, or of a tracklet's own files; links to them count, too."""
    wanted = [_files(query) for query in queries]
    rows: dict[tuple[object, ...], set[int]] = {files: set() for files in wanted}
    for row, entry in enumerate(gallery.entries if wanted else []):
        files = _files(entry)
        if files in rows:
            rows[files].add(row)
    return [rows[files] for files in wanted]


def _files(entry: Entry) -> tuple[object, ...]:
    """What identifies the files of an entry, whatever their names."""
    return tuple(map(_file, entry.frames))


def _file(path: Path) -> object:
    try:
        status = os.stat(path)
    except OSError:  # removed since we read it
        return os.path.abspath(path)
    return status.st_dev, status.st_ino


def nearest(
    features: np.ndarray, gallery: Gallery, queries: Sequence[Entry], top: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Rows and similarities of the best `top` entries for each query, best first; never the query's own files."""
    if not gallery.entries:
        return [[] for _ in queries], [[] for _ in queries]
    own = _own_rows(queries, gallery)
    most = top + max(map(len, own), default=0)
    similarities, rows = gallery.index.search(
        np.ascontiguousarray(features, np.float32), min(most, gallery.index.ntotal)
    )
    kept_rows, kept = [], []
    for itself, line, values in zip(own, rows.tolist(), similarities.tolist()):
        pairs = [(row, value) for row, value in zip(line, values) if row >= 0 and row not in itself][:top]
        kept_rows.append([row for row, _ in pairs])
        kept.append([min(1.0, max(-1.0, value)) for _, value in pairs])
    return kept_rows, kept


def _hit(entry: Entry, similarity: float, calibration: Calibration | None) -> Hit:
    comparison = compare_similarity(similarity, calibration) if calibration else None
    return Hit(entry.name, _shown(entry), similarity, comparison)


def _shown(entry: Entry) -> Path:
    return entry.frames[len(entry.frames) // 2]


def _by_phrases(
    model: ReIDModel, source: GallerySource, phrases: Sequence[str], free_text: bool, top: int, notes: Console
) -> Answers:
    names, directions = phrase_directions(model, source.run, phrases, free_text)
    gallery = open_pictures(model, source, notes, phrases=True)
    hits: tuple[Hit, ...] = ()
    if gallery.entries:
        mean = directions.mean(0, keepdims=True)
        scores, rows = gallery.index.search(mean, min(top, gallery.index.ntotal))
        hits = tuple(
            Hit(gallery.entries[row].name, _shown(gallery.entries[row]), score)
            for row, score in zip(rows[0].tolist(), scores[0].tolist())
        )
    answer = Answer(", ".join(names), None, hits)
    return Answers((answer,), "score", source.folder, len(gallery.entries), tuple(gallery.unreadable))


def _run_of(model: ReIDModel) -> str:
    return str(model.checkpoint) if isinstance(model, TorchModel) else model.source


def evaluate_phrases(
    model: str | Path | ModelSource,
    data: str,
    *,
    root: str = "",
    batch_size: int = 64,
    device: str = "",
    json_file: str = "",
) -> None:
    """Measures the phrases on a SynthCC set and prints the table.

    Args:
        model: any source of ``load_model`` with phrases.
        data: a SynthCC set's name. root: the datasets' folder; "": FASTREID_DATASETS.
        batch_size: images at once, 1 or more. device: as in ``load_model``.
        json_file: for the numbers; "": none; "-": standard output, in place of the table.

    Raises:
        ClearError: an argument, the model or the set is wrong.
    """
    if not data:
        raise ClearError("--evaluate-phrases needs --data DATASET, one of the SynthCC sets (SynthCCTiny, ...).")
    check_json(json_file)
    student = open_model(model, device)
    quality = measure_phrases(student, _run_of(student), data, batch_size, root=root)
    if json_file != "-":
        print(quality.table())
    if json_file:
        write_json(json_file, quality.as_dict())
    if json_file not in ("", "-"):
        print(f"written: {json_file}", file=sys.stderr)
