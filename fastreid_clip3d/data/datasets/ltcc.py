"""LTCC: 12 indoor cameras over two months. Names are ``PPP_K_cN_...``: person, outfit of that person, camera from 1."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from functools import cached_property

from fastreid.data.datasets import DATASET_REGISTRY

from fastreid_clip3d.data.datasets.base import ClothesDataset, Item
from fastreid_clip3d.data.datasets.listing import DatasetProblem, SplitNotes, list_lines, matching_images
from fastreid_clip3d.evaluation.protocols import CC, GENERAL, Protocol

logger = logging.getLogger(__name__)

NAME = re.compile(r"(?P<person>-?\d+)_(?P<outfit>\d+)_c(?P<camera>\d+)", re.IGNORECASE)
FOLDERS = {"train": "train", "query": "query", "gallery": "test"}
CHANGE_LIST = ("info", "cloth-change_id_test.txt")


@DATASET_REGISTRY.register()
class LTCC(ClothesDataset):
    """LTCC (Qian et al., "Long-Term Cloth-Changing Person Re-identification", ACCV 2020).

    Protocols: ``CC`` and ``general`` on the whole test; ``CC-change-ids`` is CC among the people of
    ``info/cloth-change_id_test.txt`` only, as in some papers, where that list is present.
    """

    dataset_dir = "LTCC_ReID"
    dataset_name = "ltcc"
    layout = "LTCC_ReID/{train,query,test}/PPP_K_cN_....png and LTCC_ReID/info/cloth-change_id_test.txt"
    official_counts = {
        "train": (77, 9576),
        "query": (None, 493),
        "gallery": (None, 7050),
        "test": (75, None),
        "all": (152, 17119),
    }
    how_to_obtain = "from its authors, see https://naiq.github.io/LTCC_Perosn_ReID.html."

    @cached_property
    def protocols(self) -> tuple[Protocol, ...]:
        path = os.path.join(self.dataset_dir, *CHANGE_LIST)
        if not os.path.exists(path):
            logger.warning(f"LTCC: {path} is not there, so the protocol CC-change-ids cannot be offered")
            return CC, GENERAL
        return CC, GENERAL, Protocol("CC-change-ids", "CC", pids=self._change_ids(path))

    def _change_ids(self, path: str) -> frozenset[int]:
        ids = set()
        for number, line in list_lines(path):
            if not re.fullmatch(r"[0-9]{1,18}", line):
                raise DatasetProblem(f"{path}, line {number}: {line!r} is not a person's number")
            ids.add(int(line))
        if not ids:
            raise DatasetProblem(f"{path} names no person")
        return frozenset(ids)

    def read_split(self, split: str, notes: SplitNotes) -> Iterator[Item]:
        for path, match in matching_images(self.existing(FOLDERS[split]), NAME, notes):
            person = int(match["person"])
            yield Item(path, person, camera=int(match["camera"]) - 1, outfit=f"{person}_{int(match['outfit'])}")
