"""From the text of ``--device`` or ``MODEL.DEVICE`` to a torch device that exists here."""

from __future__ import annotations

import os

import torch

from fastreid_clip3d.errors import ClearError


def find_device(device: str = "", source: str = "--device") -> torch.device:
    """The named device, once it is known to exist.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N`` or another device type of torch; "": CUDA where there is a device,
            else the CPU.
        source: the flag or key that named it, for messages.

    Raises:
        ClearError: an unknown name, or a CUDA device that torch does not see.
    """
    if not device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ClearError(f"{source} is {device!r}; it must be cpu, cuda or cuda:N.") from error
    remedy = f"Set {source} to cpu, or install a driver and a CUDA build of torch."
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ClearError(f"{source} is {device!r}, but torch {torch.__version__} sees no CUDA device. {remedy}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ClearError(
            f"{source} is {device!r}, but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices, "
            f"numbered from 0. Set {source} to one of them or to cpu."
        )
    return found


def find_local_device(device: str, source: str = "MODEL.DEVICE") -> torch.device:
    """As :func:`find_device`; under torchrun ``cuda`` is the device of this process's LOCAL_RANK."""
    found = find_device(device, source)
    if found.type == "cuda" and "LOCAL_RANK" in os.environ:
        return find_device(f"cuda:{os.environ['LOCAL_RANK']}", source)
    return found
