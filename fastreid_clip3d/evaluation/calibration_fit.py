"""Whether a calibration holds for a gallery: it compares the similarities of the gallery's pictures with its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastreid_clip3d.evaluation.calibration import Calibration

FEWEST_PICTURES = 30
"""Below this many pictures the shares of pairs are a matter of chance."""
LARGEST_GAP = 0.25
"""Largest accepted difference between two shares of pairs. Pairs of one person in the gallery account for a part of it:
they raise the gallery's share by at most their own share of all pairs."""
_MOST_PICTURES = 1500


@dataclass(frozen=True)
class CalibrationFit:
    """The comparison of a gallery with the pairs of different people that a calibration counted.

    Attributes:
        holds: False where the rates of the calibration cannot be trusted; None where there are too few pictures to say.
        gap: largest difference of the two distributions of similarity, 0..1 (Kolmogorov-Smirnov).
        sentence: the same for a reader; "" where the calibration holds.
    """

    holds: bool | None
    gap: float
    sentence: str


def calibration_fit(features: np.ndarray, calibration: Calibration) -> CalibrationFit:
    """Compares the similarities between a gallery's pictures with those of different people in the calibration.

    Most pairs of a gallery show different people, so both distributions agree where the calibration holds. Other
    cameras, other clothes, or photographs instead of rendered people shift them, and with them the error rates.

    Args:
        features: L2-normalised, float [N, d], the gallery's pictures. calibration: of the same model.
    """
    rates = max(calibration.protocols.values(), key=lambda protocol: protocol.impostor_pairs)
    if len(features) < FEWEST_PICTURES or not rates.impostor_pairs:
        too_few = (
            f"{len(features)} pictures are too few to check whether the calibration on {calibration.dataset} holds"
        )
        return CalibrationFit(None, 0.0, f"{too_few} for this gallery.")
    chosen = np.random.default_rng(0).permutation(len(features))[:_MOST_PICTURES]
    vectors = np.asarray(features, np.float32)[np.sort(chosen)]
    similarities = np.sort((vectors @ vectors.T)[np.triu_indices(len(vectors), 1)])
    thresholds = np.array(rates.thresholds)
    reached = 1 - np.searchsorted(similarities, thresholds - 1e-6) / len(similarities)
    gaps = reached - np.array(rates.false_match_rate)
    widest = int(np.abs(gaps).argmax())
    gap = float(abs(gaps[widest]))
    if gap <= LARGEST_GAP + 1 / np.sqrt(len(vectors)):
        return CalibrationFit(True, gap, "")
    return CalibrationFit(
        False,
        gap,
        f"No verdict: the calibration on {calibration.dataset} does not hold for this gallery. "
        f"{100 * reached[widest]:.0f} % of the gallery's pairs have a similarity of {thresholds[widest]:.2f} or more; "
        f"among the different people of {calibration.dataset} it was {100 * rates.false_match_rate[widest]:.0f} %. "
        "Calibrate on pictures like these (clip3d calibrate --data ...) for verdicts.",
    )
