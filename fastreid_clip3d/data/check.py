"""Checks a dataset on disk without training: counts, names, unreadable images, queries without a match."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from fastreid_clip3d.common.images import UnreadableImage, read_image
from fastreid_clip3d.data.datasets import ClothesDataset, build_dataset
from fastreid_clip3d.data.datasets.base import SPLITS
from fastreid_clip3d.data.datasets.counts import Count, count_records
from fastreid_clip3d.data.datasets.listing import first_few
from fastreid_clip3d.data.records import Record, clothes_of, paths_of
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import GENERAL, Protocol, removed_mask, why_no_match

CHUNK = 2048


@dataclass
class MatchReport:
    """The queries that have no match under a protocol.

    Attributes:
        queries: number of queries that the protocol asks.
        unmatched_queries: paths of the queries without a match in the gallery; results do not count them.
        unmatched_ids: people without any matched query.
        why: where no query has a match, the reason in words; otherwise "".
    """

    queries: int
    unmatched_queries: list[str]
    unmatched_ids: list[int]
    why: str = ""


@dataclass
class DatasetReport:
    """The result of :func:`check_dataset`; ``problems`` is empty for a good copy."""

    name: str
    counts: dict[str, Count] = field(default_factory=dict)
    official_counts: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    count_differences: list[str] = field(default_factory=list)
    images_read: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    unmatched_names: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    junk: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    query_only_ids: list[int] = field(default_factory=list)
    gallery_only_ids: list[int] = field(default_factory=list)
    people_in_train_and_test: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    protocols: dict[str, MatchReport] = field(default_factory=dict)
    broken_splits: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """One sentence per problem. Published datasets have junk, other files and people in query or gallery only, so
        these are not problems."""
        problems = list(self.broken_splits)
        for what, names in (
            ("unreadable images", [f"{path} ({reason})" for path, reason in self.unreadable.items()]),
            ("images listed more than once", self.duplicates),
            ("names not understood", self.unmatched_names),
            ("files missing", self.missing),
        ):
            if names:
                problems.append(f"{len(names):,} {what}: {first_few(names)}")
        if self.people_in_train_and_test:
            problems.append(
                f"{len(self.people_in_train_and_test):,} people are in train and in test: "
                f"{first_few(self.people_in_train_and_test)}. A model that has seen the test's people scores too high; "
                "give each person to one of them"
            )
        if self.count_differences:
            problems.append(f"counts differ from the official ones: {'; '.join(self.count_differences)}")
        for name, matches in self.protocols.items():
            if matches.queries == len(matches.unmatched_queries):
                problems.append(
                    f"protocol {name}: none of its {matches.queries} queries has a match in the gallery. {matches.why}"
                )
        return problems

    def as_json(self) -> dict[str, Any]:
        """The whole report for json."""
        counts = {split: count._asdict() for split, count in self.counts.items()}
        return {**asdict(self), "counts": counts, "problems": self.problems}


def check_dataset(
    name: str, root: str = "", decode: bool = True, workers: int = 0, progress: bool = True, **kwargs: Any
) -> tuple[DatasetReport, dict[str, list[Record]]]:
    """Reads every list and every image of a dataset once.

    Args:
        name: as in DATASETS.NAMES, ours or fast-reid's own, or the path of a CSV file.
        root: the datasets' folder; "": FASTREID_DATASETS.
        decode: whether we read the images, or only their names. workers: threads that read; 0: one per core.
        progress: whether a bar is shown. kwargs: for the dataset's class.

    Returns:
        The report, and the records of the splits that could be read.

    Raises:
        DatasetNotFound: there is no such folder at all.
    """
    dataset = build_dataset(name, root, **kwargs)
    report = DatasetReport(name)
    splits = _read_splits(dataset, report)
    if isinstance(dataset, ClothesDataset):
        report.counts = dataset.counts(splits)
        report.official_counts = dict(dataset.official_counts)
        report.count_differences = dataset.count_differences(report.counts)
        for notes in dataset.notes.values():
            report.unmatched_names += notes.unmatched
            report.missing += notes.missing
            report.junk += notes.junk
            report.ignored += notes.ignored
        report.notes = dataset.hints()
        report.people_in_train_and_test = dataset.people_in_train_and_test()
    else:
        report.counts = {split: count_records(records) for split, records in splits.items()}
    report.duplicates = duplicate_paths(splits)
    if "query" in splits and "gallery" in splits:
        query, gallery = ({record[1] for record in splits[split]} for split in ("query", "gallery"))
        report.query_only_ids, report.gallery_only_ids = sorted(query - gallery), sorted(gallery - query)
        for protocol in getattr(dataset, "protocols", (GENERAL,)):
            report.protocols[protocol.name] = queries_without_match(splits["query"], splits["gallery"], protocol)
    if decode:
        paths = sorted({path for records in splits.values() for record in records for path in paths_of(record)})
        report.images_read = len(paths)
        report.unreadable = unreadable_images(paths, workers, progress)
    return report, splits


def _read_splits(dataset: Any, report: DatasetReport) -> dict[str, list[Record]]:
    splits = {}
    for split in SPLITS:
        if split == "train" and not getattr(dataset, "has_train", True):
            continue
        try:
            splits[split] = list(getattr(dataset, split))
        except ClearError as error:
            # Query and gallery are read together, so both raise the same error.
            if str(error) not in report.broken_splits:
                report.broken_splits.append(str(error))
    return splits


def duplicate_paths(splits: dict[str, list[Record]]) -> list[str]:
    """Paths that occur more than once, in one split or in several, with the splits."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for split, records in splits.items():
        for record in records:
            seen[os.path.normpath(record[0])][split] += 1
    return [
        f"{path} ({', '.join(f'{count} x {split}' for split, count in where.items())})"
        for path, where in sorted(seen.items())
        if where.total() > 1
    ]


def unreadable_images(paths: Sequence[str], workers: int = 0, progress: bool = True) -> dict[str, str]:
    """Decodes every image to its last byte; path -> reason of the unreadable ones."""
    unreadable = {}
    with (
        ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,
        tqdm(total=len(paths), desc="reading images", unit="image", disable=not progress) as bar,
    ):
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            for path, reason in zip(chunk, pool.map(why_unreadable, chunk)):
                if reason:
                    unreadable[path] = reason
                bar.update()
    return unreadable


def why_unreadable(path: str) -> str:
    """The reason why training's reader refuses an image; "" where it reads it."""
    try:
        read_image(path)
    except UnreadableImage as error:
        return error.reason
    return ""


def queries_without_match(query: Sequence[Record], gallery: Sequence[Record], protocol: Protocol) -> MatchReport:
    """The queries without a match under a protocol. For single-shot draws we check the whole gallery."""
    asked = [record for record in query if _takes_part(record, protocol.query_cameras, protocol.pids)]
    shown = [record for record in gallery if _takes_part(record, protocol.gallery_cameras, protocol.pids)]
    queries_of, gallery_of = _by_person(asked), _by_person(shown)
    unmatched: list[str] = []
    unmatched_ids: list[int] = []
    for person, own_queries in sorted(queries_of.items()):
        own_gallery = gallery_of.get(person, [])
        if own_gallery:
            query_ids, gallery_ids = _ids(own_queries), _ids(own_gallery)
            removed = removed_mask(
                protocol.rule, query_ids[0], query_ids[1], gallery_ids[0], gallery_ids[1], query_ids[2], gallery_ids[2]
            )
            lost = np.asarray(removed.all(axis=1))
        else:
            lost = np.ones(len(own_queries), dtype=bool)
        unmatched += [record[0] for record, is_lost in zip(own_queries, lost) if is_lost]
        if lost.all():
            unmatched_ids.append(person)
    why = ""
    if len(unmatched) == len(asked):
        why = why_no_match(protocol, *_ids(asked)[:2], *_ids(shown)[:2])
    return MatchReport(len(asked), unmatched, unmatched_ids, why)


def _takes_part(record: Sequence[Any], cameras: frozenset[int] | None, pids: frozenset[int] | None) -> bool:
    return (cameras is None or record[2] in cameras) and (pids is None or record[1] in pids)


def _by_person(records: Iterable[Record]) -> dict[int, list[Record]]:
    people: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        people[record[1]].append(record)
    return people


def _ids(records: Sequence[Record]) -> np.ndarray:
    """pid, camid and clothes id, int64 [3, N]."""
    ids = [(record[1], record[2], clothes_of(record)) for record in records]
    return np.array(ids, dtype=np.int64).reshape(-1, 3).T
