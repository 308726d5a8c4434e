"""Warnings that fast-reid's use of torch raises at every start and that a user can do nothing about."""

from __future__ import annotations

import warnings

_HARMLESS = (
    (FutureWarning, r".*torch\.cuda\.amp\..*"),
    (UserWarning, r".*TypedStorage is deprecated.*"),
    (UserWarning, r".*lr_scheduler\.step\(\)` before `optimizer\.step\(\).*"),
    (UserWarning, r".*The epoch parameter in `scheduler\.step\(\)`.*"),
    (DeprecationWarning, r".*The 'warn' method is deprecated.*"),
)


def apply() -> None:
    """Silences exactly those warnings, by category and message."""
    for category, message in _HARMLESS:
        warnings.filterwarnings("ignore", message=message, category=category)
