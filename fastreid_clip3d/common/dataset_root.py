"""Where the datasets lie: the one place that reads FASTREID_DATASETS."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "FASTREID_DATASETS"
DEFAULT = "datasets"


def dataset_root() -> str:
    """The folder that holds the datasets: FASTREID_DATASETS, or ``datasets`` in the working folder, as in fast-reid.

    We read the variable at each call. fast-reid reads it once, when ``fastreid.data.build`` is imported.
    """
    return os.getenv(VARIABLE, DEFAULT)


def below_dataset_root(name_or_path: str | Path) -> Path:
    """An absolute path as it is; any other path below :func:`dataset_root`."""
    return Path(dataset_root(), name_or_path)
