"""The datasets of fast-reid's own loaders, when a config builds them.

After the import of this module fast-reid's ``build_reid_train_loader`` and ``build_reid_test_loader`` take the datasets
of ``DATASETS.CSV``, raise our errors and check the batch, for its ``DefaultTrainer`` as for ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastreid.data.build
from fastreid.config import CfgNode
from fastreid.data.common import CommDataset
from fastreid.data.transforms import build_transforms
from fastreid.utils import comm

from fastreid_clip3d.compat import named_datasets
from fastreid_clip3d.data.batch_check import check_batch_fits
from fastreid_clip3d.data.datasets.from_config import dataset_of, training_records
from fastreid_clip3d.data.samplers import MIXED_SAMPLER
from fastreid_clip3d.errors import ClearError


def train_arguments(
    cfg: CfgNode,
    train_set: CommDataset | None = None,
    transforms: Callable | None = None,
    sampler: Any = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """The arguments of ``build_reid_train_loader(cfg, ...)`` with the training set in place of its name.

    Raises:
        ClearError: a dataset is unknown or not there, or it cannot fill a batch.
    """
    if sampler is None and cfg.DATALOADER.SAMPLER_TRAIN == MIXED_SAMPLER:
        raise ClearError(
            f"fast-reid's trainer does not know DATALOADER.SAMPLER_TRAIN {MIXED_SAMPLER}. Train with "
            "fastreid_clip3d.engine.trainer.CLIP3DTrainer, which takes the same config, or choose fast-reid's sampler."
        )
    if train_set is None:
        records = training_records(cfg, fastreid.data.build._root, **{"combineall": False, **kwargs})
        train_set = CommDataset(records, transforms or build_transforms(cfg, is_train=True), relabel=True)
    if sampler is None:
        check_batch_fits(cfg, train_set, comm.get_world_size())
    return {"train_set": train_set, "transforms": transforms, "sampler": sampler}


def test_arguments(
    cfg: CfgNode,
    dataset_name: str | None = None,
    test_set: CommDataset | None = None,
    num_query: int = 0,
    transforms: Callable | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """The arguments of ``build_reid_test_loader(cfg, ...)`` with query and gallery in place of the dataset's name.

    Raises:
        ClearError: the dataset is unknown or not there.
    """
    if test_set is None and dataset_name is not None:
        dataset = dataset_of(cfg, dataset_name, fastreid.data.build._root, **kwargs)
        if comm.is_main_process():
            dataset.show_test()
        transforms = transforms or build_transforms(cfg, is_train=False)
        test_set = CommDataset(dataset.query + dataset.gallery, transforms, relabel=False)
        num_query = len(dataset.query)
    return {"dataset_name": dataset_name, "test_set": test_set, "num_query": num_query, "transforms": transforms}


named_datasets.use(train_arguments, test_arguments)
