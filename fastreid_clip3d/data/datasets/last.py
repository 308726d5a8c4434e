"""LaST: frames of films. Names are ``PID_..._CLOTHES.jpg``; only train has clothes labels, and there are no cameras."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from fastreid.data.datasets import DATASET_REGISTRY

from fastreid_clip3d.data.datasets.base import ClothesDataset, Item
from fastreid_clip3d.data.datasets.listing import SplitNotes, matching_images, subfolder_names
from fastreid_clip3d.evaluation.protocols import GENERAL

NAME = re.compile(r"(?P<person>-?\d+)_(?:.*_)?(?P<outfit>[^_.]+)\.\w+$")


@DATASET_REGISTRY.register()
class LaST(ClothesDataset):
    """LaST (Shu et al., "Large-Scale Spatio-Temporal Person Re-identification", TCSVT 2022).

    Each test image has a camera of its own, so that ``general`` removes nothing. All of train has one camera.
    """

    dataset_dir = "last"
    dataset_name = "last"
    layout = "last/train/PID/PID_..._CLOTHES.jpg, last/test/query/*.jpg and last/test/gallery/PID/*.jpg"
    official_counts = {
        "train": (5000, 71248),
        "query": (None, 10176),
        "gallery": (None, 125353),
        "test": (5806, 135529),
    }
    how_to_obtain = "from its authors, see https://github.com/shuxjweb/last."
    protocols = (GENERAL,)

    def read_split(self, split: str, notes: SplitNotes) -> Iterator[Item]:
        if split == "query":
            folders = [self.existing("test", "query")]
        else:
            parent = self.existing("train") if split == "train" else self.existing("test", "gallery")
            folders = [os.path.join(parent, name) for name in subfolder_names(parent, notes)]
        for folder in folders:
            for path, match in matching_images(folder, NAME, notes):
                person = int(match["person"])
                if split == "train":
                    yield Item(path, person, camera=0, outfit=f"{person}_{match['outfit']}")
                else:
                    yield Item(path, person, camera=os.path.relpath(path, self.dataset_dir))
