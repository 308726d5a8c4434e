"""DeepChange: lists of lines ``PID_CAM_CLOTHES_....jpg,tracklet``, images in the folder of the list's name.

The third field is the day of recording; we use it as the outfit. We use the tracklet's number as the camera, so that
matches from the same camera but another tracklet count, as in the dataset's paper.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from fastreid.data.datasets import DATASET_REGISTRY

from fastreid_clip3d.data.datasets.base import ClothesDataset, Item
from fastreid_clip3d.data.datasets.listing import SplitNotes, image_names, list_lines
from fastreid_clip3d.evaluation.protocols import GENERAL

LINE = re.compile(r"(?P<file>P(?P<person>-?\d+)_[^_,/]+_(?P<outfit>[^_,/.]+)[^,/]*\.\w+)\s*,\s*(?P<tracklet>-?\d+)")
FOLDERS = {"train": "train-set", "query": "test-set-query", "gallery": "test-set-gallery"}


@DATASET_REGISTRY.register()
class DeepChange(ClothesDataset):
    """DeepChange (Xu and Zhu, "DeepChange: A Long-Term Person Re-Identification Benchmark", ICCV 2023)."""

    dataset_dir = "DeepChangeDataset"
    dataset_name = "deepchange"
    layout = "DeepChangeDataset/{train-set,test-set-query,test-set-gallery}/ and the lists <folder>-bbox.txt"
    official_counts = {"train": (450, 75083), "query": (None, 17527), "gallery": (None, 62956), "test": (521, None)}
    how_to_obtain = "from its authors, see https://github.com/PengBoXiangShang/deepchange."
    protocols = (GENERAL,)

    def read_split(self, split: str, notes: SplitNotes) -> Iterator[Item]:
        folder = self.existing(FOLDERS[split])
        path = self.existing(f"{FOLDERS[split]}-bbox.txt")
        present = set(image_names(folder, notes))
        listed = set()
        for number, line in list_lines(path):
            match = LINE.fullmatch(line)
            if match is not None:
                listed.add(match["file"])
            if match is None:
                notes.unmatched.append(f"{path}:{number}: {line}")
            elif match["person"].startswith("-"):
                notes.junk.append(match["file"])
            elif match["file"] not in present:
                notes.missing.append(os.path.join(folder, match["file"]))
            else:
                person = int(match["person"])
                image = os.path.join(folder, match["file"])
                yield Item(image, person, int(match["tracklet"]), outfit=f"{person}_{match['outfit']}")
        notes.ignored.extend(os.path.join(folder, name) for name in sorted(present - listed))
