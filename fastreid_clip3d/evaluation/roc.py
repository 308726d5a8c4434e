"""fast-reid's TPR@FPR from the distances of all pairs, without the lists of a whole ROC curve.

In fast-reid a pair of different people is the positive, and a larger distance speaks for it. Its curve is that of
``sklearn.metrics.roc_curve``, which takes about 40 bytes per pair. We sort the distances in place and look up the
points of the curve at the distances of the same person, which are few. They are the first points with their false
positive rate, and ``roc_curve`` leaves out those that lie on a line with both neighbours.

Shape letters: S pairs of the same person, N pairs of different people, K distinct distances of the same person.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RATES = (1e-4, 1e-3, 1e-2)


def true_positive_rates(same: np.ndarray, different: np.ndarray, rates: Sequence[float] = RATES) -> dict[str, float]:
    """The true positive rate at the point of the curve that is nearest to each false positive rate, in fractions.

    Args:
        same: distances of pairs of the same person, float [S]. different: of different people, [N]. We sort both.

    Returns:
        by ``TPR@FPR=1e-04`` and so on; nothing without pairs of both kinds.

    >>> true_positive_rates(np.array([0.1, 0.2, 0.8, 0.4]), np.array([0.5, 0.9]), [0.25, 1.0])
    {'TPR@FPR=2e-01': 0.5, 'TPR@FPR=1e+00': 1.0}
    """
    if not len(same) or not len(different):
        return {}
    same.sort()
    different.sort()
    thresholds, counts = (values[::-1] for values in np.unique(same, return_counts=True))
    # pairs that reach each threshold, and those of different people exactly there, int64 [K]
    reached, above = (len(different) - np.searchsorted(different, thresholds, side) for side in ("left", "right"))
    equal = reached - above
    # Between two thresholds there is a point of its own if a pair of different people lies there. Else both are
    # neighbours, and the first is on a line if the steps to it and from it are the same.
    steps = np.stack([counts, equal])
    on_line = np.zeros(len(thresholds), dtype=bool)
    on_line[:-1] = (above[1:] == reached[:-1]) & (steps[:, 1:] == steps[:, :-1]).all(axis=0)
    # The curve's first and last point always stay.
    on_line[0] &= above[0] > 0
    false_rates = np.r_[0, np.cumsum(counts)[~on_line]] / len(same)
    true_rates = np.r_[0, reached[~on_line]] / len(different)
    return {f"TPR@FPR={rate:.0e}": float(true_rates[np.argmin(np.abs(false_rates - rate))]) for rate in rates}
