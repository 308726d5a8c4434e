"""Train and test loaders of the method, from a config."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
from fastreid.config import CfgNode
from fastreid.data import samplers as fastreid_samplers
from fastreid.data.transforms import build_transforms
from fastreid.utils import comm
from torch.utils.data import BatchSampler
from torch.utils.data import Dataset as TorchDataset

from fastreid_clip3d.common.images import read_image
from fastreid_clip3d.compat.loader import DeviceLoader, use_device
from fastreid_clip3d.data.batch_check import check_batch_fits
from fastreid_clip3d.data.datasets.from_config import training_records
from fastreid_clip3d.data.records import clothes_of, paths_of
from fastreid_clip3d.data.samplers import MIXED_SAMPLER, MixedIdentitySampler
from fastreid_clip3d.data.synthetic_bodies import SyntheticBodies, synthetic_folder
from fastreid_clip3d.data.training_set import MixedImages, RealImages, TeacherAnswers, Transform, collate

logger = logging.getLogger(__name__)


def _train_transform(cfg: CfgNode) -> Transform:
    """fast-reid's augmentation without the mirror image, which :class:`RealImages` chooses."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.FLIP.ENABLED = False
    return build_transforms(cfg, is_train=True)


def build_training_set(
    cfg: CfgNode, teacher_transform: Transform | None = None, teacher_answers: TeacherAnswers | None = None
) -> RealImages | MixedImages:
    """The real images of ``DATASETS.NAMES`` and, with the mixed sampler, the synthetic bodies behind them."""
    flip_probability = cfg.INPUT.FLIP.PROB if cfg.INPUT.FLIP.ENABLED else 0.0
    transform = _train_transform(cfg)
    real = RealImages(training_records(cfg), transform, flip_probability, teacher_transform, teacher_answers)
    if cfg.DATALOADER.SAMPLER_TRAIN != MIXED_SAMPLER or not cfg.DATALOADER.SYNTHETIC_PER_BATCH:
        return real
    synthetic = SyntheticBodies(
        synthetic_folder(cfg.DATASETS.SYNTHETIC), transform, flip_probability, cfg.DATALOADER.SYNTHETIC_CACHE_MIB
    )
    logger.info(f"{len(real)} real images of {real.num_classes} persons, {len(synthetic)} synthetic images")
    return MixedImages(real, synthetic)


def _build_sampler(cfg: CfgNode, training_set: RealImages | MixedImages, seed: int) -> tuple[Any, int]:
    """The sampler of ``DATALOADER.SAMPLER_TRAIN`` and the number of its indices that make one batch of this rank."""
    name = cfg.DATALOADER.SAMPLER_TRAIN
    records = training_set.img_items
    rank_batch, num_instances = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(), cfg.DATALOADER.NUM_INSTANCE
    if name == MIXED_SAMPLER:
        sampler = MixedIdentitySampler(
            records,
            cfg.SOLVER.IMS_PER_BATCH,
            num_instances,
            len(training_set.synthetic) if isinstance(training_set, MixedImages) else 0,
            cfg.DATALOADER.SYNTHETIC_PER_BATCH,
            seed,
            comm.get_rank(),
            comm.get_world_size(),
        )
        return sampler, sampler.rank_batch_size
    if name == "TrainingSampler":
        return fastreid_samplers.TrainingSampler(len(training_set), seed=seed), rank_batch
    if name in ("NaiveIdentitySampler", "BalancedIdentitySampler"):
        return getattr(fastreid_samplers, name)(records, rank_batch, num_instances, seed=seed), rank_batch
    return fastreid_samplers.ImbalancedDatasetSampler(records), rank_batch


def build_train_loader(
    cfg: CfgNode, teacher_transform: Transform | None = None, teacher_answers: TeacherAnswers | None = None
) -> DeviceLoader:
    """Endless batches, on ``MODEL.DEVICE``, as :func:`training_set.collate` makes them.

    ``len(loader.dataset)`` and ``loader.dataset.num_classes`` are those of the real images, as fast-reid's trainer
    expects. ``loader.sampler_of_indices`` is the sampler.
    """
    use_device(cfg.MODEL.DEVICE)
    training_set = build_training_set(cfg, teacher_transform, teacher_answers)
    check_batch_fits(cfg, training_set, comm.get_world_size())
    sampler, rank_batch = _build_sampler(cfg, training_set, comm.shared_random_seed())
    loader = DeviceLoader(
        comm.get_local_rank(),
        dataset=training_set,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        batch_sampler=BatchSampler(sampler, rank_batch, drop_last=True),
        collate_fn=functools.partial(collate, channels_last=cfg.MODEL.CHANNELS_LAST),
        pin_memory=True,
        persistent_workers=cfg.DATALOADER.NUM_WORKERS > 0,
    )
    loader.sampler_of_indices = sampler
    return loader


class TestImages(TorchDataset):
    """Query items, then gallery items, with the dataset's ids; each frame of a tracklet is one item.

    Args:
        records: query + gallery. transform: PIL image to float tensor [3, H, W].

    Item: ``images``, ``targets``, ``camids``, ``clothes_ids``, ``img_paths``; for a frame of a tracklet also
    ``tracklet_ids`` (place in `records`), ``frame_ids`` (place in the tracklet) and ``tracklet_lengths``.
    """

    __test__ = False  # pytest would take the class for a test case

    def __init__(self, records: list[tuple], transform: Transform) -> None:
        self.img_items, self.transform = records, transform
        self.lengths = [len(getattr(record, "frames", ())) for record in records]
        self.has_tracklets = any(self.lengths)
        self.first_frame = np.cumsum([0, *(max(length, 1) for length in self.lengths)])

    def __len__(self) -> int:
        return int(self.first_frame[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        place = int(np.searchsorted(self.first_frame, index, side="right")) - 1
        frame, record = index - int(self.first_frame[place]), self.img_items[place]
        path = paths_of(record)[frame]
        item = {
            "images": self.transform(read_image(path)),
            "targets": record[1],
            "camids": record[2],
            "clothes_ids": clothes_of(record),
            "img_paths": path,
        }
        if self.has_tracklets:
            item |= {"tracklet_ids": place, "frame_ids": frame, "tracklet_lengths": max(self.lengths[place], 1)}
        return item


def build_test_loader(cfg: CfgNode, test_set: TestImages, batch_size: int | None = None) -> DeviceLoader:
    """Batches of a test set in order; each rank has a contiguous share."""
    use_device(cfg.MODEL.DEVICE)
    rank_batch = max(1, (batch_size or cfg.TEST.IMS_PER_BATCH) // comm.get_world_size())
    sampler = fastreid_samplers.InferenceSampler(len(test_set))
    return DeviceLoader(
        comm.get_local_rank(),
        dataset=test_set,
        batch_sampler=BatchSampler(sampler, rank_batch, drop_last=False),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=functools.partial(collate, channels_last=cfg.MODEL.CHANNELS_LAST),
        pin_memory=True,
    )
