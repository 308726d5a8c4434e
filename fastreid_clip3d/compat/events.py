"""fast-reid's messages: warnings that a user can do nothing about, and a log line that divides by zero."""

from __future__ import annotations

import functools
import warnings
from typing import Any, Callable

_HARMLESS = (
    (FutureWarning, r".*torch\.cuda\.amp\..*"),
    (UserWarning, r".*TypedStorage is deprecated.*"),
    (UserWarning, r".*lr_scheduler\.step\(\)` before `optimizer\.step\(\).*"),
    (UserWarning, r".*The epoch parameter in `scheduler\.step\(\)`.*"),
    (DeprecationWarning, r".*The 'warn' method is deprecated.*"),
)


def _once_an_iteration(write: Callable[[Any], None]) -> Callable[[Any], None]:
    """fast-reid's line of the log writes twice in an epoch's last step, and then divides by the iterations between."""

    @functools.wraps(write)
    def write_unless_written(printer: Any) -> None:
        from fastreid.utils.events import get_event_storage

        iteration = get_event_storage().iter
        if getattr(printer, "_written_at", None) != iteration:
            write(printer)
        printer._written_at = iteration

    return write_unless_written


def apply() -> None:
    """Silences exactly those warnings, by category and message, and guards the log line."""
    from fastreid.utils.events import CommonMetricPrinter

    for category, message in _HARMLESS:
        warnings.filterwarnings("ignore", message=message, category=category)
    if not hasattr(CommonMetricPrinter.write, "__wrapped__"):
        CommonMetricPrinter.write = _once_an_iteration(CommonMetricPrinter.write)
