"""Celeb-reID and Celeb-reID-light, and their versions with blurred faces.

Names are ``x_y_z.jpg``: x the person, numbered from 1 in each of train and test, y the index of that person's image,
z more of the same. There is no camera. The dataset authors' code reads the first digit of y as one, which removes for
a query the person's gallery images with the same digit; the protocol ``general`` does that, and
``general-each-image-a-camera`` removes nothing. The two give different numbers.
"""

from __future__ import annotations

import re
from typing import Iterator

from fastreid.data.datasets import DATASET_REGISTRY

from fastreid_clip3d.data.datasets.base import ClothesDataset, Item
from fastreid_clip3d.data.datasets.listing import SplitNotes, matching_images
from fastreid_clip3d.evaluation.protocols import GENERAL, Protocol

EACH_IMAGE_A_CAMERA = Protocol("general-each-image-a-camera", "nothing")

NAME = re.compile(r"(?P<person>-?\d+)_(?P<camera>\d)\d*_\d+")


class CelebLayout(ClothesDataset):
    """Reads ``<folder>/{train,query,gallery}/x_y_z.jpg``."""

    protocols = (GENERAL, EACH_IMAGE_A_CAMERA)

    def read_split(self, split: str, notes: SplitNotes) -> Iterator[Item]:
        for path, match in matching_images(self.existing(split), NAME, notes):
            yield Item(path, person=int(match["person"]), camera=int(match["camera"]))


@DATASET_REGISTRY.register()
class CelebReID(CelebLayout):
    """Celeb-reID (Huang et al., "Celebrities-ReID", IJCNN 2019): street snapshots of celebrities in many outfits."""

    dataset_dir = "Celeb-reID"
    dataset_name = "celeb-reid"
    layout = "Celeb-reID/{train,query,gallery}/x_y_z.jpg"
    official_counts = {"train": (632, 20208), "query": (420, 2972), "gallery": (420, 11006), "test": (420, None)}
    how_to_obtain = "from its authors, see https://github.com/Huang-3/Celeb-reID."


@DATASET_REGISTRY.register()
class CelebReIDLight(CelebLayout):
    """Celeb-reID-light (Huang et al., "Beyond Scalar Neuron", TCSVT 2019): no one wears the same clothes twice."""

    dataset_dir = "Celeb-reID-light"
    dataset_name = "celeb-reid-light"
    layout = "Celeb-reID-light/{train,query,gallery}/x_y_z.jpg"
    official_counts = {"train": (490, 9021), "query": (100, 887), "gallery": (100, 934), "test": (100, None)}
    how_to_obtain = "from its authors, see https://github.com/Huang-3/Celeb-reID."


@DATASET_REGISTRY.register()
class CelebReIDBlur(CelebReID):
    """Celeb-reID with blurred faces, made by ``tools/blur_faces.py``."""

    dataset_dir = "Celeb-reID-blur"
    dataset_name = "celeb-reid-blur"
    layout = "Celeb-reID-blur/{train,query,gallery}/x_y_z.jpg"
    how_to_obtain = "make it from Celeb-reID with tools/blur_faces.py."


@DATASET_REGISTRY.register()
class CelebReIDLightBlur(CelebReIDLight):
    """Celeb-reID-light with blurred faces, made by ``tools/blur_faces.py``."""

    dataset_dir = "Celeb-reID-light-blur"
    dataset_name = "celeb-reid-light-blur"
    layout = "Celeb-reID-light-blur/{train,query,gallery}/x_y_z.jpg"
    how_to_obtain = "make it from Celeb-reID-light with tools/blur_faces.py."
