"""A training set that cannot fill the configured batch is refused before the first step, by every sampler."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from itertools import islice
from types import SimpleNamespace

import pytest
from fastreid.config import CfgNode
from fastreid.data import samplers as fastreid_samplers

from fastreid_clip3d.data.batch_check import check_batch_fits
from fastreid_clip3d.data.samplers import SAMPLERS
from fastreid_clip3d.errors import ClearError
from tests.standins import small_config

WORKING = ("MixedIdentitySampler", "TrainingSampler", "NaiveIdentitySampler", "BalancedIdentitySampler",
           "ImbalancedDatasetSampler")  # fmt: skip
BY_PEOPLE = ("NaiveIdentitySampler", "BalancedIdentitySampler")


def training_set(*images_per_person: int) -> SimpleNamespace:
    items = [(f"{p}_{i}", f"p{p}", f"c{i % 2}") for p, count in enumerate(images_per_person) for i in range(count)]
    return SimpleNamespace(img_items=items)


def config(sampler: str, batch: int, instances: int = 2) -> CfgNode:
    cfg = small_config()
    cfg.DATASETS.NAMES = ("MyPeople",)
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.NUM_INSTANCE, cfg.SOLVER.IMS_PER_BATCH = sampler, instances, batch
    return cfg


@pytest.mark.parametrize("sampler", WORKING)
def test_one_person_or_a_batch_above_the_set_is_refused(sampler: str) -> None:
    with pytest.raises(ClearError, match=r"\(MyPeople\) has 8 images of 1 people; training needs at least 2 people"):
        check_batch_fits(config(sampler, 4), training_set(8), 1)
    with pytest.raises(ClearError, match="has 8 images of 4 people, fewer images than .*IMS_PER_BATCH 16.* to 8"):
        check_batch_fits(config(sampler, 16), training_set(2, 2, 2, 2), 1)
    check_batch_fits(config(sampler, 8), training_set(2, 2, 2, 2), 1)


@pytest.mark.parametrize("sampler", WORKING)
@pytest.mark.parametrize(("batch", "processes", "images"), [(1, 1, 1), (2, 2, 1), (3, 2, 1), (1, 2, 0)])
def test_one_image_per_process_is_refused(sampler: str, batch: int, processes: int, images: int) -> None:
    with pytest.raises(
        ClearError, match=rf"gives {images} image\(s\) per process.*Set SOLVER.IMS_PER_BATCH to {2 * processes}"
    ):
        check_batch_fits(config(sampler, batch, 1), training_set(8, 8), processes)


@pytest.mark.parametrize("sampler", ("MixedIdentitySampler", *BY_PEOPLE))
@pytest.mark.parametrize("loss", ("TripletLoss", "CircleLoss", "Cosface"))
def test_a_loss_between_images_of_a_person_needs_two_of_them(sampler: str, loss: str) -> None:
    cfg = config(sampler, 4, instances=1)
    check_batch_fits(cfg, training_set(2, 2, 2, 2), 1)
    cfg.MODEL.LOSSES.NAME = ("CrossEntropyLoss", loss)
    with pytest.raises(ClearError, match=f"{loss} compares images of one person.*NUM_INSTANCE to 2 or more"):
        check_batch_fits(cfg, training_set(2, 2, 2, 2), 1)
    cfg.DATALOADER.NUM_INSTANCE = 2
    check_batch_fits(cfg, training_set(2, 2, 2, 2), 1)
    cfg.DATALOADER.NUM_INSTANCE, cfg.DATALOADER.SAMPLER_TRAIN = 1, "TrainingSampler"  # it draws images, not people
    check_batch_fits(cfg, training_set(2, 2, 2, 2), 1)


@pytest.mark.parametrize("sampler", BY_PEOPLE)
def test_too_few_people_are_refused(sampler: str) -> None:
    with pytest.raises(ClearError) as error:
        check_batch_fits(config(sampler, 8), training_set(20, 20), 1)
    message = str(error.value)
    assert "has 40 images of 2 people" in message and "needs 4 people" in message
    for key in ("SOLVER.IMS_PER_BATCH 8", "DATALOADER.NUM_INSTANCE 2", "DATALOADER.SAMPLER_TRAIN TrainingSampler"):
        assert key in message
    for batch, instances in ((8, 3), (8, 0), (4, 8)):
        with pytest.raises(ClearError, match=f"cannot divide SOLVER.IMS_PER_BATCH {batch}"):
            check_batch_fits(config(sampler, batch, instances), training_set(*[8] * 20), 1)
    check_batch_fits(config("TrainingSampler", 8), training_set(20, 20), 1)


class Rounds(Exception):
    pass


def at_most(passes: int) -> Callable[[Callable], Callable]:
    """Wraps functions so that all of them together raise Rounds after this many calls."""
    count = itertools.count()

    def limited(original: Callable) -> Callable:
        def call(*arguments, **options):
            if next(count) >= passes:
                raise Rounds
            return original(*arguments, **options)

        return call

    return limited


@pytest.mark.parametrize("sampler", BY_PEOPLE)
@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_let_through_gives_a_batch_and_what_is_refused_gives_none(
    sampler: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fast-reid's own samplers are the reference: they search for ever where a batch cannot be filled."""
    monkeypatch.setattr("fastreid.utils.comm.get_world_size", lambda: processes)
    module = "fastreid.data.samplers.triplet_sampler"
    outcomes = set()
    for batch, instances in ((4, 2), (8, 2), (8, 4), (12, 2), (12, 3), (12, 4), (6, 2)):
        for people in (2, 3, 4, 5, 7):
            for images in (1, 3, 6):
                data = training_set(*[images] * people, 12)
                if len(data.img_items) < batch or batch < 2 * processes:
                    continue
                try:
                    check_batch_fits(config(sampler, batch, instances), data, processes)
                    allowed = True
                except ClearError:
                    allowed = False
                limited = at_most(3000)
                with monkeypatch.context() as patch:
                    # each pass over the people begins with one of these
                    patch.setattr(f"{module}.copy.deepcopy", limited(list))
                    patch.setattr(
                        f"{module}.np.random.permutation",
                        limited(fastreid_samplers.triplet_sampler.np.random.permutation),
                    )
                    try:
                        made = getattr(fastreid_samplers, sampler)(
                            data.img_items, batch // processes, instances, seed=0
                        )
                        gives = len(list(islice(iter(made), batch // processes))) == batch // processes
                    except (Rounds, ZeroDivisionError):
                        gives = False
                assert allowed == gives, (batch, instances, people, images)
                outcomes.add(allowed)
    assert outcomes == {True, False}


def test_sampler_names() -> None:
    with pytest.raises(ClearError) as error:
        check_batch_fits(config("MixedIdentitySampl", 8), training_set(4, 4), 1)
    assert "Did you mean MixedIdentitySampler" in str(error.value)
    assert all(name in str(error.value) for name in SAMPLERS)
    with pytest.raises(ClearError) as error:
        check_batch_fits(config("zebra", 8), training_set(4, 4), 1)
    assert "Did you mean" not in str(error.value) and "ImbalancedDatasetSampler" in str(error.value)
    with pytest.raises(ClearError, match="SetReWeightSampler: fast-reid's sampler cannot give a batch"):
        check_batch_fits(config("SetReWeightSampler", 8), training_set(4, 4), 1)


@pytest.mark.parametrize(
    ("batch", "weights", "instances"), [(16, [2, 2], 2), (16, [1, 1], 2), (12, [3, 1], 1), (8, [2, 2], 2)]
)
def test_fast_reids_reweighting_sampler_has_no_setting_that_works(
    batch: int, weights: list[int], instances: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [(f"{p}_{c}_{i}", p, c) for p in range(8) for c in range(2) for i in range(4)]
    calls = []

    def shuffled(values: list) -> None:
        calls.append(0)
        if len(calls) > 100:
            raise Rounds

    monkeypatch.setattr("fastreid.data.samplers.triplet_sampler.np.random.shuffle", shuffled)
    with pytest.raises((AssertionError, ValueError, Rounds)):
        next(iter(fastreid_samplers.SetReWeightSampler(items, batch, instances, weights, seed=0)))
