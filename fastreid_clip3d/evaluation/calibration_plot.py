"""The picture of a calibration: both error rates over similarity, by protocol, with the recommended thresholds."""

from __future__ import annotations

from pathlib import Path

from fastreid_clip3d.common.figures import save_figure
from fastreid_clip3d.common.names import printable
from fastreid_clip3d.evaluation.calibration import Calibration

FILE_NAME = "calibration.png"


def plot_calibration(folder: str | Path, calibration: Calibration) -> Path:
    """Draws ``calibration.png`` into a folder and returns its path.

    One colour per protocol: false non-matches solid, false matches dashed. Protocols with the same false match curve
    share one dashed line: their rules remove pairs of one person only. Rates of 0 are below the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    shared: dict[tuple, list[str]] = {}
    lowest = min(
        (1 / rates.impostor_pairs for rates in calibration.protocols.values() if rates.impostor_pairs), default=1e-4
    )
    for number, (name, rates) in enumerate(calibration.protocols.items()):
        colour = f"C{number}"
        if rates.genuine_pairs:
            axes.plot(rates.thresholds, rates.false_non_match_rate, colour, label=f"{name}: false non-matches")
        if rates.impostor_pairs:
            chosen = rates.recommended
            key = (rates.impostor_pairs, chosen.threshold, chosen.false_match_rate) if chosen else (name,)
            shared.setdefault(key, []).append(name)
        if rates.recommended:
            chosen = rates.recommended
            axes.axvline(chosen.threshold, color=colour, linewidth=0.8, linestyle=":")
            ends = [chosen.false_non_match_rate, chosen.false_match_rate]
            axes.plot([chosen.threshold] * 2, ends, colour + "o", markersize=4)
    for names in shared.values():
        rates = calibration.protocols[names[0]]
        colour = "0.3" if len(names) > 1 else f"C{list(calibration.protocols).index(names[0])}"
        label = f"{', '.join(names)}: false matches"
        axes.plot(rates.thresholds, rates.false_match_rate, color=colour, linestyle="--", label=label)
    axes.axhline(calibration.false_match_rate, color="0.6", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_ylim(max(lowest, 1e-7) / 2, 1.3)
    axes.set_xlabel("threshold (cosine similarity; this or more is called the same person)")
    axes.set_ylabel("share of pairs that are judged wrongly")
    # A dataset's name may hold $ signs, which matplotlib would read as a formula.
    title = f"{printable(calibration.dataset)}, false match rate of {100 * calibration.false_match_rate:g} % allowed"
    axes.set_title(title, parse_math=False, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return save_figure(figure, Path(folder) / FILE_NAME, dpi=110)
