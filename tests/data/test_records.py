from __future__ import annotations

import copy
import pickle

import pytest
from fastreid.data.common import CommDataset

from fastreid_clip3d.data.records import Record  # first: the package makes fast-reid importable

RECORD = Record("a.jpg", 3, 1, clothes_id=5, frames=("a.jpg", "b.jpg"))


def test_is_fast_reids_tuple():
    path, pid, camid = RECORD
    assert (path, pid, camid) == RECORD == ("a.jpg", 3, 1)
    assert len(RECORD) == 3 and RECORD[1] == 3 and isinstance(RECORD, tuple)


def test_defaults_are_an_image_in_unknown_clothes():
    assert (Record("a.jpg", 3, 1).clothes_id, Record("a.jpg", 3, 1).frames) == (-1, ())


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, *(
    lambda record, protocol=protocol: pickle.loads(pickle.dumps(record, protocol)) for protocol in range(2, 6)
)])  # fmt: skip
def test_survives_workers_and_combine_all(again):
    (copied,) = again([RECORD])
    assert type(copied) is Record and copied == RECORD and vars(copied) == vars(RECORD)


def test_cannot_be_changed_but_replaced():
    with pytest.raises(AttributeError, match="replace"):
        RECORD.clothes_id = 2
    with pytest.raises(AttributeError):
        del RECORD.frames
    other = RECORD.replace(pid="x_3", clothes_id=0)
    assert vars(other) == {"path": "a.jpg", "pid": "x_3", "camid": 1, "clothes_id": 0, "frames": RECORD.frames}
    assert other == ("a.jpg", "x_3", 1) and RECORD.pid == 3
    with pytest.raises(TypeError, match="colour"):
        RECORD.replace(colour="red")


def test_fast_reids_dataset_takes_it():
    dataset = CommDataset([Record("a.jpg", "x_9", "x_0", 4), Record("b.jpg", "x_10", "x_0", 5)], relabel=True)
    assert (dataset.num_classes, dataset.num_cameras) == (2, 1)
