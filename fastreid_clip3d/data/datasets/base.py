"""The base class of the clothes-changing datasets: one id space for query and gallery, official counts, clear errors.

A subclass names its folders and reads each split into :class:`Item`; this file turns items into records. We read a
split at its first use, so a copy without train folders can still be evaluated.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset

from fastreid_clip3d.common.dataset_root import dataset_root
from fastreid_clip3d.data.datasets.counts import Count, Official, count_records, count_table
from fastreid_clip3d.data.datasets.listing import DatasetNotFound, DatasetProblem, SplitNotes
from fastreid_clip3d.data.records import Record
from fastreid_clip3d.evaluation.protocols import GENERAL, Protocol

logger = logging.getLogger(__name__)

SPLITS = ("train", "query", "gallery")


def registered_datasets() -> dict[str, type[ImageDataset]]:
    """Name -> class of everything in fast-reid's registry, its own datasets included."""
    # fast-reid's Registry has no list of its names, and raises KeyError for an unknown one.
    return dict(DATASET_REGISTRY._obj_map)


def register_dataset(
    name: str, base: type[ClothesDataset], description: str, **attributes: Any
) -> type[ClothesDataset]:
    """Makes a class of this name from `base` and `attributes` (class attributes), and puts it into the registry."""
    dataset = type(name, (base,), {"__doc__": description, "__module__": base.__module__, **attributes})
    DATASET_REGISTRY.register(dataset)
    return dataset


class Item(NamedTuple):
    """The parts of a file's name, before we number them.

    Ids that are numbers stay as they are if all of them fit into int64; otherwise we number all ids. An outfit of None
    is not known.
    """

    path: str
    person: int | str
    camera: int | str
    outfit: str | None = None
    frames: tuple[str, ...] = ()


class ClothesDataset(ImageDataset):
    """A dataset of people in several outfits, on fast-reid's ``ImageDataset``: ``train``, ``query``, ``gallery`` are
    lists of :class:`Record`.

    A subclass sets the attributes below and writes :meth:`read_split`.

    Attributes:
        dataset_dir: the dataset's folder below the root; after construction its path.
        dataset_name: prefix of training ids; results are filed under the class's name.
        official_counts: (ids, items) by "train", "query", "gallery", "test" (query and gallery) or "all"; None where
            they are not published.
        layout: the expected content of the dataset's folder, for messages.
        how_to_obtain: the source of the data, for messages.
        one_numbering: True where the same id in train and in test is the same person. In most published sets it is not.
        notes: per split, the files that we left out.

    Raises:
        DatasetNotFound: the dataset's folder is missing at construction, or a split's folder at its first use.
        DatasetProblem: a split is empty or cannot be read.
    """

    dataset_dir: str = ""
    dataset_name: str = ""
    official_counts: ClassVar[Official] = {}
    layout: ClassVar[str] = ""
    how_to_obtain: ClassVar[str] = ""
    one_numbering: ClassVar[bool] = False
    _junk_pids = [-1]

    def __init__(
        self, root: str = "", transform: Any = None, mode: str = "train", combineall: bool = False, **kwargs: Any
    ) -> None:
        # fast-reid's constructor reads the mode's split at once; here each is read when asked for.
        if mode not in SPLITS:
            raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(SPLITS)}")
        self.root = str(root) or dataset_root()
        self.dataset_dir = os.path.join(self.root, self.dataset_dir)
        self.transform, self.mode, self.combineall = transform, mode, combineall
        self.notes: dict[str, SplitNotes] = {}
        self._records: dict[str, list[Record]] = {}
        self._people_of: dict[str, set[int | str]] = {}
        self.check_before_run(self.required_files())
        if combineall:
            self.combine_all()

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """The protocols that score the test split; the first gives the headline numbers."""
        return (GENERAL,)

    @property
    def has_train(self) -> bool:
        """False for a set that is for testing only."""
        return True

    def required_files(self) -> list[str]:
        """Paths that every copy of the dataset has."""
        return [self.dataset_dir]

    def read_split(self, split: str, notes: SplitNotes) -> Iterable[Item]:
        """Reads "train", "query" or "gallery" from disk, and adds left out files to ``notes``."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say how its files are read: give it read_split, as CONTRIBUTING.md shows."
        )

    def hints(self) -> list[str]:
        """Remarks on this copy, one sentence each without a full stop; we log them with the counts."""
        return []

    # -- the three lists ---------------------------------------------------------------------------------------------

    @property
    def train(self) -> list[Record]:
        if "train" not in self._records:
            if not self.has_train:
                raise DatasetProblem(
                    f"{self._title} is a test set without training images; name it in DATASETS.TESTS only."
                )
            self._records["train"] = self._train_records(self._read("train"))
        return self._records["train"]

    @property
    def query(self) -> list[Record]:
        self._read_test()
        return self._records["query"]

    @property
    def gallery(self) -> list[Record]:
        self._read_test()
        return self._records["gallery"]

    @property
    def data(self) -> list[Record]:
        """The split of ``mode``, as fast-reid's ``Dataset`` has it."""
        return getattr(self, self.mode)

    @property
    def _title(self) -> str:
        return type(self).__name__

    def _read(self, split: str) -> list[Item]:
        notes = self.notes[split] = SplitNotes()
        items = list(self.read_split(split, notes))
        left_out = notes.in_words()
        if not items:
            raise DatasetProblem(self._nothing_found(split, notes))
        if left_out:
            logger.warning(f"{self._title}, {split}:{left_out}")
        if notes.junk:
            logger.info(f"{self._title}, {split}: {len(notes.junk)} junk images (negative person number) are left out")
        self._people_of[split] = {item.person for item in items}
        return items

    def _nothing_found(self, split: str, notes: SplitNotes) -> str:
        return (
            f"{self._title}: no {split} image was found below {self.dataset_dir}.{notes.in_words()}"
            f"{self._expected()} If the copy is whole, its files may be in other folders or have other names."
        )

    def _train_records(self, items: list[Item]) -> list[Record]:
        outfits = _numbers(item.outfit for item in items)
        return [
            Record(
                item.path,
                f"{self.dataset_name}_{item.person}",
                f"{self.dataset_name}_{item.camera}",
                outfits[item.outfit],
                item.frames,
            )
            for item in items
        ]

    def _read_test(self) -> None:
        if "query" in self._records:
            return
        query, gallery = self._read("query"), self._read("gallery")
        both = query + gallery
        persons = _numbers_or_same(item.person for item in both)
        cameras = _numbers_or_same(item.camera for item in both)
        outfits = _numbers(item.outfit for item in both)
        for split, items in (("query", query), ("gallery", gallery)):
            self._records[split] = [
                Record(item.path, persons[item.person], cameras[item.camera], outfits[item.outfit], item.frames)
                for item in items
            ]

    def people_in_train_and_test(self) -> list[str]:
        """The people in train and in test, of the splits read so far; none where train and test number people apart."""
        test = self._people_of.get("query", set()) | self._people_of.get("gallery", set())
        shared = self._people_of.get("train", set()) & test if self.one_numbering else set()
        return sorted(map(str, shared))

    def combine_all(self) -> None:
        """Joins all three splits to one training set, with fast-reid's names for test ids."""
        combined = list(self.train)
        offset = 1 + max((record.clothes_id for record in combined), default=-1)
        for record in self.query + self.gallery:
            if record.pid in self._junk_pids:
                continue
            combined.append(
                record.replace(
                    pid=f"{self.dataset_name}_test_{record.pid}",
                    camid=f"{self.dataset_name}_test_{record.camid}",
                    clothes_id=record.clothes_id + offset if record.clothes_id >= 0 else -1,
                )
            )
        self._records["train"] = combined

    # -- folders -----------------------------------------------------------------------------------------------------

    def check_before_run(self, required_files: str | list[str]) -> None:
        """Raises :class:`DatasetNotFound` for the first path that is not there."""
        for path in [required_files] if isinstance(required_files, str) else required_files:
            if not os.path.exists(path):
                raise DatasetNotFound(
                    f"{self._title}: {path} is not there. The datasets' folder is {self.root} "
                    f"(environment variable FASTREID_DATASETS).{self._expected()}"
                )

    def existing(self, *parts: str) -> str:
        """The path of a folder or file below the dataset's folder; :class:`DatasetNotFound` if it is not there."""
        path = os.path.join(self.dataset_dir, *parts)
        self.check_before_run(path)
        return path

    def _expected(self) -> str:
        layout = f" Expected: {self.layout}." if self.layout else ""
        return layout + (f" The data: {self.how_to_obtain}" if self.how_to_obtain else "")

    # -- counts ------------------------------------------------------------------------------------------------------

    def counts(self, splits: Iterable[str] = SPLITS) -> dict[str, Count]:
        """Counts by split; with query and gallery also "test", and with train besides also "all"."""
        splits = [split for split in splits if split != "train" or self.has_train]
        found = {split: count_records(getattr(self, split)) for split in splits}
        if "query" in found and "gallery" in found:
            found["test"] = count_records(self.query + self.gallery)
            if "train" in found and not self.combineall:
                train, test = found["train"], found["test"]
                # The same number in train and in test is another person, and cameras cannot be compared either.
                found["all"] = Count(train.ids + test.ids, train.items + test.items, 0, train.outfits + test.outfits)
        return found

    def count_differences(self, found: Mapping[str, Count]) -> list[str]:
        """One sentence for each official count that this copy does not have."""
        differences: list[str] = []
        if self.combineall:
            return differences
        for split, count in found.items():
            for what, here, official in zip(("ids", "items"), count, self.official_counts.get(split, (None, None))):
                if official is not None and here != official:
                    differences.append(f"{split}: {here:,} {what}, officially {official:,}")
        return differences

    def show_train(self) -> None:
        """Logs the training counts; warns where they differ from the official ones."""
        self._show(["train"])

    def show_test(self) -> None:
        """Logs the counts of query and gallery; warns where they differ from the official ones."""
        self._show(["query", "gallery"])

    def _show(self, splits: list[str]) -> None:
        found = self.counts(splits)
        logger.info(f"=> Loaded {self._title}\n{count_table(found, self.official_counts)}")
        for hint in self.hints():
            logger.warning(hint)
        differences = self.count_differences(found)
        if differences:
            logger.warning(
                f"{self._title}: this copy differs from the official counts ({'; '.join(differences)}); results "
                "may not compare with published ones."
            )


def _numbers(names: Iterable[str | None]) -> dict[str | None, int]:
    """Names numbered from 0 in sorted order; None is -1."""
    known = sorted({name for name in names if name is not None})
    return {None: -1, **{name: number for number, name in enumerate(known)}}


def _numbers_or_same(names: Iterable[int | str]) -> dict[int | str, int]:
    """Numbers stay as they are. If one id is text, or too large for int64, we number all ids in sorted order."""
    distinct = set(names)
    numbers: dict[int | str, int] = {name: name for name in distinct if isinstance(name, int) and abs(name) < 2**63}
    if len(numbers) == len(distinct):
        return numbers
    return {name: number for number, name in enumerate(sorted(distinct, key=str))}
