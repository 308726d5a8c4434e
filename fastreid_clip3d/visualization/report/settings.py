"""A run's settings that differ from the defaults or from another run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from fastreid_clip3d.config import get_cfg


class Difference(NamedTuple):
    """One key; `other` is the compared run's value, "" where nothing is compared."""

    key: str
    value: str
    default: str
    other: str = ""


def default_settings() -> dict[str, Any]:
    """All keys with their defaults, as plain values."""
    return yaml.safe_load(get_cfg().dump())


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys and values as text; empty groups are left out."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = as_text(value)
    return found


def as_text(value: Any) -> str:
    """A value as on a command line."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(as_text(one) for one in value) + "]"
    return '""' if value == "" else str(value)


def differences(
    settings: Mapping[str, Any], defaults: Mapping[str, Any], other: Mapping[str, Any] | None = None
) -> list[Difference]:
    """Keys whose value is not the default, in this run or in the `other` one, sorted."""
    own, standard, compared = flat(settings), flat(defaults), flat(other or {})
    keys = [key for key, value in own.items() if standard.get(key) != value]
    keys += [key for key, value in compared.items() if standard.get(key) != value and key not in keys]
    return [
        Difference(key, own.get(key, "-"), standard.get(key, "-"), compared.get(key, "-") if other is not None else "")
        for key in sorted(keys)
    ]
