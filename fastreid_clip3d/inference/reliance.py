"""Measures on SynthCC what a model matches: clothes, skin and hair, or body shape."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastreid_clip3d.common.dataset_root import dataset_root
from fastreid_clip3d.common.files import check_writable_folder
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.ranking import LabelledFeatures
from fastreid_clip3d.evaluation.reliance import PersonScores, Reliance, divide, person_scores, scores_with_chance
from fastreid_clip3d.inference.dataset_features import dataset_features
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.synthcc import plan
from fastreid_clip3d.synthcc.person import VARIANTS, Variant
from fastreid_clip3d.synthcc.progress import generate_with_bar

logger = logging.getLogger(__name__)

SET = "SynthCC-tiny"
DATASETS: dict[Variant, str] = {"natural": "SynthCCTiny", "shape-only": "SynthCCTinyShapeOnly"}


@dataclass(frozen=True)
class RelianceReport:
    """What ``clip3d reliance`` found.

    Args:
        model: its source. scores: mAP and that of chance in percent, by rendering and protocol.
    """

    model: str
    fingerprint: str
    reliance: Reliance
    scores: dict[str, dict[str, dict[str, float | None]]]

    @property
    def sentence(self) -> str:
        """The answer in words."""
        return self.reliance.sentence(self.model)

    def as_dict(self) -> dict[str, Any]:
        """For json. The parts are fractions, the scores percent."""
        return {
            "model": self.model,
            "fingerprint": self.fingerprint,
            "set": SET,
            "sentence": self.sentence,
            **self.reliance.as_dict(),
            "mAP_percent": self.scores,
        }


def render_missing(root: str, workers: int) -> None:
    """Renders those of both sets that are not there, or not whole.

    A folder that was rendered with other settings, or holds no ``meta.json``, is used as it is.

    Raises:
        ClearError: a set cannot be written.
    """
    for variant in VARIANTS:
        config = dataclasses.replace(plan.SETS[SET], variant=variant)
        meta = Path(root) / config.folder / "meta.json"
        if meta.parent.is_dir() and (not meta.exists() or _is_complete(meta)):
            continue
        check_writable_folder(root, "--root")
        logger.warning(
            f"{meta.parent} is not there, or not whole: we render it now, which takes about five minutes on two free "
            "cores. If you stop, the same command goes on."
        )
        generate_with_bar(root, config, workers)


def _is_complete(meta: Path) -> bool:
    try:
        return bool(json.loads(meta.read_text()).get("complete", True))
    except (ValueError, AttributeError) as error:
        raise ClearError(f"{meta} is not valid JSON ({error}). Remove its folder, and the set is rendered anew.") from (
            error
        )


def measure_reliance(
    model: ReIDModel, *, root: str = "", workers: int = 1, batch_size: int = 64, people: int = 0, seed: int = 0
) -> RelianceReport:
    """Features of both sets' query and gallery, their scores, and what the score is made of.

    Args:
        model: of any source of ``load_model``. root: the datasets' folder; "": FASTREID_DATASETS.
        workers: processes that render a missing set. people: only the first test people; 0: all.
        seed: of the bootstrap.

    Raises:
        ClearError: a set cannot be written or read, or both do not show the same people.
    """
    root = root or dataset_root()
    render_missing(root, workers)
    found: dict[Variant, PersonScores] = {}
    scores: dict[str, dict[str, dict[str, float | None]]] = {}
    names: dict[str, set[str]] = {}
    for variant, dataset in DATASETS.items():
        query, gallery, _ = dataset_features(model, dataset, batch_size, sys.stderr.isatty(), root, people)
        names[variant] = _file_names(query, gallery)
        found[variant] = person_scores(query, gallery, device=str(model.device))
        scores[variant] = scores_with_chance(query, gallery, device=str(model.device))
    if names["natural"] != names["shape-only"]:
        one = sorted(names["natural"] ^ names["shape-only"])[0]
        raise ClearError(
            f"{root}: only one of {' and '.join(DATASETS.values())} has {one}. Both must show the same people, outfits "
            "and cameras: render both with the same seed, or remove the one that lacks pictures and run this again."
        )
    source = model.source or str(model.run_folder)
    return RelianceReport(source, model.fingerprint, divide(found["natural"], found["shape-only"], seed), scores)


def _file_names(query: LabelledFeatures, gallery: LabelledFeatures) -> set[str]:
    return {"/".join(Path(name).parts[-2:]) for side in (query, gallery) for name in side.names}
