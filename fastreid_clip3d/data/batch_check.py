"""Checks, before the first step, that a training set can fill the batches of a config."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastreid.config import CfgNode

from fastreid_clip3d.common.loss_names import PAIRWISE
from fastreid_clip3d.common.near_names import did_you_mean
from fastreid_clip3d.data.samplers import BY_PEOPLE, NEVER_GIVES_A_BATCH, SAMPLERS
from fastreid_clip3d.errors import ClearError


def check_batch_fits(cfg: CfgNode, dataset: Any, world_size: int) -> None:
    """Refuses a batch that the training set cannot fill.

    fast-reid does not check: Naive- and BalancedIdentitySampler search for people for ever, a batch above the training
    set divides by an epoch of zero iterations, batch norm fails on one image per process, and the triplet loss compares
    an image with itself where a person has one.

    Args:
        cfg: we read ``SOLVER.IMS_PER_BATCH``, ``DATALOADER.{SAMPLER_TRAIN, NUM_INSTANCE}`` and ``MODEL.LOSSES.NAME``.
        dataset: has ``img_items``, a list of (path, pid, camid). world_size: number of processes.

    Raises:
        ClearError: names the training set's size, the size that a batch needs, and the keys to change.
    """
    batch, sampler = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.SAMPLER_TRAIN
    if sampler not in SAMPLERS:
        raise ClearError(f"DATALOADER.SAMPLER_TRAIN {sampler!r} is unknown. {did_you_mean(sampler, SAMPLERS)}")
    if sampler in NEVER_GIVES_A_BATCH:
        usable = sorted(set(SAMPLERS) - set(NEVER_GIVES_A_BATCH))
        raise ClearError(
            f"DATALOADER.SAMPLER_TRAIN {sampler}: {NEVER_GIVES_A_BATCH[sampler]} Use one of {', '.join(usable)}."
        )
    if batch < 2 * world_size:
        raise ClearError(
            f"SOLVER.IMS_PER_BATCH {batch} on {world_size} process(es) gives {batch // world_size} image(s) per "
            f"process, and batch norm needs at least 2. Set SOLVER.IMS_PER_BATCH to {2 * world_size} or more."
        )
    pairwise = [name for name in cfg.MODEL.LOSSES.NAME if name in PAIRWISE]
    if pairwise and sampler in BY_PEOPLE and cfg.DATALOADER.NUM_INSTANCE == 1:
        raise ClearError(
            f"{', '.join(pairwise)} compares images of one person, and DATALOADER.NUM_INSTANCE 1 gives one image per "
            "person. Set DATALOADER.NUM_INSTANCE to 2 or more (fast-reid's configs: 4), or leave the loss out."
        )
    images_of = Counter(record[1] for record in dataset.img_items)
    people, images = len(images_of), len(dataset.img_items)
    held = f"The training set ({', '.join(cfg.DATASETS.NAMES)}) has {images} images of {people} people"
    if people < 2:
        raise ClearError(
            f"{held}; training needs at least 2 people. Look at DATASETS.NAMES and at the data's person ids."
        )
    if images < batch:
        raise ClearError(
            f"{held}, fewer images than one batch of SOLVER.IMS_PER_BATCH {batch}. Set SOLVER.IMS_PER_BATCH to "
            f"{images} or less."
        )
    if sampler not in ("NaiveIdentitySampler", "BalancedIdentitySampler"):
        return
    instances = cfg.DATALOADER.NUM_INSTANCE
    share = batch // world_size
    if not 1 <= instances <= share or (batch := share * world_size) % instances:
        raise ClearError(
            f"{sampler} cannot divide SOLVER.IMS_PER_BATCH {batch} on {world_size} process(es) into groups of "
            f"DATALOADER.NUM_INSTANCE {instances} images per person. Make SOLVER.IMS_PER_BATCH a multiple of "
            "NUM_INSTANCE x processes."
        )
    people_per_share = share // instances
    if sampler == "BalancedIdentitySampler":
        # It shuffles the people and drops those beyond a multiple of people_per_share x processes.
        fits = people - people % (people_per_share * world_size) >= batch // instances
    else:
        # Each round draws people_per_share different people who have a group of images left; a batch takes some rounds.
        rounds, rest = divmod(batch, people_per_share * instances)
        groups = sum(min(max(count // instances, 1), rounds) for count in images_of.values())
        fits = not rest and groups >= rounds * people_per_share
    if not fits:
        raise ClearError(
            f"{held}, and {sampler} needs {batch // instances} people for a batch of SOLVER.IMS_PER_BATCH {batch} with "
            f"DATALOADER.NUM_INSTANCE {instances} images per person. Lower SOLVER.IMS_PER_BATCH, raise "
            "DATALOADER.NUM_INSTANCE, or set DATALOADER.SAMPLER_TRAIN TrainingSampler."
        )
