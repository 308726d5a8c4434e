"""What `clip3d calibrate` does: it calibrates a model on a dataset, or on saved features of one."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from fastreid_clip3d.common.files import check_writable_folder
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.calibration import CIRCULAR, calibrate, write_calibration
from fastreid_clip3d.evaluation.calibration_plot import plot_calibration
from fastreid_clip3d.evaluation.features_file import read_features
from fastreid_clip3d.evaluation.protocols import GENERAL, Protocol, find_protocols
from fastreid_clip3d.evaluation.ranking import LabelledFeatures
from fastreid_clip3d.inference.dataset_features import dataset_features
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.load import ModelSource, open_model

logger = logging.getLogger(__name__)

_COMPARED_PICTURES = 8
_SAME_FEATURE = 0.99  # cosine; features of another model or checkpoint are far below


def calibrate_run(
    model: str | Path | ModelSource,
    data: str,
    *,
    root: str = "",
    protocols: Sequence[str] | None = None,
    false_match_rate: float = 0.01,
    output: str = "",
    batch_size: int = 64,
    max_memory: float = 1024,
    device: str = "",
) -> None:
    """Calibrates a model, prints the table and writes calibration.json and calibration.png.

    Args:
        model: any source of ``load_model``. data: name of a dataset, a CSV file, or an npz file of features.
        root: the datasets' folder; "": FASTREID_DATASETS.
        protocols: names; None: the dataset's own, for a file general, CC and SC.
        false_match_rate: share of pairs of different people that may pass as the same person, above 0 and below 1.
        output: folder to write to; "": the run folder. batch_size: images at once, 1 or more.
        max_memory: MiB beyond the features, above 0. device: as in ``load_model``.

    Raises:
        ClearError: an argument, the model or the data is wrong; nothing has been written then.
    """
    student = open_model(model, device)
    folder = check_writable_folder(output or student.run_folder, "--output" if output else "")
    if data.endswith(".npz"):
        query, gallery = read_features(data)
        check_features(student, query, gallery, data)
        declared: tuple[Protocol, ...] = ()
    else:
        query, gallery, declared = dataset_features(student, data, batch_size, root=root)
    chosen = choose_protocols(protocols, declared, query.clothes_ids is not None)
    calibration = calibrate(
        query,
        gallery,
        chosen,
        student.fingerprint,
        Path(data).name,
        false_match_rate,
        max_memory,
        str(student.device),
        _progress,
    )
    print(calibration.table())
    if open_set := calibration.open_set_table():
        print(f"\nSearches: is the person in the gallery?\n\n{open_set}")
    for name, rates in calibration.protocols.items():
        for note in rates.notes:
            print(f"warning: {name}: {note}", file=sys.stderr)
    print(f"warning: {CIRCULAR.format(dataset=calibration.dataset)}", file=sys.stderr)
    written = f"{write_calibration(folder, calibration)} and {plot_calibration(folder, calibration)}"
    print(f"written: {written}", file=sys.stderr)


def _progress(blocks: Iterable, count: int) -> Iterable:
    return tqdm(blocks, total=count, desc="pairs", unit="block", leave=False, disable=None if count > 1 else True)


def choose_protocols(
    names: Sequence[str] | None, declared: Sequence[Protocol], has_clothes: bool
) -> tuple[Protocol, ...]:
    """The named protocols, or the dataset's own, or all standard ones that the ids allow."""
    if names:
        return find_protocols(names, declared)
    if not declared:
        return find_protocols(["general", "CC", "SC"] if has_clothes else ["general"])
    return tuple(protocol for protocol in declared if has_clothes or not protocol.needs_clothes) or (GENERAL,)


def check_features(model: ReIDModel, query: LabelledFeatures, gallery: LabelledFeatures, path: str) -> None:
    """Refuses the features of another model: it compares their width, and some of them with this model's features.

    Where no picture is at its recorded path any more, we log a warning instead.

    Raises:
        ClearError: the features are another model's.
    """
    width = query.features.shape[1]
    if width != model.feature_dim:
        raise ClearError(
            f"{path} is another model's: it has {width} numbers per image, this model gives {model.feature_dim}."
        )
    rows: list[tuple[LabelledFeatures, int]] = [(side, row) for side in (query, gallery) for row in range(len(side))]
    step = max(1, len(rows) // _COMPARED_PICTURES)
    compared: list[tuple[Any, str]] = [
        (side.features[row].double(), side.names[row])
        for side, row in rows[::step]
        if side.names and os.path.isfile(side.names[row])
    ]
    if not compared:
        logger.warning(f"{path}: its pictures are gone, so we cannot check that these features are this model's.")
        return
    found = model([name for _, name in compared]).double()
    stored = torch.stack([feature for feature, _ in compared])
    similarities = torch.nn.functional.cosine_similarity(found, stored, dim=1)
    if float(similarities.median()) < _SAME_FEATURE:
        raise ClearError(
            f"{path} holds another model's features: this model's features of {compared[0][1]} and "
            f"{len(compared) - 1} more pictures have a median cosine of {float(similarities.median()):.3f} with them. "
            "Evaluate this checkpoint again with TEST.EVALUATION.SAVE_FEATURES True, or give the dataset's name."
        )
