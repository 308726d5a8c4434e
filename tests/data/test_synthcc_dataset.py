"""SynthCC's datasets: names read, ids shared by query and gallery, protocols, and the message that tells how to make
a set."""

from __future__ import annotations

import pytest

from fastreid_clip3d.cli import verb_parser
from fastreid_clip3d.data.datasets import build_dataset
from fastreid_clip3d.data.datasets.listing import DatasetNotFound
from fastreid_clip3d.data.datasets.synthcc import FULL_COUNTS, FULL_VAL_COUNTS, TINY_COUNTS, TINY_VAL_COUNTS

NAMES = (
    "SynthCC",
    "SynthCCCrop",
    "SynthCCShapeOnly",
    "SynthCCVal",
    "SynthCCShapeOnlyCrop",
    "SynthCCTiny",
    "SynthCCTinyCrop",
    "SynthCCTinyShapeOnly",
    "SynthCCTinyShapeOnlyCrop",
    "SynthCCTinyVal",
)
FILES = {
    "train": ("0000_o1_c1_00.jpg", "0000_o2_c8_01.jpg", "0001_o1_c3_00.jpg"),
    "query": ("0400_o1_c2_00.jpg", "0401_o4_c1_00.jpg"),
    "gallery": ("0400_o1_c5_01.jpg", "0400_o2_c2_02.jpg", "0401_o4_c3_01.jpg", "notes.txt"),
    "val_query": ("0550_o1_c2_00.jpg",),
    "val_gallery": ("0550_o2_c5_01.jpg",),
}


@pytest.fixture
def root(tmp_path):
    for split, names in FILES.items():
        folder = tmp_path / "SynthCC-tiny" / split
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
    return tmp_path


def test_names_become_ids(root):
    dataset = build_dataset("SynthCCTiny", root=str(root))
    assert [(record.pid, record.camid, record.clothes_id) for record in dataset.train] == [
        ("synthcc-tiny_0", "synthcc-tiny_0", 0),
        ("synthcc-tiny_0", "synthcc-tiny_7", 1),
        ("synthcc-tiny_1", "synthcc-tiny_2", 2),
    ]
    assert [(record.pid, record.camid) for record in dataset.query] == [(400, 1), (401, 0)]
    query, gallery = dataset.query, dataset.gallery
    assert [(record.pid, record.camid) for record in gallery] == [(400, 4), (400, 1), (401, 2)]
    assert query[0].clothes_id == gallery[0].clothes_id != gallery[1].clothes_id
    assert query[1].clothes_id == gallery[2].clothes_id


def test_val_reads_its_own_people(root):
    dataset = build_dataset("SynthCCTinyVal", root=str(root))
    assert {record.pid for record in dataset.query} == {record.pid for record in dataset.gallery} == {550}
    assert len(dataset.train) == 3


def test_protocols():
    from fastreid_clip3d.data.datasets.base import registered_datasets

    for name in NAMES:
        assert [protocol.name for protocol in registered_datasets()[name].protocols] == ["CC", "SC", "general"]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_set_names_the_command_that_makes_it(name, tmp_path):
    import dataclasses

    from fastreid_clip3d.synthcc.plan import SETS

    with pytest.raises(DatasetNotFound) as caught:
        build_dataset(name, root=str(tmp_path))
    message = str(caught.value)
    command = message.split("`")[1].split()
    assert command[:2] == ["clip3d", "render-people"]
    # The command's own parser understands it, and what it makes is the folder that was looked for.
    arguments = verb_parser("render-people").parse_args(command[2:])
    config = dataclasses.replace(SETS[arguments.set], variant=arguments.variant, framing=arguments.framing)
    assert str(tmp_path / config.folder) in message


def test_official_counts_are_what_the_plans_make():
    from fastreid_clip3d.synthcc.plan import FULL, TINY

    for config, counts, val in ((FULL, FULL_COUNTS, FULL_VAL_COUNTS), (TINY, TINY_COUNTS, TINY_VAL_COUNTS)):
        images = config.outfits * config.images_per_outfit
        assert counts["train"] == (config.train_people, config.train_people * images)
        assert counts["query"] == (config.test_people, config.test_people * config.outfits)
        assert counts["gallery"] == (config.test_people, config.test_people * (images - config.outfits))
        assert val["query"] == (config.val_people, config.val_people * config.outfits)
        assert val["gallery"] == (config.val_people, config.val_people * (images - config.outfits))
