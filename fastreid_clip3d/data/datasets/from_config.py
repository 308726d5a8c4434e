"""The datasets that a config names: registered ones, and the files of ``DATASETS.CSV``."""

from __future__ import annotations

from typing import Any

from fastreid.config import CfgNode
from fastreid.data.datasets.bases import ImageDataset
from fastreid.utils import comm

from fastreid_clip3d.data.datasets import build_dataset, dataset_names, register_csv_dataset, unknown_dataset
from fastreid_clip3d.errors import ClearError


def dataset_of(cfg: CfgNode, name: str, root: str = "", **kwargs: Any) -> ImageDataset:
    """The dataset of this name, among the registered ones and the files of ``DATASETS.CSV``.

    Args:
        cfg: a config of fast-reid, with or without our keys. root: the datasets' folder; "" = FASTREID_DATASETS.
        kwargs: for the dataset's class.

    Raises:
        ClearError: no dataset has this name, its files are not there, or ``DATASETS.CSV`` has another form.
    """
    files: dict[str, str] = {}
    for pair in cfg.DATASETS.get("CSV", ()):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise ClearError(
                f"DATASETS.CSV has the entry {pair!r}; it must be pairs of a name and a file: "
                "(('MyData', 'my_data.csv'),)."
            )
        files[pair[0]] = pair[1]
    if name in files:
        register_csv_dataset(name, files[name])
    elif name not in dataset_names() and not name.lower().endswith(".csv"):
        raise unknown_dataset(name, {*dataset_names(), *files})
    return build_dataset(name, root, **kwargs)


def training_records(cfg: CfgNode, root: str = "", **kwargs: Any) -> list[tuple]:
    """All training images of ``DATASETS.NAMES``, in order; `root` and `kwargs` as in :func:`dataset_of`."""
    if not cfg.DATASETS.NAMES:
        raise ClearError("DATASETS.NAMES names no dataset, so there is nothing to train on.")
    records: list[tuple] = []
    for name in cfg.DATASETS.NAMES:
        dataset = dataset_of(cfg, name, root, **{"combineall": cfg.DATASETS.COMBINEALL, **kwargs})
        if comm.is_main_process():
            dataset.show_train()
        records.extend(dataset.train)
    return records
