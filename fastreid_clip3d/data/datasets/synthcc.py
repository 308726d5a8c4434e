"""SynthCC: our own rendered people who change their clothes. Names are ``PPPP_oO_cC_NN.jpg``: person, outfit,
camera, number."""

from __future__ import annotations

import re
from typing import Iterator

from fastreid.data.datasets import DATASET_REGISTRY

from fastreid_clip3d.data.datasets.base import ClothesDataset, Item
from fastreid_clip3d.data.datasets.listing import SplitNotes, matching_images
from fastreid_clip3d.evaluation.protocols import CC, GENERAL, SC

NAME = re.compile(r"(?P<person>\d+)_o(?P<outfit>\d+)_c(?P<camera>\d+)_\d+")

FULL_COUNTS = {
    "train": (1000, 16000),
    "query": (300, 1200),
    "gallery": (300, 3600),
    "test": (300, 4800),
    "all": (1300, 20800),
}
TINY_COUNTS = {
    "train": (400, 6400),
    "query": (150, 600),
    "gallery": (150, 1800),
    "test": (150, 2400),
    "all": (550, 8800),
}
VAL_COUNTS = {"train": (400, 6400), "query": (50, 200), "gallery": (50, 600), "test": (50, 800), "all": (450, 7200)}
FULL_VAL_COUNTS = {
    "train": (1000, 16000),
    "query": (100, 400),
    "gallery": (100, 1200),
    "test": (100, 1600),
    "all": (1100, 17600),
}


class _SynthCCSet(ClothesDataset):
    """A folder that ``tools/render_people.py`` makes.

    Protocols: ``CC`` (same person in other clothes, other camera), ``SC`` (same clothes, other camera), ``general``.
        Every query
    has matches under each. Clothes ids belong to one person.
    """

    protocols = (CC, SC, GENERAL)
    arguments = ""
    test_prefix = ""

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        cls.dataset_name = cls.dataset_dir.lower()
        cls.layout = f"{cls.dataset_dir}/{{train,query,gallery,val_query,val_gallery}}/PPPP_oO_cC_NN.jpg"
        command = " ".join(f"python tools/render_people.py {cls.arguments}".split())
        cls.how_to_obtain = f"run `{command}` (it writes below FASTREID_DATASETS; --root chooses another folder)."

    def read_split(self, split: str, notes: SplitNotes) -> Iterator[Item]:
        folder = split if split == "train" else f"{self.test_prefix}{split}"
        for path, match in matching_images(self.existing(folder), NAME, notes):
            person = int(match["person"])
            yield Item(path, person, camera=int(match["camera"]) - 1, outfit=f"{person:06d}_{int(match['outfit']):03d}")


@DATASET_REGISTRY.register()
class SynthCC(_SynthCCSet):
    """The official benchmark: 1,000 training and 300 test people, 4 outfits, 8 cameras, 256 x 128."""

    dataset_dir = "SynthCC"
    official_counts = FULL_COUNTS
    arguments = "--set SynthCC"


@DATASET_REGISTRY.register()
class SynthCCShapeOnly(_SynthCCSet):
    """SynthCC with skin and hair redrawn for every outfit: only the body tells who it is."""

    dataset_dir = "SynthCC-shape-only"
    official_counts = FULL_COUNTS
    arguments = "--set SynthCC --variant shape-only"


@DATASET_REGISTRY.register()
class SynthCCVal(_SynthCCSet):
    """SynthCC tested on 100 people of their own, for choosing hyper-parameters."""

    dataset_dir = "SynthCC"
    official_counts = FULL_VAL_COUNTS
    test_prefix = "val_"
    arguments = "--set SynthCC"


@DATASET_REGISTRY.register()
class SynthCCTiny(_SynthCCSet):
    """A benchmark for two cores and minutes: 400 training and 150 test people, 128 x 64."""

    dataset_dir = "SynthCC-tiny"
    official_counts = TINY_COUNTS


@DATASET_REGISTRY.register()
class SynthCCTinyShapeOnly(_SynthCCSet):
    """SynthCCTiny with skin and hair redrawn for every outfit."""

    dataset_dir = "SynthCC-tiny-shape-only"
    official_counts = TINY_COUNTS
    arguments = "--variant shape-only"


@DATASET_REGISTRY.register()
class SynthCCTinyVal(_SynthCCSet):
    """SynthCCTiny tested on 50 people of their own, for choosing hyper-parameters."""

    dataset_dir = "SynthCC-tiny"
    official_counts = VAL_COUNTS
    test_prefix = "val_"


@DATASET_REGISTRY.register()
class SynthCCTinyCrop(_SynthCCSet):
    """SynthCCTiny in boxes as a detector cuts them: a person's height does not show."""

    dataset_dir = "SynthCC-tiny-crop"
    official_counts = TINY_COUNTS
    arguments = "--framing crop"


@DATASET_REGISTRY.register()
class SynthCCTinyShapeOnlyCrop(_SynthCCSet):
    """SynthCCTinyShapeOnly in boxes as a detector cuts them."""

    dataset_dir = "SynthCC-tiny-shape-only-crop"
    official_counts = TINY_COUNTS
    arguments = "--variant shape-only --framing crop"


@DATASET_REGISTRY.register()
class SynthCCCrop(_SynthCCSet):
    """SynthCC in boxes as a detector cuts them."""

    dataset_dir = "SynthCC-crop"
    official_counts = FULL_COUNTS
    arguments = "--set SynthCC --framing crop"


@DATASET_REGISTRY.register()
class SynthCCShapeOnlyCrop(_SynthCCSet):
    """SynthCCShapeOnly in boxes as a detector cuts them."""

    dataset_dir = "SynthCC-shape-only-crop"
    official_counts = FULL_COUNTS
    arguments = "--set SynthCC --variant shape-only --framing crop"
