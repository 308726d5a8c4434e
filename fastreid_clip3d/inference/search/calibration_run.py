"""What `clip3d calibrate` does: it measures a run's calibration on a dataset, or on saved features of one."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from fastreid_clip3d.common.images import UnreadableImage
from fastreid_clip3d.data.datasets import build_dataset
from fastreid_clip3d.data.datasets.from_config import dataset_of
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.calibration import (
    CIRCULAR,
    calibrate,
    write_calibration,
)
from fastreid_clip3d.evaluation.calibration_plot import plot_calibration
from fastreid_clip3d.evaluation.features_file import read_features
from fastreid_clip3d.evaluation.protocols import GENERAL, Protocol, find_protocols
from fastreid_clip3d.evaluation.ranking import LabelledFeatures
from fastreid_clip3d.inference import load_model
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.extraction import extract
from fastreid_clip3d.inference.pictures import Entry

logger = logging.getLogger(__name__)

_TRIED = 8
_SAME_FEATURE = 0.99  # cosine; another model's, or another checkpoint's, is far below


def calibrate_run(
    model: str,
    data: str,
    *,
    protocols: Sequence[str] | None = None,
    false_match_rate: float = 0.01,
    output: str = "",
    batch_size: int = 64,
    max_memory: float = 1024,
    device: str = "",
) -> None:
    """Calibrates a model, prints the table and writes calibration.json and calibration.png.

    Args:
        model: run folder, checkpoint or .onnx file. data: name of a dataset, a CSV file, or an npz file of features.
        protocols: names; None means the dataset's own, or of a file general, CC and SC.
        false_match_rate: share of pairs of different people that may pass as the same person, above 0 and below 1.
        output: folder to write to; "" means the run folder. batch_size: pictures at once, 1 or more.
        max_memory: MiB beyond the features, above 0. device: "cpu", "cuda" or ""; "" means cuda where there is one.

    Raises:
        ClearError: an argument, the model or the data is wrong; nothing has been written then.
    """
    student = load_model(model, device)
    if data.endswith(".npz"):
        query, gallery = read_features(data)
        check_features(student, query, gallery, data)
        declared: tuple[Protocol, ...] = ()
    else:
        query, gallery, declared = dataset_features(student, data, batch_size)
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
    for name, rates in calibration.protocols.items():
        for note in rates.notes:
            print(f"warning: {name}: {note}", file=sys.stderr)
    print(f"warning: {CIRCULAR.format(dataset=calibration.dataset)}", file=sys.stderr)
    folder = output or student.run_folder
    print(
        f"written: {write_calibration(folder, calibration)} and {plot_calibration(folder, calibration)}",
        file=sys.stderr,
    )


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


def dataset_features(
    model: ReIDModel, name: str, batch_size: int = 64, progress: bool = True
) -> tuple[LabelledFeatures, LabelledFeatures, tuple[Protocol, ...]]:
    """Query and gallery of a dataset through the model, and the dataset's protocols.

    `name` is a registered dataset, one of the run's own ``DATASETS.CSV``, or the path of a CSV file.

    A tracklet's feature is the mean of its frames'. Unreadable images are named in the log and left out.

    Raises:
        ClearError: no such dataset, or its folders are not there.
    """
    dataset = dataset_of(model.cfg, name) if hasattr(model, "cfg") else build_dataset(name)
    records = [*dataset.query, *dataset.gallery]
    sides = np.repeat([True, False], [len(dataset.query), len(dataset.gallery)])
    entries = [Entry(record[0], tuple(map(Path, getattr(record, "frames", ()) or (record[0],)))) for record in records]
    features, kept = [], []
    for place, (_, outcome) in enumerate(extract(model, entries, batch_size, progress)):
        if isinstance(outcome, UnreadableImage):
            logger.warning(f"{name}: left out: {outcome}")
            continue
        features.append(outcome)
        kept.append(place)
    if not features:
        raise ClearError(f"{name}: none of its {len(records)} query and gallery images can be read.")
    chosen, rows = np.array(kept), torch.stack(features)
    ids = {
        key: np.array([int(record[column]) for record in records])[chosen]
        for key, column in (("pids", 1), ("camids", 2))
    }
    clothes = np.array([getattr(record, "clothes_id", -1) for record in records])[chosen]
    known = bool((clothes >= 0).all())

    def side(mask: np.ndarray) -> LabelledFeatures:
        own = np.flatnonzero(mask[chosen])
        names = tuple(records[kept[row]][0] for row in own)
        return LabelledFeatures(
            rows[torch.from_numpy(own)], ids["pids"][own], ids["camids"][own], clothes[own] if known else None, names
        )

    return side(sides), side(~sides), tuple(getattr(dataset, "protocols", ())) or (GENERAL,)


def check_features(model: ReIDModel, query: LabelledFeatures, gallery: LabelledFeatures, path: str) -> None:
    """Refuses features that are not this model's: of another width, or other than it gives for some of the pictures.

    Where the pictures are no longer where the file says, this can only be a warning.

    Raises:
        ClearError: they are another model's.
    """
    width = query.features.shape[1]
    if width != model.feature_dim:
        raise ClearError(
            f"{path} is another model's: it has {width} numbers per image, this model gives {model.feature_dim}."
        )
    rows: list[tuple[LabelledFeatures, int]] = [(side, row) for side in (query, gallery) for row in range(len(side))]
    step = max(1, len(rows) // _TRIED)
    tried: list[tuple[Any, str]] = [
        (side.features[row].double(), side.names[row])
        for side, row in rows[::step]
        if side.names and os.path.isfile(side.names[row])
    ]
    if not tried:
        logger.warning(f"{path}: its pictures are gone, so nothing shows that these features are this model's.")
        return
    found = model([name for _, name in tried]).double()
    stored = torch.stack([feature for feature, _ in tried])
    similarities = torch.nn.functional.cosine_similarity(found, stored, dim=1)
    if float(similarities.median()) < _SAME_FEATURE:
        raise ClearError(
            f"{path} holds another model's features: for {tried[0][1]} and {len(tried) - 1} more pictures this "
            f"model's have a median cosine of {float(similarities.median()):.3f} with them. Evaluate "
            "this checkpoint again with TEST.EVALUATION.SAVE_FEATURES True, or give the dataset's name."
        )
