"""CCDA: test only, for models trained on Celeb-reID; in Celeb-reID's layout, or as a CSV file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from fastreid.data.datasets import DATASET_REGISTRY

from fastreid_clip3d.data.datasets.base import Item
from fastreid_clip3d.data.datasets.celeb_reid import CelebLayout
from fastreid_clip3d.data.datasets.csv_dataset import CSVDataset
from fastreid_clip3d.data.datasets.listing import SplitNotes


@DATASET_REGISTRY.register()
class CCDA(CelebLayout):
    """CCDA (Liu et al., "Learning Clothing and Pose Invariant 3D Shape Representation for Long-Term Person
    Re-Identification", ICCV 2023).

    Read from ``CCDA/dataset.csv`` if there is one (:class:`CSVDataset`'s columns), otherwise from Celeb-reID's
    folders, with Celeb-reID's two readings of the camera.
    """

    dataset_dir = "CCDA"
    dataset_name = "ccda"
    layout = "CCDA/{query,gallery}/x_y_z.jpg, or CCDA/dataset.csv with the columns path,pid,camid,clothes,split"
    how_to_obtain = "from the authors of 3DInvarReID, see https://github.com/liufeng2915/3DInvarReID."
    has_train = False

    def __init__(self, root: str = "", **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        csv_path = os.path.join(self.dataset_dir, "dataset.csv")
        self._csv = CSVDataset(root, csv_path=csv_path) if os.path.exists(csv_path) else None
        if self._csv is not None:
            self.protocols = self._csv.protocols

    def read_split(self, split: str, notes: SplitNotes) -> Iterator[Item]:
        yield from self._csv.read_split(split, notes) if self._csv else super().read_split(split, notes)
