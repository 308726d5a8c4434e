"""VC-Clothes: rendered people, four cameras. Names are ``pid-cam-clothes-n.jpg``, cameras from 1; clothes ids are per
person."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fastreid.data.datasets import DATASET_REGISTRY

from fastreid_clip3d.data.datasets.base import ClothesDataset, Item
from fastreid_clip3d.data.datasets.listing import SplitNotes, matching_images
from fastreid_clip3d.evaluation.protocols import GENERAL, Protocol

NAME = re.compile(r"(?P<person>-?\d+)-(?P<camera>\d+)-(?P<outfit>\d+)-\d+")


def _between(name: str, *cameras: int) -> Protocol:
    chosen = frozenset(camera - 1 for camera in cameras)
    return Protocol(name, "general", query_cameras=chosen, gallery_cameras=chosen)


@DATASET_REGISTRY.register()
class VCClothes(ClothesDataset):
    """VC-Clothes (Wan et al., "When Person Re-identification Meets Changing Clothes", CVPR Workshops 2020).

    Protocols: ``general`` on all cameras; ``SC-cameras-2-3`` and ``CC-cameras-3-4`` by the general rule between
    cameras where clothes stay or change, the authors' way; ``CC-all-cameras`` by the clothes rule. Both are called CC
    in publications.
    """

    dataset_dir = "VC-Clothes"
    dataset_name = "vc-clothes"
    layout = "VC-Clothes/{train,query,gallery}/pid-cam-clothes-n.jpg"
    official_counts = {
        "train": (256, 9449),
        "query": (256, 1020),
        "gallery": (256, 8591),
        "test": (256, None),
        "all": (512, 19060),
    }
    how_to_obtain = "from its authors, see https://wanfb.github.io/dataset.html."
    protocols = (
        GENERAL,
        _between("SC-cameras-2-3", 2, 3),
        _between("CC-cameras-3-4", 3, 4),
        Protocol("CC-all-cameras", "CC"),
    )

    def read_split(self, split: str, notes: SplitNotes) -> Iterator[Item]:
        for path, match in matching_images(self.existing(split), NAME, notes):
            person = int(match["person"])
            yield Item(path, person, camera=int(match["camera"]) - 1, outfit=f"{person}_{int(match['outfit'])}")
