"""Device names, on a machine without CUDA and on one that claims two devices."""

from __future__ import annotations

import pytest
import torch

from fastreid_clip3d.common.devices import find_device, find_local_device
from fastreid_clip3d.errors import ClearError


@pytest.fixture(params=[0, 2])
def devices(request, monkeypatch) -> int:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    return request.param


def test_no_name_is_the_best_device(devices: int) -> None:
    assert find_device("").type == ("cuda" if devices else "cpu")
    assert find_device("cpu") == torch.device("cpu")


def test_a_device_that_is_not_there_is_refused(devices: int) -> None:
    with pytest.raises(ClearError, match="MODEL.DEVICE is 'cuda:2', but torch .* sees"):
        find_device("cuda:2", "MODEL.DEVICE")
    for name in ("gpu", "cuda:x", "cuda:0:0"):
        with pytest.raises(ClearError, match=f"--device is '{name}'; it must be cpu, cuda or cuda:N"):
            find_device(name)
    with pytest.raises(ClearError, match="TEST.EVALUATION.DEVICE is 'gpu'; it must be"):
        find_device("gpu", "TEST.EVALUATION.DEVICE")
    if devices:
        assert find_device("cuda:1") == torch.device("cuda", 1)
    else:
        with pytest.raises(ClearError, match="sees no CUDA device. Set --device to cpu"):
            find_device("cuda")


def test_torchrun_gives_each_process_its_own_device(devices: int, monkeypatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_local_device("cpu") == torch.device("cpu")
    if devices:
        assert find_local_device("cuda") == torch.device("cuda", 1)
        monkeypatch.setenv("LOCAL_RANK", "2")
        with pytest.raises(ClearError, match="MODEL.DEVICE is 'cuda:2', but torch .* sees 2 CUDA devices"):
            find_local_device("cuda")
        monkeypatch.delenv("LOCAL_RANK")
        assert find_local_device("cuda") == torch.device("cuda")
