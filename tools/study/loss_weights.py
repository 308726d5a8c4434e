"""Measures each loss's gradient relative to that of cross-entropy, and prints the weights for a wanted ratio.

The ratio is the norm of the weighted loss's gradient with respect to the student's feature map, both halves of the
batch together, divided by the norm for cross-entropy. It is proportional to the weight. It changes as a training goes
on, so measure at the first step and with a trained student (--weights). The arithmetic is float32.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastreid.config import CfgNode
from fastreid.utils.env import seed_all_rng
from fastreid.utils.events import EventStorage

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fastreid_clip3d.cli.run_options import positive
from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.engine.tensorboard import collect_maps, gradient_norms
from fastreid_clip3d.engine.trainer import CLIP3DTrainer
from fastreid_clip3d.errors import ClearError, run_tool
from fastreid_clip3d.modeling.weights import load_weights

EXAMPLES = """\
examples:
  FASTREID_DATASETS=datasets/demo python tools/study/loss_weights.py --config-file configs/CLIP3D/synthcc.yml \\
      --ratio 0.3
  FASTREID_DATASETS=datasets/demo python tools/study/loss_weights.py --config-file configs/CLIP3D/synthcc.yml \\
      --ratio 0.3 --ratio-of loss_ot 0.1 --weights logs/demo/clip3d \\
      MODEL.LOSSES.GLOBAL_DISTILL.REDUCTION cosine
"""

CROSS_ENTROPY = "loss_cls"
WEIGHT_KEYS = {
    "loss_ot": "OT.SCALE",
    "loss_ot_synthetic": "OT.SYNTHETIC_SCALE",
    "loss_global": "GLOBAL_DISTILL.SCALE",
    "loss_body_shape": "BODY_SHAPE.SCALE",
    "loss_triplet": "TRI.SCALE",
}
"""The key of each loss's weight, below MODEL.LOSSES."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        loss: its name in the log.
        key: of its weight; "": it has none.
        weight: its value now.
        ratio: gradient norm relative to that of cross-entropy, with this weight.
        wanted: the weight for the wanted ratio; None where none is wanted or the loss has no gradient there.
    """

    loss: str
    key: str
    weight: float
    ratio: float
    wanted: float | None


def measure(cfg: CfgNode, weights: str = "", batches: int = 4) -> dict[str, float]:
    """The ratio of each loss of a config, by name: its mean over some training batches.

    Args:
        weights: a run folder or checkpoint with the student and its losses; "": the config's start.

    Raises:
        ClearError: the config or the weights cannot be used, or cross-entropy has no gradient.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.AMP.ENABLED = False
    with tempfile.TemporaryDirectory() as folder:
        cfg.OUTPUT_DIR = folder
        if cfg.SEED >= 0:
            seed_all_rng(cfg.SEED)
        trainer = CLIP3DTrainer(cfg)
        if weights:
            load_weights(trainer.model, weights, "start", "--weights")
        trainer.model.train()
        sums: dict[str, float] = {}
        for _ in range(batches):
            for name, norm in ratios_of_a_batch(trainer).items():
                sums[name] = sums.get(name, 0.0) + norm / batches
    return sums


def ratios_of_a_batch(trainer: CLIP3DTrainer) -> dict[str, float]:
    """The ratio of each loss on the next batch; the student does not learn."""
    maps: list = []
    forget = collect_maps(trainer.model, maps)
    try:
        with EventStorage():
            losses = trainer.model(next(trainer._trainer._data_loader_iter))
    finally:
        forget()
    norms = gradient_norms(losses, maps)
    unit = norms.get(CROSS_ENTROPY, 0.0)
    if not (unit > 0 and math.isfinite(unit)):
        raise ClearError(
            "Cross-entropy has no gradient that the others could be compared with. Put CrossEntropyLoss into "
            "MODEL.LOSSES.NAME with MODEL.LOSSES.CE.SCALE above 0, and check --weights."
        )
    return {name: norm / unit for name, norm in norms.items()}


def table_of(cfg: CfgNode, ratios: Mapping[str, float], wanted: Mapping[str, float]) -> list[Row]:
    """One row per loss but cross-entropy, with the weights that give the `wanted` ratios, by the loss's name."""
    rows = []
    for loss, ratio in ratios.items():
        if loss == CROSS_ENTROPY:
            continue
        key = WEIGHT_KEYS.get(loss, "")
        group, _, name = key.partition(".")
        weight = float(cfg.MODEL.LOSSES[group][name]) if key else math.nan
        asked = wanted.get(loss) if key and ratio > 0 else None
        rows.append(Row(loss, key, weight, ratio, None if asked is None else weight * asked / ratio))
    return rows


def report(rows: list[Row]) -> str:
    """The rows as a Markdown table, and the wanted weights as KEY VALUE pairs."""
    lines = ["| loss | weight | now | gradient / cross-entropy | for the wanted ratio |", "|---|---|---|---|---|"]
    for row in rows:
        wanted = "-" if row.wanted is None else f"{row.wanted:.3g}"
        now = f"{row.weight:g}" if row.key else "-"
        lines.append(f"| {row.loss} | {row.key or '-'} | {now} | {row.ratio:.3g} | {wanted} |")
    pairs = [f"MODEL.LOSSES.{row.key} {row.wanted:.3g}" for row in rows if row.wanted is not None]
    return "\n".join([*lines, *(["", " ".join(pairs)] if pairs else [])])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="student, losses and data")
    parser.add_argument("--weights", default="", metavar="RUN", help="run folder or checkpoint (default: the start)")
    parser.add_argument("--batches", type=positive, default=4, metavar="N", help="training batches (default: 4)")
    parser.add_argument("--ratio", type=float, metavar="X", help="wanted ratio of each loss")
    parser.add_argument(
        "--ratio-of", nargs=2, action="append", default=[], metavar=("LOSS", "X"), help="wanted ratio of one loss"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="changes to the config, last")
    arguments = parser.parse_args()
    cfg = load_config(arguments.config_file, arguments.opts)
    wanted = wanted_ratios(arguments.ratio, arguments.ratio_of)
    print(report(table_of(cfg, measure(cfg, arguments.weights, arguments.batches), wanted)))


def wanted_ratios(of_each: float | None, of_one: list[list[str]]) -> dict[str, float]:
    """The wanted ratio of each loss that has a weight.

    Raises:
        ClearError: an unknown loss, or a ratio that is no number above 0.
    """
    wanted = {} if of_each is None else dict.fromkeys(WEIGHT_KEYS, of_each)
    for loss, text in of_one:
        if loss not in WEIGHT_KEYS:
            raise ClearError(f"--ratio-of {loss}: known losses are {', '.join(WEIGHT_KEYS)}.")
        try:
            wanted[loss] = float(text)
        except ValueError:
            wanted[loss] = math.nan
    for loss, ratio in wanted.items():
        if not (ratio > 0 and math.isfinite(ratio)):
            raise ClearError(f"The wanted ratio of {loss} must be a number above 0.")
    return wanted


if __name__ == "__main__":
    run_tool(main)
