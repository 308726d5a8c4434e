"""The random numbers of an item follow from its seed alone, and the batches of a run from its seed and their number."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler

from fastreid_clip3d.data.samplers import MixedIdentitySampler
from fastreid_clip3d.engine.reproducible import SeededBatches, SeededItems, seeded

DRAWS = {
    "random": random.random,
    "numpy": lambda: float(np.random.rand()),
    "torch": lambda: torch.rand(()).item(),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_numbers_in_the_block_follow_from_the_seed_and_those_behind_it_do_not(draw) -> None:
    def in_block(seed: int) -> float:
        with seeded(seed):
            return draw()

    first = in_block(2**63 + 5)
    draw()
    assert in_block(2**63 + 5) == first and in_block(7) != first
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    undisturbed = [draw(), draw()]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    before = draw()
    in_block(7)
    assert [before, draw()] == undisturbed


class Noise:
    num_classes = 3

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, torch.rand(()).item()


def test_an_item_is_made_from_index_and_seed() -> None:
    items = SeededItems(Noise())
    assert items[2, 11] == items[2, 11] != items[2, 12]
    assert len(items) == 5 and items.num_classes == 3


def batches(first: int, seed: int = 1, rank: int = 0) -> list[list[tuple[int, int]]]:
    records = [(f"{person}_{image}.jpg", person, 0) for person in range(6) for image in range(4)]
    sampler = MixedIdentitySampler(records, 8, 2, 5, 2, seed=3)  # 3 batches per epoch
    seeded_batches = SeededBatches(BatchSampler(sampler, sampler.rank_batch_size, drop_last=True), seed, rank)
    seeded_batches.start_at(first)
    return list(itertools.islice(seeded_batches, 12 - first))


def test_batches_from_the_middle_are_those_of_the_whole_run() -> None:
    whole = batches(0)
    for first in (1, 3, 4, 9):
        assert batches(first) == whole[first:]
    endless = SeededBatches([[number] for number in range(12)], 1, 0)  # a sampler that cannot start at an epoch
    everything = list(endless)
    endless.start_at(5)
    assert list(endless) == everything[5:]


def test_every_item_of_a_run_has_its_own_seed_and_another_run_has_others() -> None:
    seeds = [seed for batch in batches(0) for _, seed in batch]
    assert len(set(seeds)) == len(seeds)
    assert not set(seeds) & {seed for batch in batches(0, seed=2) + batches(0, rank=1) for _, seed in batch}
