"""What the rows of a study are: a config file, the keys that differ from it, and a title in the paper's words.

The paper's names leave two readings open, and these are ours. ``w/o L_OT`` leaves out both its terms, L_OT on the real and
L_OT^syn on the synthetic images. ``w/o L_3D-Regu`` leaves out L_3D and keeps L_OT^syn: without that term too, nothing would
look at the synthetic images, and the row would be ``w/o synthetic mesh images`` once more.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Iterable, Sequence

from fastreid_clip3d.config import load_config
from fastreid_clip3d.errors import ClearError

METHOD = "configs/CLIP3D/synthcc.yml"
BAG_OF_TRICKS = "configs/Baselines/synthcc_bagtricks.yml"
OT, GLOBAL, BODY = "OTLoss", "GlobalDistillLoss", "BodyShapeLoss"


@dataclass(frozen=True)
class Variant:
    """One row.

    Attributes:
        name: of its folder. title: what the table calls it.
        config: a file below the repository. options: ``KEY VALUE`` pairs on top of it.
        teacher: whether the teacher's answers are asked for, so that a cache is worth its while.
        extra: only run when it is named.
    """

    name: str
    title: str
    config: str
    options: tuple[str, ...] = ()
    teacher: bool = False
    extra: bool = False


def ablation(config: str, names: Iterable[str]) -> list[Variant]:
    """The six rows of the paper's Table 10 from a config of the method, whose losses are `names`."""
    names = list(names)
    real_only = ("DATALOADER.SYNTHETIC_PER_BATCH", "0")

    def without(*left_out: str) -> tuple[str, str]:
        return "MODEL.LOSSES.NAME", repr(tuple(name for name in names if name not in left_out))

    return [
        Variant("full", "CLIP3DReID", config, (), True),
        Variant("without_synthetic", "w/o synthetic mesh images", config, (*without(BODY), *real_only), True),
        Variant("without_ot", "w/o L_OT", config, without(OT), True),
        Variant("without_global", "w/o L_global", config, without(GLOBAL), True),
        Variant("without_3d", "w/o L_3D-Regu", config, without(BODY), True),
        Variant("without_all", "w/o L_OT, L_global, L_3D-Regu", config, (*without(OT, GLOBAL, BODY), *real_only)),
    ]


def outside_baselines() -> list[Variant]:
    """fast-reid's own methods with the study's student, images and iterations; the title says what does not apply."""
    weighted = ("MODEL.LOSSES.TRI.MARGIN", "0.0", "MODEL.LOSSES.TRI.HARD_MINING", "False")
    circle = (
        "MODEL.HEADS.CLS_LAYER", "CircleSoftmax", "MODEL.HEADS.SCALE", "64", "MODEL.HEADS.MARGIN", "0.35",
        "MODEL.HEADS.NECK_FEAT", "after", "MODEL.HEADS.POOL_LAYER", "GeneralizedMeanPoolingP",
        "MODEL.LOSSES.TRI.MARGIN", "0.0", "INPUT.AUTOAUG.ENABLED", "True", "INPUT.AUTOAUG.PROB", "0.1",
    )  # fmt: skip
    return [
        Variant("bagtricks", "fast-reid bag of tricks", BAG_OF_TRICKS),
        Variant(
            "agw",
            "fast-reid AGW (left out: non-local blocks)",
            BAG_OF_TRICKS,
            ("MODEL.HEADS.POOL_LAYER", "GeneralizedMeanPooling", *weighted),
        ),
        Variant(
            "sbs",
            "fast-reid SBS (left out: non-local blocks, larger images, frozen start, 16 images a person)",
            BAG_OF_TRICKS,
            circle,
        ),
    ]


def table_10() -> list[Variant]:
    """The ablation on SynthCC with fast-reid's methods beside it."""
    return [*ablation(METHOD, load_config(_file(METHOD)).MODEL.LOSSES.NAME), *outside_baselines()]


def chosen(variants: Sequence[Variant], names: Sequence[str]) -> list[Variant]:
    """Those of these names, in the table's order; without names, all that are not extra.

    Raises:
        ClearError: an unknown name; tells the nearest one.
    """
    known = [variant.name for variant in variants]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ClearError(f"--variants {name}: no such variant. Did you mean {near}? Known: {', '.join(known)}.")
    return [variant for variant in variants if (variant.name in names if names else not variant.extra)]


def _file(config: str) -> str:
    from fastreid_clip3d.demo.stages import REPOSITORY

    return str(REPOSITORY / config)
