"""Celeb-reID and Celeb-reID-light, and their versions with blurred faces.

Names are ``x_y_z.jpg``: x is the person, numbered from 1 in each of train and test, y and z number that person's
images. The set has no cameras. The authors' code takes the first digit of y as the camera, so that the protocol
``general`` removes a person's gallery images with the query's digit. ``general-each-image-a-camera`` removes nothing.
The two give different numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fastreid_clip3d.data.datasets.base import ClothesDataset, Item, register_dataset
from fastreid_clip3d.data.datasets.listing import SplitNotes, matching_images
from fastreid_clip3d.evaluation.protocols import GENERAL, Protocol

EACH_IMAGE_A_CAMERA = Protocol("general-each-image-a-camera", "nothing")

NAME = re.compile(r"(?P<person>-?\d+)_(?P<camera>\d)\d*_\d+")

SETS = {
    "CelebReID": (
        "Celeb-reID",
        {"train": (632, 20208), "query": (420, 2972), "gallery": (420, 11006), "test": (420, None)},
        'Celeb-reID (Huang et al., "Celebrities-ReID", IJCNN 2019): street snapshots of celebrities in many outfits.',
    ),
    "CelebReIDLight": (
        "Celeb-reID-light",
        {"train": (490, 9021), "query": (100, 887), "gallery": (100, 934), "test": (100, None)},
        'Celeb-reID-light (Huang et al., "Beyond Scalar Neuron", TCSVT 2019): no one wears the same clothes twice.',
    ),
}
"""Name -> folder, official counts, description. A version with blurred faces belongs to each."""


class CelebLayout(ClothesDataset):
    """Reads ``<folder>/{train,query,gallery}/x_y_z.jpg``."""

    protocols: tuple[Protocol, ...] = (GENERAL, EACH_IMAGE_A_CAMERA)

    def read_split(self, split: str, notes: SplitNotes) -> Iterator[Item]:
        for path, match in matching_images(self.existing(split), NAME, notes):
            yield Item(path, person=int(match["person"]), camera=int(match["camera"]))


def _register(name: str, folder: str, official_counts: dict, description: str, how_to_obtain: str) -> None:
    register_dataset(
        name,
        CelebLayout,
        description,
        dataset_dir=folder,
        dataset_name=folder.lower(),
        layout=f"{folder}/{{train,query,gallery}}/x_y_z.jpg",
        official_counts=official_counts,
        how_to_obtain=how_to_obtain,
    )


for _name, (_folder, _counts, _description) in SETS.items():
    _authors = "from its authors, see https://github.com/Huang-3/Celeb-reID."
    _register(_name, _folder, _counts, _description, _authors)
    _register(
        f"{_name}Blur",
        f"{_folder}-blur",
        _counts,
        f"{_folder} with blurred faces, made by ``clip3d blur-faces``.",
        f"make it from {_folder} with `clip3d blur-faces`.",
    )
