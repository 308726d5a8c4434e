"""What a network of somebody else takes: input size, pixel statistics, order of colours, range; and their yaml file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import yaml
from torch import Tensor

from fastreid_clip3d.common.files import check_writable, write_atomically
from fastreid_clip3d.common.images import CHANNELS, Channels
from fastreid_clip3d.common.near_names import did_you_mean
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD

Range = Literal[1, 255]


@dataclass(frozen=True)
class ImageSettings:
    """How an 8-bit RGB picture becomes a network's input; None: not known.

    Attributes:
        size: (height, width) in pixels.
        mean, std: of pixel values in 0..`range`, one number per channel in the order of `channels`.
        channels: the order of colours that the network takes.
        range: the value of a white pixel before mean and std are applied.

    >>> ImageSettings(size=(256, 128), range=255).over(ImageSettings(channels="BGR", range=1))
    ImageSettings(size=(256, 128), mean=None, std=None, channels='BGR', range=255)
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: Channels | None = None
    range: Range | None = None

    def given(self) -> dict[str, Any]:
        """The settings that are known, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def over(self, other: ImageSettings) -> ImageSettings:
        """These settings, and where they are not known those of `other`."""
        return ImageSettings(**{**other.given(), **self.given()})


ASSUMED = ImageSettings(None, IMAGENET_MEAN, IMAGENET_STD, "RGB", 1)
"""What most published ReID networks take."""


def settings_file(path: Path) -> Path:
    """The yaml file that remembers the settings of a network's file: model.onnx -> model.yaml."""
    return path.with_suffix(".yaml")


def read_settings(path: Path) -> ImageSettings:
    """The settings in the yaml file beside a network's file; nothing is known where there is none.

    Raises:
        ClearError: the file is damaged, or has an unknown key or a wrong value.
    """
    file = settings_file(path)
    if not file.is_file():
        return ImageSettings()
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClearError(f"{file} cannot be read as the settings of {path.name}: {error}") from error
    if not isinstance(content, dict):
        raise ClearError(f"{file} must hold the settings of {path.name} as `key: value`; it holds {content!r}.")
    known = [field.name for field in fields(ImageSettings)]
    for key in content:
        if key not in known:
            raise ClearError(f"{file}: unknown key {key!r}. {did_you_mean(str(key), known)}")
    return check_settings(ImageSettings(**{key: _as_tuple(value) for key, value in content.items()}), str(file))


def write_settings(path: Path, settings: ImageSettings) -> Path:
    """Writes the yaml file beside a network's file, and returns the yaml file."""
    file = check_writable(settings_file(path))
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.given().items()}
    text = f"# What {path.name} takes: pixels in 0..range, (pixel - mean) / std, in the order of channels.\n"
    text += yaml.safe_dump(values, sort_keys=False, default_flow_style=None)
    write_atomically(file, lambda stream: stream.write(text.encode()))
    return file


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def check_settings(settings: ImageSettings, source: str) -> ImageSettings:
    """The settings, if each is possible.

    Args:
        source: how an error calls the place that they come from.

    Raises:
        ClearError: names the setting, its value and what it may be.
    """

    def refuse(name: str, what: str) -> None:
        raise ClearError(f"{source}: {name} is {getattr(settings, name)!r}; it must be {what}.")

    def is_numbers(values: Any, kinds: type | tuple[type, ...], count: int) -> bool:
        if not isinstance(values, tuple) or len(values) != count:
            return False
        return all(isinstance(value, kinds) and type(value) is not bool for value in values)

    if settings.size is not None and not (is_numbers(settings.size, int, 2) and min(settings.size) > 0):
        refuse("size", "two whole numbers above 0, height and width in pixels")
    for name in ("mean", "std"):
        values = getattr(settings, name)
        if values is not None and not (is_numbers(values, (int, float), 3) and all(map(math.isfinite, values))):
            refuse(name, "three numbers")
    if settings.std is not None and min(settings.std) <= 0:
        refuse("std", "three numbers above 0")
    if settings.channels is not None and settings.channels not in CHANNELS:
        refuse("channels", "RGB or BGR")
    if settings.range is not None and str(settings.range) not in map(str, get_args(Range)):  # yaml's `true` equals 1
        refuse("range", "1 or 255")
    return settings


def check_statistics(settings: ImageSettings, source: str) -> None:
    """Refuses a mean and a std that belong to the other range.

    Raises:
        ClearError: all settings but the size must be known; the message says which do not fit each other.
    """
    assert settings.mean and settings.std and settings.range
    mean, std = max(settings.mean), max(settings.std)
    if settings.range == 1 and (mean > 1.5 or std > 3):
        raise ClearError(
            f"{source}: mean {list(settings.mean)} and std {list(settings.std)} belong to pixels in 0..255, and range "
            "is 1. Set range to 255, or divide both by 255."
        )
    if settings.range == 255 and 0 < mean <= 1.5 and std <= 1:
        raise ClearError(
            f"{source}: mean {list(settings.mean)} and std {list(settings.std)} belong to pixels in 0..1, and range "
            "is 255. Set range to 1, or multiply both by 255."
        )
    if settings.range == 255 and std < 1:
        raise ClearError(
            f"{source}: std {list(settings.std)} belongs to pixels in 0..1, and range is 255. Give the std of pixels "
            "in 0..255 (1 1 1: none), or set range to 1."
        )


def as_input(pixels: Tensor, settings: ImageSettings) -> Tensor:
    """uint8 [B, 3, h, w], RGB -> float32 [B, 3, h, w], contiguous, as the settings say; all but the size are known."""
    assert settings.mean and settings.std and settings.channels and settings.range
    mean, std = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (settings.mean, settings.std))
    ordered = pixels.flip(1) if settings.channels == "BGR" else pixels
    images = ordered.float() / 255 if settings.range == 1 else ordered.float()
    return ((images - mean.to(images.device)) / std.to(images.device)).contiguous()
