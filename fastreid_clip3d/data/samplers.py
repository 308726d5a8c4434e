"""The order of a mixed training set: P x K real and S synthetic images in every batch, a share of them on every rank.

Shape letters: R real images of a batch over all ranks (``SOLVER.IMS_PER_BATCH``), K images per person
(``DATALOADER.NUM_INSTANCE``), P = R / K persons, S synthetic images over all ranks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from fastreid.data.samplers import ImbalancedDatasetSampler
from torch.utils.data import Sampler

from fastreid_clip3d.errors import ClearError

MIXED_SAMPLER = "MixedIdentitySampler"
NEVER_GIVES_A_BATCH = {
    "SetReWeightSampler": "fast-reid's sampler cannot give a batch: it adds an array to an empty list; it never "
    "collects as many images as a batch needs, so it runs for ever."
}
"""fast-reid's samplers that fail whatever the settings are, and why."""
SAMPLERS = (
    MIXED_SAMPLER,
    "TrainingSampler",
    "NaiveIdentitySampler",
    "BalancedIdentitySampler",
    "ImbalancedDatasetSampler",
    *NEVER_GIVES_A_BATCH,
)
"""The known names for DATALOADER.SAMPLER_TRAIN: ours, then fast-reid's."""
BY_PEOPLE = (MIXED_SAMPLER, "NaiveIdentitySampler", "BalancedIdentitySampler")
"""Those that draw ``DATALOADER.NUM_INSTANCE`` images of each person."""


class OwnNumbersImbalancedSampler(ImbalancedDatasetSampler):
    """fast-reid's sampler with a generator of its own, so that its order follows from the seed alone.

    fast-reid's draws from torch's global generator, which a resumed run has in another state.
    """

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            yield from torch.multinomial(self.weights, self._size, replacement=True, generator=generator).tolist()


class MixedIdentitySampler(Sampler[int]):
    """Endless indices: batch after batch, the rank's share of P x K real images, then its share of S synthetic ones.

    An epoch is one pass over the real images, ``len(records) // R`` batches. We shuffle each person's images and form
    groups of K; a person with fewer than K images repeats some of them. No person occurs twice in a batch. Synthetic
    images come from shuffled passes of their own; their index is ``len(records) + position``. The order depends on
    `seed` and the epoch only, so a resumed run can start at any epoch (:meth:`start_at`), and all ranks agree without
    communicating.

    Args:
        records: the real images, as (path, pid, camid); we read only the pid.
        batch_size: R. num_instances: K. num_synthetic: number of all synthetic images.
        synthetic_per_batch: S; 0 for none.
        seed: of all random choices. rank, world_size: of this process.

    Raises:
        ClearError: the batch cannot be filled: R, S or P do not divide, too few persons, no synthetic images.
    """

    def __init__(
        self,
        records: Sequence[tuple],
        batch_size: int,
        num_instances: int,
        num_synthetic: int,
        synthetic_per_batch: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.images_of: dict[object, list[int]] = defaultdict(list)
        for index, record in enumerate(records):
            self.images_of[record[1]].append(index)
        self.num_real = len(records)
        self.num_synthetic = num_synthetic
        self.batch_size, self.num_instances, self.synthetic_per_batch = batch_size, num_instances, synthetic_per_batch
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.first_epoch = 0
        self._check()

    def _check(self) -> None:
        wanted = (
            f"a batch of SOLVER.IMS_PER_BATCH={self.batch_size} real images with DATALOADER.NUM_INSTANCE="
            f"{self.num_instances} images per person and DATALOADER.SYNTHETIC_PER_BATCH={self.synthetic_per_batch} "
            f"synthetic images on {self.world_size} process(es)"
        )
        if self.num_instances < 1 or self.batch_size < 1 or self.batch_size % (self.num_instances * self.world_size):
            raise ClearError(
                f"Cannot fill {wanted}: IMS_PER_BATCH must be a positive multiple of NUM_INSTANCE x processes."
            )
        if self.synthetic_per_batch < 0 or self.synthetic_per_batch % self.world_size:
            raise ClearError(
                f"Cannot fill {wanted}: SYNTHETIC_PER_BATCH must be a multiple of the number of processes."
            )
        persons_wanted = self.batch_size // self.num_instances
        if len(self.images_of) < persons_wanted:
            raise ClearError(
                f"Cannot fill {wanted}: that takes {persons_wanted} persons, and the training set has "
                f"{len(self.images_of)}. Lower IMS_PER_BATCH or raise NUM_INSTANCE."
            )
        if self.num_real < self.batch_size:
            raise ClearError(
                f"Cannot fill {wanted}: the training set has {self.num_real} images, fewer than one batch. Lower "
                "IMS_PER_BATCH."
            )
        if self.synthetic_per_batch and not self.num_synthetic:
            raise ClearError(
                f"Cannot fill {wanted}: there are no synthetic images. Render some with clip3d render-bodies or set "
                "DATALOADER.SYNTHETIC_PER_BATCH 0."
            )

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one pass over the real images, without the last, incomplete one, as in fast-reid."""
        return self.num_real // self.batch_size

    @property
    def rank_batch_size(self) -> int:
        """Images of one batch on one rank, both halves."""
        return (self.batch_size + self.synthetic_per_batch) // self.world_size

    def start_at(self, epoch: int) -> None:
        """Makes the next iterator begin with this epoch, for a resumed run."""
        self.first_epoch = epoch

    def __iter__(self) -> Iterator[int]:
        epoch = self.first_epoch
        while True:
            yield from self._epoch(epoch)
            epoch += 1

    def _epoch(self, epoch: int) -> Iterator[int]:
        real_generator, synthetic_generator = (
            np.random.default_rng(np.random.SeedSequence([self.seed, epoch, half])) for half in (0, 1)
        )
        real_batches = self._real_batches(real_generator)
        synthetic = self._synthetic_stream(synthetic_generator)
        real_share = self.batch_size // self.world_size
        synthetic_share = self.synthetic_per_batch // self.world_size
        for _ in range(self.batches_per_epoch):
            real = next(real_batches)
            yield from real[self.rank * real_share : (self.rank + 1) * real_share]
            drawn = [next(synthetic) for _ in range(self.synthetic_per_batch)]
            yield from drawn[self.rank * synthetic_share : (self.rank + 1) * synthetic_share]

    def _groups_by_person(self, generator: np.random.Generator) -> list[list[list[int]]]:
        """One pass: each person's images, shuffled, in groups of K."""
        groups_by_person = []
        for images in self.images_of.values():
            shuffled = generator.permutation(images).tolist()
            if len(shuffled) < self.num_instances:
                missing = self.num_instances - len(shuffled)
                shuffled += generator.choice(shuffled, size=missing).tolist()
            whole = len(shuffled) // self.num_instances
            groups_by_person.append(
                [shuffled[i * self.num_instances : (i + 1) * self.num_instances] for i in range(whole)]
            )
        return groups_by_person

    def _real_batches(self, generator: np.random.Generator) -> Iterator[list[int]]:
        persons = self.batch_size // self.num_instances
        while True:
            groups_by_person = self._groups_by_person(generator)
            left = np.array([len(groups) for groups in groups_by_person])
            while np.count_nonzero(left) >= persons:
                # We prefer people with many groups left: otherwise only they would be left at the end.
                chosen = generator.choice(len(left), size=persons, replace=False, p=left / left.sum())
                left[chosen] -= 1
                yield [image for person in chosen for image in groups_by_person[person].pop()]

    def _synthetic_stream(self, generator: np.random.Generator) -> Iterator[int]:
        while True:
            for position in generator.permutation(self.num_synthetic).tolist():
                yield self.num_real + position
