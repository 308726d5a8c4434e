"""What stands in for licensed, downloaded or large things when a documented command is run: a table of rules.

Every command line is parsed as it is documented before a rule changes it. All rules that fit are applied, in order.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

TEACHER = "local-dir:teacher"


def in_this_process(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess:
    """The evaluation benchmark's children, without starting Python for each."""
    from tools.benchmark.evaluation import _child

    if command[-2] != "tools.benchmark.evaluation":  # Cython's compiler
        return subprocess.CompletedProcess(command, 1, "", "left out here")
    return subprocess.CompletedProcess(command, 0, json.dumps(_child(json.loads(command[-1]))), "")


def few_people(**more: int) -> dict[str, Any]:
    """SynthCC's sets with one person of each population; `more`: other counts."""
    from dataclasses import replace

    from fastreid_clip3d.synthcc.plan import SETS

    few = {"train_people": 1, "test_people": 1, "val_people": 1, "outfits": 2, "images_per_outfit": 2}
    few |= more
    return {name: replace(config, **few, height=32, width=16) for name, config in SETS.items()}


def shipped_bodies(progress: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result of building the body models: the shipped file's arrays."""
    from fastreid_clip3d.body.archives import read_npz
    from fastreid_clip3d.body.files import EMBEDDED

    return read_npz(EMBEDDED), {}


@dataclass(frozen=True)
class StandIn:
    """Applies to commands whose arguments match `where` and not `unless`.

    Args:
        tool: regular expression of a verb, or of a file's name below tools/ (``tools/train_net.py`` is train).
        why: what is licensed or large.
        flags: options that get these values, documented or not; a tuple is several words.
        keys: ``KEY VALUE`` pairs at the end.
        drop: options to leave out, with this many words behind them.
        patches: "package.module.name" -> value, or a function that makes it at the time.
        exit_codes: that the command may end with.
    """

    tool: str
    where: str
    why: str
    unless: str = r"(?!)"
    flags: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    drop: Mapping[str, int] = field(default_factory=dict)
    patches: Mapping[str, Any] = field(default_factory=dict)
    made_patches: Mapping[str, Any] = field(default_factory=dict)
    exit_codes: tuple[int, ...] = (0,)

    def fits(self, words: Sequence[str]) -> bool:
        name, start = name_of(words)
        text = " ".join(words[start:])
        of_tool = re.fullmatch(self.tool, name)
        return bool(of_tool and re.search(self.where, text) and not re.search(self.unless, text))

    def apply(self, words: Sequence[str]) -> list[str]:
        words = list(words)
        for name, behind in self.drop.items():
            while name in words:
                place = words.index(name)
                del words[place : place + 1 + behind]
        for name, value in self.flags.items():
            words = with_flag(words, name, (value,) if isinstance(value, str) else value)
        return words + [text for pair in self.keys.items() for text in pair]


def name_of(words: Sequence[str]) -> tuple[str, int]:
    """The verb or the tool's name without ending, and where its arguments begin."""
    if words[0] == "clip3d":
        return (words[1], 2) if len(words) > 1 else ("", 1)
    name = re.sub(r"^tools/(?:\w+/)*|\.py$", "", words[0])
    return "train" if name == "train" else name, 1


def with_flag(words: Sequence[str], name: str, values: Sequence[str]) -> list[str]:
    """Gives an option these values; a new one stands behind the verb or tool (and its sub-command)."""
    words = list(words)
    if name in words:
        start = end = words.index(name) + 1
        most = 1 if len(values) == 1 else len(words)
        while end < len(words) and not re.match(r"--?[a-z]", words[end]) and end - start < most and values:
            end += 1
        return [*words[:start], *values, *words[end:]]
    name_of_tool, place = name_of(words)
    place += name_of_tool in ("benchmark", "visualize")
    return [*words[:place], name, *values, *words[place:]]


LICENSED = r"\b(CLIP3D|Baselines)/(?!synthcc|students)"
TRAINING_KEYS = {
    "MODEL.DEVICE": "cpu",
    "INPUT.SIZE_TRAIN": "[64, 32]",
    "INPUT.SIZE_TEST": "[64, 32]",
    "DATALOADER.NUM_WORKERS": "0",
    "DATALOADER.NUM_INSTANCE": "2",
    "SOLVER.IMS_PER_BATCH": "16",
    "SOLVER.MAX_EPOCH": "1",
    "SOLVER.WARMUP_ITERS": "0",
    "SOLVER.WARMUP_EPOCHS": "0",
    "SOLVER.AMP.ENABLED": "False",
    "TEST.PRECISE_BN.ENABLED": "False",
}
SMALL_STUDENT = {
    "MODEL.BACKBONE.PRETRAIN": "False",
    "MODEL.BACKBONE.NAME": "build_osnet_backbone",
    "MODEL.BACKBONE.DEPTH": "x0_25",
    "MODEL.BACKBONE.FEAT_DIM": "128",
}
TINY_TEACHER = {"MODEL.TEACHER.NAME": TEACHER, "MODEL.TEACHER.PRETRAINED": "''"}

RULES: tuple[StandIn, ...] = (
    StandIn("train", "", "hours of training: one epoch of a few small images", keys=TRAINING_KEYS),
    StandIn(
        "train",
        r"\bCLIP3D/",
        "the batch's synthetic half, as small",
        keys={"DATALOADER.SYNTHETIC_PER_BATCH": "4"},
    ),
    StandIn(
        "loss_weights",
        "",
        "large batches: a few small images",
        flags={"--batches": "1"},
        keys={**TRAINING_KEYS, "DATALOADER.SYNTHETIC_PER_BATCH": "4"},
    ),
    StandIn("train", r"\bCLIP3D/students/", "weights are a download", keys={"MODEL.BACKBONE.PRETRAIN": "False"}),
    StandIn("train", "eva02_large", "304 million weights, for a GPU", keys=SMALL_STUDENT),
    StandIn(
        "train|cache-teacher",
        LICENSED,
        "CLIP and ImageNet's weights are downloads, ResNet-50 is large",
        unless="MODEL.TEACHER.NAME embedded",
        keys={**SMALL_STUDENT, **TINY_TEACHER, "MODEL.DEVICE": "cpu"},
    ),
    StandIn(
        "train|cache-teacher",
        r"\b(CLIP3D|Baselines)/(?!celeb\.|celeb_(AGW|MGN|SBS|bagtricks)\.|synthcc|students)",
        "licensed data: Celeb-reID's stand-in for that of the config, whose reading tests/data tests",
        keys={"DATASETS.NAMES": "('CelebReID',)", "DATASETS.TESTS": "('CelebReID',)"},
    ),
    StandIn("train", "MyData", "two people train in the page's eight lines of CSV", keys={"SOLVER.IMS_PER_BATCH": "4"}),
    StandIn("train", "MODEL.COMPILE True", "compiling takes minutes on a CPU", keys={"MODEL.COMPILE": "False"}),
    StandIn(
        "train",
        "--num-gpus|--num-machines",
        "GPUs; several processes: tests/engine/test_two_processes.py",
        flags={"--num-gpus": "1", "--num-machines": "1", "--machine-rank": "0"},
    ),
    StandIn(
        "crops",
        "--weights",
        "a detector's weights are a download",
        flags={"--boxes": "walk.txt"},
        drop={"--weights": 1},
    ),
    StandIn("cache-teacher", "", "processes that read images start slowly", flags={"--workers": "0"}),
    StandIn(
        "label",
        "--teacher ViT",
        "CLIP's weights are a download",
        flags={"--teacher": TEACHER, "--pretrained": ""},
    ),
    StandIn(
        "label",
        "--teacher (local-dir|hf-hub)",
        "a folder of the reader",
        flags={"--teacher": TEACHER},
    ),
    StandIn(
        "render-bodies",
        "",
        "10,000 pictures",
        unless="--sheet",
        flags={"--bodies": "6", "--poses-per-body": "1", "--size": ("32", "16"), "--workers": "1"},
    ),
    StandIn(
        "render-bodies",
        "--sheet",
        "400 bodies of each sex are measured for their extremes",
        patches={"fastreid_clip3d.body.sheets.EXTREMES_OF": 20},
    ),
    StandIn(
        "render-people",
        "",
        "thousands of pictures; a set's size is no option",
        unless="--sheet",
        flags={"--workers": "1"},
        made_patches={"fastreid_clip3d.synthcc.plan.SETS": few_people},
    ),
    StandIn(
        "reliance",
        "",
        "thousands of pictures: two renderings of three people",
        flags={"--workers": "1", "--root": "few_people"},
        made_patches={"fastreid_clip3d.synthcc.plan.SETS": lambda: few_people(test_people=3, images_per_outfit=4)},
    ),
    StandIn("render-people", "--sheet", "fewer rows", flags={"--people": "1"}),
    StandIn(
        "leakage",
        "",
        "minutes; with two people the checks themselves may fail, which is exit code 1",
        flags={"--people": "2"},
        exit_codes=(0, 1),
    ),
    StandIn(
        "train_teacher",
        "",
        "half an hour",
        flags={
            "--people": "2",
            "--grey": "2",
            "--steps": "2",
            "--held-out": "1",
            "--batch": "2",
            "--workers": "1",
        },
        patches={"tools.assets.teacher.people.CHUNK": 2},
        made_patches={"tools.assets.teacher.recipe.TrainingSettings": lambda: _few_text_steps()},
    ),
    StandIn(
        "train_teacher",
        "--install",
        "would replace the package's own teacher",
        made_patches={"tools.assets.teacher.recipe.EMBEDDED_FOLDER": lambda: _path("installed_teacher")},
    ),
    StandIn(
        "build_body_models",
        "",
        "anny takes minutes: its result is the shipped file; not written over that",
        unless="--check",
        flags={"--output": "bodies.npz"},
        patches={"tools.assets.bodies.build.build_models": shipped_bodies},
    ),
    StandIn("build_body_models", "--table", "measures 4,000 bodies: a few", flags={"--bodies": "3"}),
    StandIn(
        "build_body_models",
        "--check",
        "anny takes minutes: its result is the shipped file",
        patches={"tools.assets.bodies.build.build_models": shipped_bodies},
    ),
    StandIn(
        "demo",
        "",
        "`make demo` takes minutes: its stages are named, not run",
        patches={
            "tools.study.demo.stages.Demo._stage": lambda self, title, work: self.seconds.setdefault(title, 0.0),
            "tools.study.demo.stages.Demo.rows": [],
            "tools.study.demo.stages.Demo.learned": "",
        },
    ),
    StandIn(
        "reproduce",
        "--table (10|11|cross|[2-8])\\b",
        "days of training; studies are run by tests/study",
        unless="--list|--dry-run|--tables-only",
        flags={"--dry-run": ()},
    ),
    StandIn(
        "reproduce",
        "--table (labels|11)",
        "CLIP's weights are a download",
        flags={"--teachers": ("embedded", TEACHER)},
    ),
    StandIn(
        "reproduce",
        "--table 9",
        "the runs of table 10 are hours: the demo's in their place",
        unless="--runs",
        flags={"--runs": "logs/demo/clip3d"},
    ),
    StandIn(
        "reproduce",
        "--table 9",
        "200 bodies, 10,000 points of each",
        flags={"--bodies": "2"},
        made_patches={"tools.study.chamfer.table_9": lambda: _few_points()},
    ),
    StandIn(
        "benchmark",
        "^evaluation",
        "minutes: a small gallery, in this process",
        flags={"--size": "small", "--dims": "16"},
        patches={"tools.benchmark.evaluation.subprocess": mock.Mock(run=in_this_process)},
    ),
    StandIn("benchmark", "^search", "a minute", flags={"--gallery": "1500", "--queries": "2"}),
    StandIn("benchmark", "^export", "a minute", flags={"--seconds": "0.01", "--batch": ("1", "2")}),
    StandIn(
        "benchmark",
        "^students",
        "minutes, and weights of 24 networks",
        flags={"--only": "x0_25", "--repeats": "0", "--batch": "1"},
    ),
    StandIn(
        "benchmark",
        "^ot",
        "seconds per step",
        flags={
            "--batch": "2",
            "--patches": "8",
            "--width": "32",
            "--text-width": "16",
            "--repeats": "1",
        },
    ),
    StandIn(
        "benchmark",
        "^label",
        "minutes, and CLIP's weights are a download",
        flags={
            "--teacher": TEACHER,
            "--pretrained": "",
            "--images": "8",
            "--batch": "4",
            "--workers": "0",
            "--repeats": "1",
        },
    ),
    StandIn(
        "benchmark",
        "^render",
        "PyTorch3D's rasteriser takes one second per picture",
        flags={"--images": "10", "--stock-images": "1", "--size": ("32", "16"), "--repeats": "1", "--threads": "1"},
    ),
    StandIn(
        "benchmark",
        "^step",
        "minutes, and CLIP's weights are a download",
        flags={"--batch": "4", "--steps": "1", "--workers": "0", "--no-online": (), "--device": "cpu"},
        keys={**SMALL_STUDENT, **TINY_TEACHER, "INPUT.SIZE_TRAIN": "[64, 32]", "SOLVER.AMP.ENABLED": "False"},
    ),
    StandIn("benchmark", "--device cuda", "a GPU", flags={"--device": "cpu"}),
    StandIn("gpu_session", "", "a GPU, half an hour", unless="--list", flags={"--only": "doctor", "--device": "cpu"}),
    StandIn(
        "offline_bundle",
        "",
        "wheels come from the package index; tests/tools/test_offline_bundle.py downloads them",
        patches={"tools.offline.bundle.fetch": lambda *given: []},
    ),
    StandIn(
        "evaluate|extract|check-model",
        "--model (timm:|open_clip:ViT)",
        "weights are a download",
        flags={"--model": "open_clip:embedded"},
    ),
    StandIn("check-model|extract", "--model hf-hub:", "a download: a run", flags={"--model": "logs/demo/clip3d"}),
    StandIn(
        "check-model",
        "market_sbs_R50.pth",
        "fast-reid's weights are a download: a run's checkpoint and config",
        flags={"--model": "logs/demo/clip3d/model_final.pth", "--config": "logs/demo/clip3d/config.yaml"},
    ),
    StandIn("push", "", "an upload", unless="--local", flags={"--local": "pushed"}),
    StandIn(
        "evaluate|calibrate|search|extract|visualize|label|render-bodies|train_teacher",
        "--device cuda",
        "a GPU",
        flags={"--device": "cpu"},
    ),
)


def _few_text_steps() -> Any:
    from functools import partial

    from tools.assets.teacher.settings import TrainingSettings

    return partial(TrainingSettings, text_steps=2)


def _few_points() -> Any:
    from functools import partial

    from tools.study.chamfer import table_9

    return partial(table_9, points=200)


def _path(name: str) -> Any:
    from pathlib import Path

    return Path(name).absolute()


PYTHON_RULES: tuple[tuple[str, str, str], ...] = (
    (r"num_people=\d+", "num_people=2", "thousands of people are minutes"),
    (
        r'(?<=\["OUTPUT_DIR", "logs/notebook")(?=\])',
        "".join(
            f', "{word}"' for pair in {**TRAINING_KEYS, "DATALOADER.SYNTHETIC_PER_BATCH": "4"}.items() for word in pair
        ),
        "minutes of training",
    ),
)
"""(regular expression, replacement, why) for Python blocks."""
