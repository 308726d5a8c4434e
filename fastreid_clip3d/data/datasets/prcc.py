"""PRCC: three cameras. In A and B a person wears the same clothes, in C others; the gallery is A."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from fastreid.data.datasets import DATASET_REGISTRY

from fastreid_clip3d.data.datasets.base import ClothesDataset, Item
from fastreid_clip3d.data.datasets.listing import SplitNotes, image_names, matching_images, subfolder_names
from fastreid_clip3d.evaluation.protocols import Protocol

CAMERAS = {"A": 0, "B": 1, "C": 2}
TRAIN_NAME = re.compile(r"(?P<camera>[ABC])")
TEST_FOLDERS = {"query": ("B", "C"), "gallery": ("A",)}

_A, _B, _C = (frozenset({camera}) for camera in CAMERAS.values())


@DATASET_REGISTRY.register()
class PRCC(ClothesDataset):
    """PRCC (Yang et al., "Person Re-identification by Contour Sketch under Moderate Clothing Change", TPAMI 2020).

    Protocols, all by the general rule with gallery A: ``CC`` queries C, ``SC`` queries B, both against all of A (as
    recent papers do); ``CC-single-shot`` and ``SC-single-shot`` against one image per person, the mean of 10 seeded
    draws (as the original paper does).
    """

    dataset_dir = os.path.join("prcc", "rgb")
    dataset_name = "prcc"
    layout = "prcc/rgb/train/PID/[ABC]*.jpg and prcc/rgb/test/{A,B,C}/PID/*.jpg"
    official_counts = {"train": (150, 17896), "query": (71, 7416), "gallery": (71, 3384), "test": (71, None)}
    how_to_obtain = "from its authors, see https://www.isee-ai.cn/~yangqize/clothing.html."
    protocols = (
        Protocol("CC", "general", query_cameras=_C, gallery_cameras=_A),
        Protocol("SC", "general", query_cameras=_B, gallery_cameras=_A),
        Protocol("CC-single-shot", "general", query_cameras=_C, gallery_cameras=_A, single_shot_draws=10),
        Protocol("SC-single-shot", "general", query_cameras=_B, gallery_cameras=_A, single_shot_draws=10),
    )

    def read_split(self, split: str, notes: SplitNotes) -> Iterator[Item]:
        if split == "train":
            for person, folder in self._people(self.existing("train"), notes):
                for path, match in matching_images(folder, TRAIN_NAME, notes):
                    yield self._item(path, person, match["camera"])
            return
        for camera in TEST_FOLDERS[split]:
            for person, folder in self._people(self.existing("test", camera), notes):
                for name in image_names(folder, notes):
                    yield self._item(os.path.join(folder, name), person, camera)

    @staticmethod
    def _people(folder: str, notes: SplitNotes) -> Iterator[tuple[int, str]]:
        for name in subfolder_names(folder, notes):
            path = os.path.join(folder, name)
            if re.fullmatch(r"[0-9]{1,18}", name):
                yield int(name), path
            elif re.fullmatch(r"-\d+", name):
                notes.junk.extend(os.path.join(path, image) for image in image_names(path, notes))
            else:
                notes.unmatched.append(path)

    @staticmethod
    def _item(path: str, person: int, camera: str) -> Item:
        outfit = f"{person}_C" if camera == "C" else f"{person}_A"
        return Item(path, person, CAMERAS[camera], outfit)
