"""Training batches whose random choices follow from seed and position, so that a resumed run reads what comes next.

Every item of every batch gets a seed of its own, made from the run's seed, the batch's number and the item's place in
it. Augmentation then depends neither on the process that makes an item nor on what was drawn before.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
import torch
from fastreid.data.samplers import ImbalancedDatasetSampler
from fastreid.engine import HookBase
from fastreid.utils import comm
from torch.utils.data import BatchSampler, Dataset, get_worker_info

from fastreid_clip3d.compat.loader import DeviceLoader
from fastreid_clip3d.data.samplers import OwnNumbersImbalancedSampler


class SeededItems(Dataset):
    """A dataset whose item (index, seed) draws all its random numbers from `seed`; else it is the dataset itself."""

    def __init__(self, dataset: Any) -> None:
        self.unseeded = dataset

    def __len__(self) -> int:
        return len(self.unseeded)

    def __getattr__(self, name: str) -> Any:
        if name == "unseeded":  # while a worker unpickles this, before it has any attribute
            raise AttributeError(name)
        return getattr(self.unseeded, name)

    def __getitem__(self, place: tuple[int, int]) -> Any:
        index, seed = place
        with seeded(seed):
            return self.unseeded[index]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """In this block the random numbers of Python, NumPy and torch's CPU follow from a seed of 64 bits.

    In the main process they go on afterwards as if the block had not been. A loader's worker draws no other numbers.
    """
    in_worker = get_worker_info() is not None
    if not in_worker:
        before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed % 2**63)
    try:
        yield
    finally:
        if not in_worker:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.default_generator.set_state(before[2])


class SeededBatches:
    """Batches of (index, seed) from endless batches of indices; can begin at any batch.

    Args:
        batches: the batches of indices of this process. seed: of the run. rank: of this process.
    """

    def __init__(self, batches: Iterable[list[int]], seed: int, rank: int) -> None:
        self.batches, self.seed, self.rank = batches, seed, rank
        self.batch_size = getattr(batches, "batch_size", None)
        self.first_batch = 0

    def start_at(self, batch: int) -> None:
        """Lets the next iterator begin with this batch, counted from 0 at the run's beginning."""
        self.first_batch = batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        skipped = self.first_batch
        sampler: Any = getattr(self.batches, "sampler", None)
        if hasattr(sampler, "start_at"):
            epoch, skipped = divmod(skipped, sampler.batches_per_epoch)
            sampler.start_at(epoch)
        for number, indices in enumerate(itertools.islice(self.batches, skipped, None), self.first_batch):
            seeds = np.random.SeedSequence([self.seed, self.rank, number]).generate_state(len(indices), np.uint64)
            yield [(index, int(seed)) for index, seed in zip(indices, seeds)]


class SeededEpochs(HookBase):
    """Begins every epoch with random numbers of torch (dropout, drop path) that follow from seed, epoch and rank."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_epoch(self) -> None:
        words = np.random.SeedSequence([self.seed, comm.get_rank(), self.trainer.epoch]).generate_state(1, np.uint64)
        torch.manual_seed(int(words[0]) % 2**63)


def reproducible(loader: DeviceLoader, seed: int) -> DeviceLoader:
    """The batches of an endless loader that has not begun, with random choices that follow from a seed."""
    workers, batches = loader.num_workers, cast(BatchSampler, loader.batch_sampler)
    if isinstance(batches.sampler, ImbalancedDatasetSampler):
        drawn = OwnNumbersImbalancedSampler(batches.sampler.data_source, seed=batches.sampler._seed)
        batches = BatchSampler(drawn, batches.batch_size, batches.drop_last)
    return DeviceLoader(
        comm.get_local_rank(),
        dataset=SeededItems(loader.dataset),
        batch_sampler=SeededBatches(batches, seed, comm.get_rank()),
        num_workers=workers,
        collate_fn=loader.collate_fn,
        pin_memory=True,
        persistent_workers=workers > 0,
    )
