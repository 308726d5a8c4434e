"""The rows of a study: a config file, the keys that differ from it, and a title in the paper's words.

Two of the paper's names are ambiguous; we read them as follows. ``w/o L_OT`` leaves out both terms, L_OT on the real
and L_OT^syn on the synthetic images. ``w/o L_3D-Regu`` leaves out L_3D and keeps L_OT^syn: without both, no loss would
use the synthetic images, and the row would equal ``w/o synthetic mesh images``.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.errors import ClearError
from tools.study.repository import REPOSITORY
from tools.study.true_answers import EMBEDDINGS, LABELS

METHOD = "configs/CLIP3D/synthcc.yml"
BAG_OF_TRICKS = "configs/Baselines/synthcc_bagtricks.yml"
OT, GLOBAL, BODY, TRIPLET = "OTLoss", "GlobalDistillLoss", "BodyShapeLoss", "TripletLoss"
CROSS_ENTROPY, CLOTHES = "CrossEntropyLoss", "ClothesAdversarialLoss"
SCENE_BODIES = "SyntheticBodies-scene"


@dataclass(frozen=True)
class Variant:
    """One row.

    Attributes:
        name: name of its folder.
        title: its title in the table.
        config: a file below the repository.
        options: ``KEY VALUE`` pairs on top of the config.
        teacher: whether it trains with the teacher's answers, which are then cached first.
        cache: folder of these answers below the data folder; "": the default one.
        truth: which answers are true ones, see study/true_answers.py.
        tests: datasets that score it; (): those of the study's split.
        home: folder below the study folder, for a row that another table has as well; "": its own folder.
        extra: it only runs if the user names it.
    """

    name: str
    title: str
    config: str
    options: tuple[str, ...] = ()
    teacher: bool = False
    cache: str = ""
    truth: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    home: str = ""
    extra: bool = False


def ablation(config: str, names: Iterable[str]) -> list[Variant]:
    """The six rows of the paper's Table 10, from a config of the method with the losses `names`."""
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
    """fast-reid's own methods with the study's student, images and iterations; the titles say what is left out."""
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
            "fast-reid SBS (left out: non-local blocks, larger images, frozen start, 16 images per person)",
            BAG_OF_TRICKS,
            circle,
        ),
    ]


def table_10() -> list[Variant]:
    """The ablation on SynthCC, fast-reid's methods, and the extra rows."""
    return [*synthcc_ablation(), *outside_baselines(), *other_guidance(), *with_triplet(), *with_true_answers()]


def other_guidance() -> list[Variant]:
    """Other guidance for the method's student: CAL, the true shape without any CLIP, grey bodies in scenes."""

    def losses(name: str) -> tuple[str, ...]:
        return "MODEL.LOSSES.NAME", repr((CROSS_ENTROPY, name)), "DATALOADER.SYNTHETIC_PER_BATCH", "0"

    return [
        Variant(
            "cal",
            "CAL, the clothes-based adversarial loss, from the second of four epochs on",
            METHOD,
            (*losses(CLOTHES), "MODEL.LOSSES.CLOTHES_ADVERSARIAL.START_EPOCH", "1"),
            extra=True,
        ),
        Variant(
            "true_shape_alone",
            "L_global alone, true shape as g",
            METHOD,
            (*losses(GLOBAL), "MODEL.TEACHER.MODE", "cached"),
            teacher=True,
            cache="teacher_cache_true_shape",
            truth=(LABELS, EMBEDDINGS),
            extra=True,
        ),
        Variant(
            "scene_bodies",
            "CLIP3DReID, grey bodies in SynthCC's scenes",
            METHOD,
            ("DATASETS.SYNTHETIC", SCENE_BODIES),
            teacher=True,
            extra=True,
        ),
    ]


def synthcc_ablation() -> list[Variant]:
    """The paper's six rows on SynthCC-tiny."""
    return ablation(METHOD, load_config(str(REPOSITORY / METHOD)).MODEL.LOSSES.NAME)


def with_triplet() -> list[Variant]:
    """The method and its own baseline with fast-reid's triplet loss, which the outside baselines have."""
    rows = {variant.name: variant for variant in synthcc_ablation()}
    made = []
    for name in ("full", "without_all"):
        names = load_config(str(REPOSITORY / METHOD), rows[name].options).MODEL.LOSSES.NAME
        losses = ("MODEL.LOSSES.NAME", repr((*names, *(loss for loss in (TRIPLET,) if loss not in names))))
        others = [text for pair in _pairs(rows[name].options) for text in pair if pair[0] != losses[0]]
        others += ["DATALOADER.NUM_INSTANCE", "4"]  # as in the outside baselines; it compares images of a person
        title = f"{rows[name].title}, with triplet loss"
        made.append(
            dataclasses.replace(rows[name], name=f"{name}_triplet", title=title, options=(*losses, *others), extra=True)
        )
    return made


def _pairs(options: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(options[::2], options[1::2]))


def with_true_answers() -> list[Variant]:
    """Upper bounds on what a better teacher can reach: the true descriptors of the rendered people."""
    cached = ("MODEL.TEACHER.MODE", "cached")  # a cache that does not fit is an error, never replaced by the teacher
    rows = []
    for name, title, truth in (
        ("true_labels", "true labels in place of the teacher's", (LABELS,)),
        ("true_shape", "true labels and true shape as g", (LABELS, EMBEDDINGS)),
    ):
        rows.append(
            Variant(
                name,
                f"CLIP3DReID, {title}",
                METHOD,
                cached,
                teacher=True,
                cache=f"teacher_cache_{name}",
                truth=truth,
                home=f"table10/{name}",
                extra=True,
            )
        )
    return rows


def table_11(teachers: Sequence[str]) -> list[Variant]:
    """One row per teacher, and the rows with true answers. The embedded teacher's row is Table 10's first."""
    rows = []
    for teacher in teachers:
        name, pretrained = split_teacher(teacher)
        options = ("MODEL.TEACHER.NAME", name, "MODEL.TEACHER.PRETRAINED", repr(pretrained))
        embedded = name == "embedded"
        rows.append(
            Variant(
                folder_name(teacher),
                f"teacher {teacher}",
                METHOD,
                () if embedded else options,
                teacher=True,
                home="table10/full" if embedded else "",
            )
        )
    return [*rows, *(dataclasses.replace(row, extra=False) for row in with_true_answers())]


def split_teacher(teacher: str) -> tuple[str, str]:
    """``MODEL.TEACHER.NAME`` and ``PRETRAINED`` of "embedded", "ViT-B-32:openai" or "local-dir:..."."""
    if teacher.startswith(("local-dir:", "hf-hub:")):
        return teacher, ""
    name, _, pretrained = teacher.partition(":")
    return name, pretrained


def folder_name(teacher: str) -> str:
    """A name of a folder for a teacher."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", teacher).strip("_")


def table_cross() -> list[Variant]:
    """Rows trained on people with constant, or with redrawn, skin and hair; each is tested on both kinds."""
    natural, shape_only = "SynthCCTiny", "SynthCCTinyShapeOnly"
    rows = []
    for train, name in ((natural, "natural"), (shape_only, "shape_only")):
        for variant in [*synthcc_ablation(), *outside_baselines()]:
            if variant.name not in ("full", "without_all", "bagtricks"):
                continue
            own = {} if train == natural else {"options": (*variant.options, "DATASETS.NAMES", repr((train,)))}
            if train == shape_only and variant.teacher:
                own["cache"] = "teacher_cache_shape_only"
            rows.append(
                dataclasses.replace(
                    variant,
                    name=f"{name}_{variant.name}",
                    title=f"{variant.title}, trained on {name.replace('_', '-')}",
                    tests=(natural, shape_only),
                    home=f"table10/{variant.name}" if train == natural else "",
                    **own,
                )
            )
    return rows


def chosen(variants: Sequence[Variant], names: Sequence[str]) -> list[Variant]:
    """The variants with these names, in the table's order; without names, all that are not extra.

    Raises:
        ClearError: a name is unknown; the message has the nearest one.
    """
    known = [variant.name for variant in variants]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ClearError(f"--variants {name}: no such variant. Did you mean {near}? Known: {', '.join(known)}.")
    return [variant for variant in variants if (variant.name in names if names else not variant.extra)]
