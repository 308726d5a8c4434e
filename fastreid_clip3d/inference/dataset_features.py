"""Features of a dataset's query and gallery, with the ids that an evaluation needs."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from fastreid_clip3d.common.images import UnreadableImage
from fastreid_clip3d.data.datasets import build_dataset
from fastreid_clip3d.data.datasets.from_config import dataset_of
from fastreid_clip3d.data.records import clothes_of, paths_of
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import GENERAL, Protocol
from fastreid_clip3d.evaluation.ranking import LabelledFeatures
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.extraction import extract
from fastreid_clip3d.inference.pictures import Entry

logger = logging.getLogger(__name__)


def dataset_features(
    model: ReIDModel, name: str, batch_size: int = 64, progress: bool = True, root: str = "", people: int = 0
) -> tuple[LabelledFeatures, LabelledFeatures, tuple[Protocol, ...]]:
    """Query and gallery of a dataset through the model, and the dataset's protocols.

    A tracklet's feature is the mean of its frames'. Unreadable images are named in the log and left out.

    Args:
        name: a registered dataset, one of the run's own ``DATASETS.CSV``, or the path of a CSV file.
        root: the datasets' folder; "": FASTREID_DATASETS.
        people: only this many people of query and gallery, those with the lowest ids; 0: all.

    Raises:
        ClearError: no such dataset, its folders are missing, or none of its images can be read.
    """
    dataset = dataset_of(model.cfg, name, root) if hasattr(model, "cfg") else build_dataset(name, root)
    queries, items = list(dataset.query), list(dataset.gallery)
    if people:
        chosen = set(sorted({int(record[1]) for record in queries})[:people])
        queries, items = ([record for record in side if int(record[1]) in chosen] for side in (queries, items))
    records = [*queries, *items]
    entries = [Entry(record[0], tuple(map(Path, paths_of(record)))) for record in records]
    features, kept = [], []
    for place, (_, outcome) in enumerate(extract(model, entries, batch_size, progress)):
        if isinstance(outcome, UnreadableImage):
            logger.warning(f"{name}: left out: {outcome}")
        else:
            features.append(outcome)
            kept.append(place)
    if not features:
        raise ClearError(f"{name}: none of its {len(records)} query and gallery images can be read.")
    rows, places = torch.stack(features), np.array(kept)
    pids, camids = (np.array([int(records[place][column]) for place in kept]) for column in (1, 2))
    clothes = np.array([clothes_of(records[place]) for place in kept])
    known = bool((clothes >= 0).all())

    def side(own: np.ndarray) -> LabelledFeatures:
        names = tuple(records[place][0] for place in places[own])
        return LabelledFeatures(
            rows[torch.from_numpy(own)], pids[own], camids[own], clothes[own] if known else None, names
        )

    is_query = places < len(queries)
    protocols = tuple(getattr(dataset, "protocols", ())) or (GENERAL,)
    return side(is_query), side(~is_query), protocols
