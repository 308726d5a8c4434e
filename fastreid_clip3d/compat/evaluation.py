"""fast-reid's evaluator without a compiler: no process exit, and galleries smaller than its rank list.

fast-reid compiles a Cython module when its evaluator is built and ends the process when that fails. Its Python
fallback stacks rank lists of different lengths, which NumPy 2 refuses.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np


def skip_compilation(self: Any) -> None:
    """Leaves an already compiled module in use and builds none: the Python evaluation gives the same numbers."""


def _padded_to(max_rank: int, cmc_by_query: list[np.ndarray]) -> np.ndarray:
    """Rank lists of any length as one array [queries, max_rank]; a list that has ended keeps its last value."""
    return np.stack([np.pad(cmc, (0, max_rank - len(cmc)), mode="edge") for cmc in cmc_by_query])


def eval_market1501(
    distmat: np.ndarray,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
    max_rank: int,
) -> tuple[np.ndarray, list[float], list[float]]:
    """fast-reid's single-query evaluation: gallery images of the query's person from its own camera are left out.

    Args:
        distmat: distances [Q, G]; `q_pids`, `q_camids` [Q]; `g_pids`, `g_camids` [G].

    Returns:
        The mean CMC [max_rank], and the AP and INP of every query that has a match.
    """
    distmat = np.asarray(distmat)
    order = np.argsort(distmat, axis=1)
    cmc_by_query, average_precisions, inverse_negative_penalties = [], [], []
    for query in range(distmat.shape[0]):
        pids, camids = g_pids[order[query]], g_camids[order[query]]
        kept = ~((pids == q_pids[query]) & (camids == q_camids[query]))
        matches = (pids == q_pids[query])[kept]
        if not matches.any():
            continue
        found = matches.cumsum()
        positions = np.flatnonzero(matches)
        average_precisions.append(float(np.mean(found[positions] / (positions + 1))))
        inverse_negative_penalties.append(float(found[-1] / (positions[-1] + 1)))
        cmc_by_query.append(np.minimum(found, 1)[:max_rank])
    assert cmc_by_query, "Error: all query identities do not appear in gallery"
    cmc = _padded_to(max_rank, cmc_by_query).astype(np.float32).sum(0) / len(cmc_by_query)
    return cmc, average_precisions, inverse_negative_penalties


def fails_on_small_galleries(evaluate: Callable[..., Any]) -> bool:
    """Whether it fails on two gallery images of which one query keeps one and the other query both."""
    distances, persons, query_cameras = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 0]), np.array([0, 2])
    with contextlib.redirect_stdout(io.StringIO()):  # fast-reid prints that the gallery is small
        try:
            evaluate(distances, persons, persons, query_cameras, np.array([0, 1]), 50)
        except ValueError:
            return True
    return False


def compiles(compile_dependencies: Callable[[Any], None]) -> bool:
    """Whether the method starts a compiler here."""
    module = "fastreid.evaluation.reid_evaluation"
    with mock.patch(f"{module}.compile_helper") as compile_helper, mock.patch(f"{module}.logger"):
        compile_dependencies(None)
    return compile_helper.called
