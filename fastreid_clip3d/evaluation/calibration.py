"""Which similarity means the same person: a model's error rates by threshold, in its run's ``calibration.json``.

A calibration belongs to one model (its fingerprint) and to one set of people and cameras. It has, by threshold, the
share of pairs of different people that reach it and the share of pairs of the same person that miss it. It has them by
protocol, since the same threshold misses far more pairs when clothes change.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from tabulate import tabulate

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.error_rates import (
    THRESHOLDS,
    PairCounts,
    PairSource,
    Progress,
    count_pairs,
    intervals,
    reaches,
)  # fmt: skip
from fastreid_clip3d.evaluation.open_set import OpenSetRates, nobody_verdict, open_set_rates
from fastreid_clip3d.evaluation.protocols import Protocol
from fastreid_clip3d.evaluation.ranking import DEFAULT_MAX_MEMORY, LabelledFeatures

FILE_NAME = "calibration.json"
CIRCULAR = (
    "These thresholds were chosen on the people and cameras of {dataset}. Error rates reported on the same people with "
    "these thresholds are circular: measure them on other people. Other cameras shift the rates, too."
)
_LEVELS = 200  # half of the thresholds in a curve, roughly


@dataclass(frozen=True)
class Recommended:
    """The lowest threshold that keeps the allowed false match rate, with both rates there.

    Args:
        threshold: cosine similarity; `false_match_rate`, `false_non_match_rate`: fractions.
        false_match_interval, false_non_match_interval: rough 95 % intervals, see ``error_rates.intervals``.
    """

    threshold: float
    false_match_rate: float
    false_non_match_rate: float
    false_match_interval: tuple[float, float] = (0.0, 1.0)
    false_non_match_interval: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class ProtocolRates:
    """One protocol's curve: exact rates at some of the thresholds, ascending.

    Args:
        recommended: None where no threshold keeps the allowed rate, or where there are no pairs to count.
        notes: limits of these rates, in sentences.
        open_set: the rates of whole searches, by gallery size.
    """

    thresholds: tuple[float, ...]
    false_match_rate: tuple[float, ...]
    false_non_match_rate: tuple[float, ...]
    genuine_pairs: int
    impostor_pairs: int
    people: int
    recommended: Recommended | None
    notes: tuple[str, ...] = ()
    open_set: tuple[OpenSetRates, ...] = ()

    def rates_at(self, similarity: float) -> tuple[float, float]:
        """(false match rate, false non-match rate) if this similarity were the threshold.

        Between two thresholds of the curve: upper bounds, the lower one's false match and the upper one's false
        non-match rate.
        """
        if not self.thresholds:
            return 1.0, 1.0
        place = int(np.searchsorted(np.array(self.thresholds), similarity + 1e-9, side="right")) - 1
        false_match = self.false_match_rate[place] if place >= 0 else 1.0
        exact = place >= 0 and abs(self.thresholds[place] - similarity) < 1e-9
        after = place if exact else place + 1
        return false_match, self.false_non_match_rate[after] if after < len(self.thresholds) else 1.0


@dataclass(frozen=True)
class Calibration:
    """The content of ``calibration.json``.

    Args:
        fingerprint: of the model. dataset: a dataset's name or a features file.
        false_match_rate: the allowed rate, a fraction. protocols: by name; the first is the dataset's headline.
    """

    fingerprint: str
    dataset: str
    false_match_rate: float
    protocols: dict[str, ProtocolRates]

    def as_dict(self) -> dict[str, Any]:
        protocols = {}
        for name, rates in self.protocols.items():
            protocols[name] = {
                **vars(rates),
                "recommended": vars(rates.recommended) if rates.recommended else None,
                "open_set": [vars(own) for own in rates.open_set],
            }
        return {
            "fingerprint": self.fingerprint,
            "dataset": self.dataset,
            "asked_false_match_rate": self.false_match_rate,
            "warning": CIRCULAR.format(dataset=self.dataset),
            "protocols": protocols,
        }

    def table(self) -> str:
        """The recommended thresholds with their rates, as a markdown table."""
        rows = []
        for name, rates in self.protocols.items():
            values: list[str | None] = [None, None, None]
            if chosen := rates.recommended:
                values = [
                    f"{chosen.threshold:.5f}",
                    _with_interval(chosen.false_match_rate, chosen.false_match_interval),
                    _with_interval(chosen.false_non_match_rate, chosen.false_non_match_interval),
                ]
            rows.append([name, *values, rates.people, rates.genuine_pairs, rates.impostor_pairs])
        headers = ["protocol", "threshold", "false matches", "false non-matches"]
        headers += ["people", "genuine pairs", "impostor pairs"]
        return tabulate(rows, headers, tablefmt="pipe", missingval="-", disable_numparse=True)

    def open_set_table(self) -> str:
        """FPIR and FNIR by gallery size, as a markdown table; "" without them."""
        rows = [
            [
                name,
                f"{own.gallery_size:,}",
                *(f"{own.nobody_below:.3f}", _percent(own.fpir), _percent(own.fnir)),
                None if own.strict_threshold is None else f"{own.strict_threshold:.3f}",
                None if own.strict_fnir is None else _percent(own.strict_fnir),
            ]
            for name, rates in self.protocols.items()
            for own in rates.open_set
        ]
        headers = ["protocol", "gallery", "nobody below", "FPIR", "FNIR"]
        headers += [f"threshold for FPIR {_percent(self.false_match_rate)}", "its FNIR"]
        return tabulate(rows, headers, tablefmt="pipe", missingval="-", disable_numparse=True) if rows else ""

    def nobody(self, similarity: float, gallery_size: int) -> tuple[bool | None, str]:
        """Whether nobody is the likelier answer by the headline protocol, and a sentence: see ``nobody_verdict``."""
        headline = next(iter(self.protocols.values()), None)
        return nobody_verdict(similarity, gallery_size, headline.open_set if headline else (), self.dataset)


class Verdict(TypedDict):
    """One protocol's verdict: by its recommended threshold (both None without one), with the error rates of this
    similarity as a threshold."""

    same_person: bool | None
    threshold: float | None
    false_match_rate: float
    false_non_match_rate: float


@dataclass(frozen=True)
class Comparison:
    """The similarity of two pictures, and whether they show the same person.

    Args:
        similarity: cosine, in [-1, 1].
        same_person: by the headline protocol; None without a calibration or a recommended threshold.
        by_protocol: every protocol's verdict. sentence: the same for a reader.
    """

    similarity: float
    same_person: bool | None = None
    by_protocol: dict[str, Verdict] = field(default_factory=dict)
    sentence: str = ""


def check_false_match_rate(rate: float) -> None:
    """Refuses an allowed false match rate outside (0, 1)."""
    if not 0 < rate < 1:
        raise ClearError(f"the false match rate is {rate}; it must lie between 0 and 1, as in 0.01 for 1 %")


def calibrate(
    query: LabelledFeatures,
    gallery: LabelledFeatures,
    protocols: Sequence[Protocol],
    fingerprint: str,
    dataset: str,
    false_match_rate: float = 0.01,
    max_memory: float = DEFAULT_MAX_MEMORY,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Calibration:
    """Counts all pairs of query and gallery and recommends a threshold for each protocol.

    Args:
        false_match_rate: the share of pairs of different people that may pass as the same person, in (0, 1).
        max_memory: MiB beyond the features, roughly.

    Raises:
        ClearError: a rate outside (0, 1), no pairs, a protocol that needs clothes ids where there are none.

    Two people, one picture each in query and gallery: the pairs of one person have similarity 1, the others 0.6.

    >>> import torch
    >>> from fastreid_clip3d.evaluation import GENERAL
    >>> features, people = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), np.array([1, 2])
    >>> query = LabelledFeatures(features, people, np.array([1, 1]))
    >>> gallery = LabelledFeatures(features, people, np.array([2, 2]))
    >>> calibration = calibrate(query, gallery, [GENERAL], fingerprint="...", dataset="two people")
    >>> recommended = calibration.protocols["general"].recommended
    >>> 0.6 < recommended.threshold < 0.60003, recommended.false_match_rate, recommended.false_non_match_rate
    (True, 0.0, 0.0)
    """
    check_false_match_rate(false_match_rate)
    pairs = PairSource(query, gallery, protocols, max_memory, device)
    counts = count_pairs(pairs, progress)
    if not any(count.num_genuine + count.num_impostor for count in counts.values()):
        raise ClearError(f"{dataset}: there is not one pair of a query and a gallery item to calibrate with")
    places = {
        name: place
        for name, count in counts.items()
        if count.num_impostor and count.num_genuine and (place := count.place_at(false_match_rate)) is not None
    }
    bounds = intervals(pairs, places, progress=progress) if places else {}
    open_set = open_set_rates(pairs, false_match_rate, progress)
    rates = {
        name: replace(
            _protocol_rates(pairs, name, count, false_match_rate, places.get(name), bounds.get(name)),
            open_set=open_set[name],
        )
        for name, count in counts.items()
    }
    return Calibration(fingerprint, dataset, false_match_rate, rates)


def _protocol_rates(
    pairs: PairSource,
    name: str,
    counts: PairCounts,
    asked: float,
    place: int | None,
    bounds: dict[str, tuple[float, float]] | None,
) -> ProtocolRates:
    num_genuine, num_impostor = counts.num_genuine, counts.num_impostor
    false_match = counts.false_matches / max(num_impostor, 1)
    false_non_match = counts.false_non_matches / max(num_genuine, 1)
    notes = []
    if not num_genuine:
        notes.append(
            "there is no pair of the same person: there are no false non-match rates and no recommended threshold."
        )
    if not num_impostor:
        notes.append(
            "there is no pair of different people: there are no false match rates and no recommended threshold."
        )
    elif asked * num_impostor < 1:
        notes.append(
            f"the allowed false match rate is {_rate(asked)}, but {num_impostor:,} pairs of different people show "
            f"rates from {_rate(1 / num_impostor)} up only: the threshold is the lowest that none of them reaches, and "
            f"its true rate may be far from {_rate(asked)}."
        )
    elif asked * num_impostor < 30:
        notes.append(
            f"a false match rate of {_rate(asked)} is {asked * num_impostor:.0f} of {num_impostor:,} pairs of "
            "different people; with fewer than 30 wrong pairs the threshold is largely chance."
        )
    recommended = None
    if bounds is not None and place is not None:
        recommended = Recommended(
            float(THRESHOLDS[place]),
            float(false_match[place]),
            float(false_non_match[place]),
            bounds["false_match_rate"],
            bounds["false_non_match_rate"],
        )
    elif num_genuine and num_impostor:
        notes.append(
            f"no threshold keeps a false match rate of {_rate(asked)}: {_rate(float(false_match[-1]))} of the pairs of "
            "different people have similarity 1, as copies of one picture have. Look for pictures with two names."
        )
    queries, items = pairs.items_of_people(name)
    kept = _kept_places(counts, place)
    return ProtocolRates(
        tuple(THRESHOLDS[kept].tolist()),
        tuple(false_match[kept].tolist()),
        tuple(false_non_match[kept].tolist()),
        num_genuine,
        num_impostor,
        int(((queries > 0) | (items > 0)).sum()),
        recommended,
        tuple(notes),
    )


def _kept_places(counts: PairCounts, recommended: int | None) -> np.ndarray:
    """Places of the thresholds of the written curve, evenly spread over similarity and the logarithm of both rates."""
    filled = np.flatnonzero(counts.genuine + counts.impostor)
    if not len(filled):
        return filled
    low, high = int(filled[0]), min(int(filled[-1]) + 1, len(THRESHOLDS) - 1)
    places = [np.linspace(low, high, _LEVELS).round().astype(int)]
    for values, total, ascending in (
        (counts.false_matches, counts.num_impostor, False),
        (counts.false_non_matches, counts.num_genuine, True),
    ):
        if total:
            levels = total * np.geomspace(1 / total, 1, _LEVELS // 2)
            found = np.searchsorted(values if ascending else -values, levels if ascending else -levels)
            places.append(found[(found >= low) & (found <= high)])
    if recommended is not None:
        places.append(np.array([recommended]))
    return np.unique(np.concatenate(places))


def compare_similarity(similarity: float, calibration: Calibration | None) -> Comparison:
    """The verdicts of a calibration on a similarity."""
    similarity = float(similarity)
    if calibration is None:
        return Comparison(
            similarity,
            sentence=f"similarity {similarity:.3f}; `clip3d calibrate` measures whether this means the same person",
        )
    by_protocol: dict[str, Verdict] = {}
    for name, rates in calibration.protocols.items():
        false_match, false_non_match = rates.rates_at(similarity)
        chosen = rates.recommended
        by_protocol[name] = {
            "same_person": bool(reaches(similarity, chosen.threshold)) if chosen else None,
            "threshold": chosen.threshold if chosen else None,
            "false_match_rate": false_match,
            "false_non_match_rate": false_non_match,
        }
    headline = next(iter(by_protocol), None)
    return Comparison(
        similarity,
        by_protocol[headline]["same_person"] if headline else None,
        by_protocol,
        f"similarity {similarity:.3f}: {_verdict(calibration, by_protocol)} (measured on {calibration.dataset})",
    )


def _verdict(calibration: Calibration, by_protocol: dict[str, Verdict]) -> str:
    """All protocols' verdicts in words; protocols with the same verdict share one part of the sentence."""
    same: dict[str, list[str]] = {}
    different, unknown = [], []
    for name, values in by_protocol.items():
        rates = calibration.protocols[name]
        if values["same_person"] is None:
            unknown.append(name)
        elif values["same_person"]:
            same.setdefault(_below(values["false_match_rate"], rates.impostor_pairs), []).append(name)
        elif rates.recommended:
            different.append((name, _percent(rates.recommended.false_non_match_rate)))
    parts = [f"same person ({', '.join(names)}): {bound} false matches" for bound, names in same.items()]
    if different:
        missed = ", ".join(f"{rate} of same-person pairs ({name})" for name, rate in different[:1])
        missed += "".join(f", {rate} ({name})" for name, rate in different[1:])
        parts.append(f"below the threshold, which misses {missed}")
    if unknown:
        parts.append(f"no verdict ({', '.join(unknown)})")
    return "; ".join(parts)


def _below(rate: float, pairs: int) -> str:
    """A bound of a rate, rounded up to 0.01, 0.1, 1 or 5 %; it is never below 3 / `pairs`."""
    least = max(rate, 3 / max(pairs, 1))
    for step in (0.0001, 0.001, 0.01, 0.05):
        if least <= step:
            return f"at most {100 * step:g} %"
    return f"up to {_percent(least)}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.0f} %" if rate >= 0.1 else f"{100 * rate:.2g} %"


def _rate(rate: float) -> str:
    return f"{rate:.2g}"


def _with_interval(rate: float, interval: tuple[float, float]) -> str:
    return f"{100 * rate:.3g} % ({100 * interval[0]:.3g} to {100 * interval[1]:.3g})"


def write_calibration(folder: str | Path, calibration: Calibration) -> Path:
    """Writes ``calibration.json`` into a folder and returns its path."""
    path = Path(folder) / FILE_NAME
    text = json.dumps(calibration.as_dict(), indent=1, allow_nan=False) + "\n"
    write_atomically(path, text.encode())
    return path


def read_calibration(run: str | Path, fingerprint: str) -> Calibration | None:
    """The calibration of a model.

    Args:
        run: its run folder, a file in it (a checkpoint), or a ``calibration.json``.
        fingerprint: the model's, which must be the calibration's.

    Returns:
        None where there is none.

    Raises:
        ClearError: a damaged file, or one of another model.
    """
    path = Path(run)
    if path.suffix != ".json":
        path = (path if path.is_dir() else path.parent) / FILE_NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        calibration = _from_dict(content)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ClearError(
            f"{path} is not a calibration ({type(error).__name__}: {error}); run `clip3d calibrate` again, or remove "
            "the file."
        ) from error
    if calibration.fingerprint != fingerprint:
        raise ClearError(
            f"{path} belongs to another model: its fingerprint is {calibration.fingerprint[:12]}, this model's is "
            f"{fingerprint[:12]}. The weights or the input size have changed; run `clip3d calibrate` again, or remove "
            "the file."
        )
    return calibration


def _from_dict(content: dict[str, Any]) -> Calibration:
    protocols = {}
    for name, values in content["protocols"].items():
        curve: dict[str, Any] = {
            key: tuple(map(_finite, values[key])) for key in ("thresholds", "false_match_rate", "false_non_match_rate")
        }
        if len({len(numbers) for numbers in curve.values()}) != 1:
            raise ValueError(f"protocol {name}: its lists have different lengths")
        if list(curve["thresholds"]) != sorted(curve["thresholds"]):
            raise ValueError(f"protocol {name}: its thresholds do not ascend")
        pairs: dict[str, Any] = {key: _count(values[key]) for key in ("genuine_pairs", "impostor_pairs")}
        if any(pairs.values()) and not curve["thresholds"]:
            raise ValueError(f"protocol {name}: it has pairs, but no thresholds")
        chosen = values["recommended"]
        if chosen is not None:
            single: dict[str, Any] = {
                key: _finite(chosen[key]) for key in ("threshold", "false_match_rate", "false_non_match_rate")
            }
            double: dict[str, Any] = {
                key: (_finite(chosen[key][0]), _finite(chosen[key][1]))
                for key in ("false_match_interval", "false_non_match_interval")
            }
            chosen = Recommended(**single, **double)
        protocols[str(name)] = ProtocolRates(
            **curve,
            **pairs,
            people=_count(values["people"]),
            recommended=chosen,
            notes=tuple(map(str, values["notes"])),
            open_set=tuple(map(_open_set, values.get("open_set", ()))),
        )
    asked = _finite(content["asked_false_match_rate"])
    return Calibration(str(content["fingerprint"]), str(content["dataset"]), asked, protocols)


def _open_set(values: dict[str, Any]) -> OpenSetRates:
    strict = [None if values[key] is None else _finite(values[key]) for key in ("strict_threshold", "strict_fnir")]
    return OpenSetRates(
        _count(values["gallery_size"]), *(_finite(values[key]) for key in ("nobody_below", "fpir", "fnir")), *strict
    )


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a whole number of 0 or more")
    return value
