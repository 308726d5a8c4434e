"""SynthCC: our own rendered people who change their clothes. Names are ``PPPP_oO_cC_NN.jpg``: person, outfit,
camera, number."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fastreid_clip3d.data.datasets.base import ClothesDataset, Item, register_dataset
from fastreid_clip3d.data.datasets.listing import SplitNotes, matching_images
from fastreid_clip3d.evaluation.protocols import CC, GENERAL, SC

NAME = re.compile(r"(?P<person>\d+)_o(?P<outfit>\d+)_c(?P<camera>\d+)_\d+")


def _counts(train_people: int, test_people: int) -> dict[str, tuple[int, int]]:
    """Official counts: 4 outfits x 4 images per person; of each test person's outfit, one image is a query."""
    return {
        "train": (train_people, 16 * train_people),
        "query": (test_people, 4 * test_people),
        "gallery": (test_people, 12 * test_people),
        "test": (test_people, 16 * test_people),
        "all": (train_people + test_people, 16 * (train_people + test_people)),
    }


FULL_COUNTS, FULL_VAL_COUNTS = _counts(1000, 300), _counts(1000, 100)
TINY_COUNTS, TINY_VAL_COUNTS = _counts(400, 300), _counts(400, 100)

VARIANTS = {
    "": ("", "", ""),
    "ShapeOnly": ("-shape-only", "--variant shape-only", "with skin and hair redrawn for every outfit"),
    "Crop": ("-crop", "--framing crop", "in boxes as a detector cuts them, so that a person's height does not show"),
    "ShapeOnlyCrop": (
        "-shape-only-crop",
        "--variant shape-only --framing crop",
        "with skin and hair redrawn for every outfit, in boxes as a detector cuts them",
    ),
}
"""Ending of the name -> ending of the folder, options of ``clip3d render-people``, description."""


class SynthCCLayout(ClothesDataset):
    """A folder of ``clip3d render-people``.

    Protocols: ``CC`` (same person in other clothes, other camera), ``SC`` (same clothes, other camera), ``general``.
    Every query has matches under each. Clothes ids belong to one person.
    """

    protocols = (CC, SC, GENERAL)
    test_prefix = ""

    def read_split(self, split: str, notes: SplitNotes) -> Iterator[Item]:
        folder = split if split == "train" else f"{self.test_prefix}{split}"
        for path, match in matching_images(self.existing(folder), NAME, notes):
            person = int(match["person"])
            yield Item(path, person, camera=int(match["camera"]) - 1, outfit=f"{person:06d}_{int(match['outfit']):03d}")


def _register(name: str, folder: str, options: str, counts: dict, description: str, test_prefix: str = "") -> None:
    command = " ".join(f"clip3d render-people {options}".split())
    register_dataset(
        name,
        SynthCCLayout,
        description,
        dataset_dir=folder,
        dataset_name=folder.lower(),
        layout=f"{folder}/{{train,query,gallery,val_query,val_gallery}}/PPPP_oO_cC_NN.jpg",
        official_counts=counts,
        how_to_obtain=f"run `{command}` (it writes below FASTREID_DATASETS; --root chooses another folder).",
        test_prefix=test_prefix,
    )


for _base, _folder, _option, _official, _official_val, _what in (
    ("SynthCC", "SynthCC", "--set SynthCC", FULL_COUNTS, FULL_VAL_COUNTS,
     "The official benchmark: 1,000 training and 300 test people, 4 outfits, 8 cameras, 256 x 128"),
    ("SynthCCTiny", "SynthCC-tiny", "", TINY_COUNTS, TINY_VAL_COUNTS,
     "A benchmark for two cores and minutes: 400 training and 300 test people, 128 x 64"),
):  # fmt: skip
    for _ending, (_folder_ending, _variant, _difference) in VARIANTS.items():
        _register(
            _base + _ending,
            _folder + _folder_ending,
            f"{_option} {_variant}",
            _official,
            f"{_base} {_difference}." if _difference else f"{_what}.",
        )
    _validation = f"{_base} tested on {_official_val['test'][0]} people of their own, for choosing hyper-parameters."
    _register(f"{_base}Val", _folder, _option, _official_val, _validation, test_prefix="val_")
