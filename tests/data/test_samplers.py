"""Composition, coverage, seeding and resuming of mixed batches."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from fastreid_clip3d.data.samplers import MixedIdentitySampler, OwnNumbersImbalancedSampler
from fastreid_clip3d.errors import ClearError


def records_of(images_per_person: list[int]) -> list[tuple[str, int, int]]:
    return [(f"{person}_{i}.jpg", person, 0) for person, count in enumerate(images_per_person) for i in range(count)]


def batches(sampler: MixedIdentitySampler, count: int) -> list[list[int]]:
    indices = iter(sampler)
    return [list(islice(indices, sampler.rank_batch_size)) for _ in range(count)]


def test_the_imbalanced_sampler_draws_from_its_seed_alone_and_rare_people_as_often_as_others() -> None:
    """fast-reid's draws from torch's global generator."""
    records = records_of([30, 10])

    def drawn(seed: int, global_seed: int) -> list[int]:
        torch.manual_seed(global_seed)
        return list(islice(OwnNumbersImbalancedSampler(records, seed=seed), 4000))

    assert drawn(1, 0) == drawn(1, 5) != drawn(2, 0)
    of_first_person = sum(index < 30 for index in drawn(1, 0))
    assert abs(of_first_person - 2000) < 5 * 4000**0.5 / 2  # five standard deviations


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_batch_on_every_rank_has_its_exact_share(world_size: int) -> None:
    records = records_of([3, 5, 8, 4, 4, 9, 2, 4, 16, 4])
    all_ranks = [
        batches(MixedIdentitySampler(records, 32, 4, 23, 12, seed=5, rank=rank, world_size=world_size), 7)
        for rank in range(world_size)
    ]
    for rank_batches in zip(*all_ranks):
        persons = []
        for batch in rank_batches:
            real = [index for index in batch if index < len(records)]
            assert batch[: len(real)] == real, "the real half comes first"
            assert len(real) == 32 // world_size and len(batch) - len(real) == 12 // world_size
            counts = Counter(records[index][1] for index in real)
            assert set(counts.values()) == {4} and len(counts) == 8 // world_size
            persons.extend(counts)
        assert len(set(persons)) == 8, "no person twice in a batch, on any rank"


def test_one_epoch_is_one_pass_over_the_real_images() -> None:
    records = records_of([4] * 40)
    sampler = MixedIdentitySampler(records, 16, 4, 50, 8, seed=0)
    assert sampler.batches_per_epoch == 10
    epoch = [index for batch in batches(sampler, 10) for index in batch]
    assert sorted(index for index in epoch if index < 160) == list(range(160))
    drawn = [index - 160 for index in epoch if index >= 160]
    assert len(drawn) == 80 and set(drawn) == set(range(50)), "synthetic images are dealt in whole passes"


def test_one_image_of_each_person_gives_batches_of_different_people() -> None:
    records = records_of([16] * 400)
    sampler = MixedIdentitySampler(records, 64, 1, 0, 0, seed=0)
    assert sampler.batches_per_epoch == 100
    epoch = batches(sampler, 100)
    for batch in epoch:
        assert len({records[index][1] for index in batch}) == 64
    seen = Counter(index for batch in epoch for index in batch)
    assert len(seen) > 0.98 * len(records) and max(seen.values()) <= 2, (
        "a pass but for its last people, who are fewer than a batch"
    )


def test_synthetic_indices_stay_in_range_and_repeat_only_after_a_pass() -> None:
    sampler = MixedIdentitySampler(records_of([4] * 8), 8, 4, 10, 5, seed=3)
    drawn = [index - 32 for batch in batches(sampler, 4) for index in batch[8:]]
    assert min(drawn) >= 0 and max(drawn) < 10
    assert len(set(drawn[:10])) == 10 and len(set(drawn[10:20])) == 10


def test_seed_and_epoch_decide_everything() -> None:
    records = records_of([4, 6, 8, 5, 7, 9])
    first = batches(MixedIdentitySampler(records, 8, 2, 11, 4, seed=1), 12)
    assert first == batches(MixedIdentitySampler(records, 8, 2, 11, 4, seed=1), 12)
    assert first != batches(MixedIdentitySampler(records, 8, 2, 11, 4, seed=2), 12)
    np.random.seed(0)  # other people's random state is neither read nor changed
    state = np.random.get_state()[1].tolist()
    batches(MixedIdentitySampler(records, 8, 2, 11, 4, seed=1), 3)
    assert np.random.get_state()[1].tolist() == state


def test_resuming_at_an_epoch_gives_the_batches_of_an_unbroken_run() -> None:
    records = records_of([4] * 12)
    unbroken = MixedIdentitySampler(records, 8, 4, 9, 4, seed=8)
    per_epoch = unbroken.batches_per_epoch
    resumed = MixedIdentitySampler(records, 8, 4, 9, 4, seed=8)
    resumed.start_at(2)
    assert batches(resumed, per_epoch) == batches(unbroken, 3 * per_epoch)[2 * per_epoch :]


def test_person_with_too_few_images_repeats_them() -> None:
    sampler = MixedIdentitySampler(records_of([1, 2, 8, 8]), 16, 4, 0, 0, seed=0)
    (batch,) = batches(sampler, 1)
    assert batch.count(0) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((10, 4, 0, 0, 0), "multiple of NUM_INSTANCE"),
        ((64, 4, 0, 0, 0), "takes 16 persons, and the training set has 6"),
        ((16, 4, 0, 8, 0), "no synthetic images"),
        ((24, 4, 9, -1, 0), "SYNTHETIC_PER_BATCH"),
        ((0, 4, 9, 8, 0), "IMS_PER_BATCH"),
    ],
)
def test_batches_that_cannot_be_filled_are_refused(arguments: tuple, words: str) -> None:
    with pytest.raises(ClearError, match=words):
        MixedIdentitySampler(records_of([4] * 6), *arguments)


def test_a_training_set_of_one_batch_and_a_batch_of_one_image_are_enough() -> None:
    whole = MixedIdentitySampler(records_of([4] * 4), 16, 4, 0, 0, seed=0)
    assert sorted(batches(whole, 1)[0]) == list(range(16))
    assert {len(batch) for batch in batches(MixedIdentitySampler(records_of([4] * 4), 1, 1, 0, 0, seed=0), 5)} == {1}


def test_shares_that_do_not_divide_among_the_ranks_are_refused() -> None:
    with pytest.raises(ClearError, match="number of processes"):
        MixedIdentitySampler(records_of([4] * 6), 16, 4, 9, 3, seed=0, world_size=2)
    with pytest.raises(ClearError, match="NUM_INSTANCE x processes"):
        MixedIdentitySampler(records_of([4] * 6), 12, 4, 9, 4, seed=0, world_size=2)
