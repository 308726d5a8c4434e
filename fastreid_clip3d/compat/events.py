"""fast-reid's messages: warnings that a user can do nothing about, and a log line written twice."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

_HARMLESS = (
    (FutureWarning, r".*torch\.cuda\.amp\..*"),
    (UserWarning, r".*TypedStorage is deprecated.*"),
    (UserWarning, r".*lr_scheduler\.step\(\)` before `optimizer\.step\(\).*"),
    (UserWarning, r".*The epoch parameter in `scheduler\.step\(\)`.*"),
    (DeprecationWarning, r".*The 'warn' method is deprecated.*"),
)


def once_per_iteration(write: Callable[[Any], None]) -> Callable[[Any], None]:
    """``CommonMetricPrinter.write`` that writes nothing when it is called again in the same iteration."""

    @functools.wraps(write)
    def write_unless_written(printer: Any) -> None:
        from fastreid.utils.events import get_event_storage

        iteration = get_event_storage().iter
        if getattr(printer, "_written_at", None) != iteration:
            write(printer)
        printer._written_at = iteration

    return write_unless_written


def divides_by_zero(write: Callable[[Any], None]) -> bool:
    """Whether a printer fails that writes twice in one iteration."""
    from fastreid.utils.events import CommonMetricPrinter, EventStorage

    printer = CommonMetricPrinter(max_iter=2)
    printer.logger = mock.Mock()
    with EventStorage() as storage:
        storage.epoch = 0
        try:
            write(printer)
            write(printer)
        except ZeroDivisionError:
            return True
    return False


def silence_harmless_warnings() -> None:
    """Silences exactly those warnings, by category and message."""
    for category, message in _HARMLESS:
        warnings.filterwarnings("ignore", message=message, category=category)
