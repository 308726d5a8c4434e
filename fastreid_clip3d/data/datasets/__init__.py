"""The clothes-changing datasets, in fast-reid's registry: importing this package registers them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastreid.data.datasets.bases import ImageDataset

from fastreid_clip3d.common.dataset_root import dataset_root
from fastreid_clip3d.common.near_names import did_you_mean
from fastreid_clip3d.data.datasets import celeb_reid, synthcc  # noqa: F401  (each registers a table of datasets)
from fastreid_clip3d.data.datasets.base import ClothesDataset, registered_datasets
from fastreid_clip3d.data.datasets.ccda import CCDA
from fastreid_clip3d.data.datasets.ccvid import CCVID
from fastreid_clip3d.data.datasets.csv_dataset import CSVDataset, register_csv_dataset
from fastreid_clip3d.data.datasets.deepchange import DeepChange
from fastreid_clip3d.data.datasets.last import LaST
from fastreid_clip3d.data.datasets.listing import DatasetNotFound, DatasetProblem
from fastreid_clip3d.data.datasets.ltcc import LTCC
from fastreid_clip3d.data.datasets.prcc import PRCC
from fastreid_clip3d.data.datasets.vc_clothes import VCClothes

__all__ = [
    "CCDA",
    "CCVID",
    "LTCC",
    "PRCC",
    "CSVDataset",
    "ClothesDataset",
    "DatasetNotFound",
    "DatasetProblem",
    "DeepChange",
    "LaST",
    "VCClothes",
    "build_dataset",
    "dataset_names",
    "dataset_root",
    "register_csv_dataset",
    "unknown_dataset",
]


def dataset_names() -> list[str]:
    """All names that DATASETS.NAMES and DATASETS.TESTS understand, fast-reid's own included, sorted."""
    return sorted(registered_datasets(), key=str.lower)


def unknown_dataset(name: str, known: Iterable[str]) -> DatasetProblem:
    """The error for a name that is not among the known ones: it lists them, the nearest first."""
    return DatasetProblem(f"No dataset is called {name!r}. {did_you_mean(name, known)}")


def build_dataset(name: str, root: str = "", **kwargs: Any) -> ImageDataset:
    """Builds a registered dataset, ours or fast-reid's own, below ``root`` (default: :func:`dataset_root`).

    A name that ends in ``.csv`` is the path of a CSV file (:class:`CSVDataset`).

    Raises:
        DatasetProblem: no dataset has this name; the message lists the known ones.
        DatasetNotFound: its folders are not there.
    """
    if name.lower().endswith(".csv"):
        return CSVDataset(root, csv_path=name, **kwargs)
    dataset = registered_datasets().get(name)
    if dataset is None:
        raise unknown_dataset(name, dataset_names())
    root = root or dataset_root()
    try:
        return dataset(root=root, **kwargs)
    except (RuntimeError, AssertionError) as error:
        # fast-reid's classes report a missing folder by either; an assertion without words has another reason.
        if isinstance(error, DatasetNotFound) or not str(error):
            raise
        raise DatasetNotFound(
            f"{name}: {error}. The datasets' folder is {root} (environment variable FASTREID_DATASETS)."
        ) from error
