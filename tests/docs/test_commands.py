"""README.md and docs/*.md cannot go stale: every command and every Python block in them is run, in a miniature world.

What stands in for licensed, downloaded or large things is in stand_ins.py, with the reason for each.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from fastreid_clip3d.cli import VERBS
from tests.conftest import REPOSITORY
from tests.docs.commands import Command, Document, PythonBlock, documents, read_document
from tests.docs.in_process import as_in_a_shell, run_tool
from tests.docs.stand_ins import RULES, TRAINING_KEYS
from tests.docs.steps import Reader
from tests.docs.tool_help import help_of
from tests.docs.world import copy_world, draw

PAGES = {page.name: page for page in (read_document(path, REPOSITORY) for path in documents(REPOSITORY))}
OWN_MODULE = "my_reid"
"""Blocks that register a class are its source; the one that imports it is a script."""


def defines_a_module(page: Document) -> bool:
    return any(isinstance(step, PythonBlock) and f"import {OWN_MODULE}" in step.code for step in page.steps)


def needs_the_module(step: Command | PythonBlock) -> bool:
    """Whether it runs only where the reader's module lies, or is a part of it."""
    if isinstance(step, PythonBlock):
        return "_REGISTRY.register()" in step.code or f"import {OWN_MODULE}" in step.code
    return OWN_MODULE in step.text


@pytest.fixture
def reader(world: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Reader:
    """A reader of the test's page, with the data set that the page shows as CSV, if it shows one."""
    place = copy_world(world, tmp_path / "world")
    page = PAGES[request.node.callspec.params["name"]]
    for text in page.csv_blocks:
        (place / "my_data.csv").write_text(text, encoding="utf-8")
        for number, row in enumerate(csv.DictReader(io.StringIO(text))):
            draw(place / row["path"], (20 * number, 60, 90), np.random.default_rng(number))
    return Reader(place)


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if page.steps])
def test_every_command_and_python_block_runs_in_order(name: str, reader: Reader) -> None:
    for step in PAGES[name].steps:
        if not needs_the_module(step):
            reader.take(step)


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if defines_a_module(page)])
def test_classes_of_ones_own_register_parse_and_train(name: str, reader: Reader) -> None:
    blocks = [step.code for step in PAGES[name].steps if isinstance(step, PythonBlock) and needs_the_module(step)]
    scripts = [code for code in blocks if f"import {OWN_MODULE}" in code]
    assert len(scripts) == 1
    network = (
        "import torch\n\n\nclass MyNetwork(torch.nn.Sequential):\n    def __init__(self, pretrained=''):\n"
        "        super().__init__(torch.nn.Conv2d(3, 16, 8, 8), torch.nn.ReLU())\n"
    )  # the reader's own; any network with a feature map
    module = "\n\n".join([network, *(code for code in blocks if code not in scripts)])
    world = reader.world
    (world / f"{OWN_MODULE}.py").write_text(module, encoding="utf-8")
    (world / "train.py").write_text(scripts[0], encoding="utf-8")
    generator = np.random.default_rng(0)
    for person in range(1, 9):
        for split, cameras in (("train", (1, 2)), ("query", (3,)), ("gallery", (1, 2))):
            for outfit in (1, 2):
                for camera in cameras:
                    image = world / "datasets" / "Campus" / split / f"{person}_{outfit}_c{camera}.jpg"
                    draw(image, (25 * person, 90 * outfit, 80), generator)
    options = {
        **TRAINING_KEYS,
        "MODEL.META_ARCHITECTURE": "ShapeMargin",
        "MODEL.BACKBONE.NAME": "build_my_backbone",
        "MODEL.BACKBONE.FEAT_DIM": "16",
        "MODEL.BACKBONE.PRETRAIN": "False",
        "DATASETS.NAMES": "('Campus',)",
        "DATASETS.TESTS": "('Campus',)",
        "DATASETS.SYNTHETIC": "demo/SyntheticBodies",
        "DATALOADER.SYNTHETIC_PER_BATCH": "4",
        "WRITE_PERIOD": "1",
        "OUTPUT_DIR": "logs/own",
    }
    pairs = [text for pair in options.items() for text in pair]
    assert run_tool(["train.py", "--config-file", "configs/CLIP3D/synthcc.yml", *pairs], world, {}) == 0
    lines = [json.loads(line) for line in (world / "logs" / "own" / "metrics.json").read_text().splitlines()]
    trained = [line for line in lines if "loss_cls" in line]
    assert trained and all(line["loss_length"] > 0 for line in trained)
    assert any("Campus/CC/mAP" in line and "Campus/general/mAP" in line for line in lines)
    commands = [step for step in PAGES[name].steps if not isinstance(step, PythonBlock) and OWN_MODULE in step.text]
    assert commands
    reader.environment["FASTREID_DATASETS"] = "datasets/demo"
    for command in commands:
        reader.take(command)


@pytest.mark.parametrize("name", list(PAGES))
def test_what_a_sentence_mentions_exists_and_has_the_options(name: str) -> None:
    for mention in PAGES[name].mentions:
        words = mention.text.split()
        if words[0] == "clip3d":
            assert words[1] in VERBS, mention
        else:
            assert (REPOSITORY / words[0]).is_file(), mention
        named = [words[0], *(word for word in words[1:2] if re.fullmatch(r"[a-z][a-z-]*", word))]
        known = help_of(*named)
        for option in re.findall(r"(?<!\S)--[a-z][\w-]*", mention.text):
            assert option in known, f"{mention}: --help of {' '.join(named)} does not know {option}"


@pytest.mark.parametrize("name", list(PAGES))
def test_links_and_pictures_point_to_files_that_are_there(name: str) -> None:
    folder = (REPOSITORY / name).parent
    for line, target in PAGES[name].links:
        path = target.split("#")[0]
        if path and not re.match(r"[a-z]+:", path):
            assert (folder / path).exists(), f"{name}:{line}: there is no {path}"


def test_a_stale_command_is_noticed(world: Path) -> None:
    """The tests above can fail: each kind of mistake that a page can have."""
    mistakes = {
        "python tools/gone.py": "there is no tools/gone.py",
        "clip3d gone": "clip3d has no verb gone",
        "python -m fastreid_clip3d gone": "clip3d has no verb gone",
        "torchrun --nproc-per-node 2 -m fastreid_clip3d gone": "clip3d has no verb gone",
        "torchrun --nproc-per-node 2 -m fastreid_clip3d train --gone": "refused by the parser",
        "clip3d evaluate --features ltcc.npz --protocol-names CC": "refused by the parser",
        "clip3d evaluate --features gone.npz": "ended with code 2",
        "python tools/train_net.py --config-file configs/CLIP3D/celeb.yml MODEL.LOSSES.OT.ITERS 3": "ended with code 2",
        "make everything": "the Makefile has no everything",
        "pip install easypytorch3d==0.0.1": "not what make setup installs",
        "export FASTREID_DATA=x": "nothing reads FASTREID_DATA",
        "source venv/bin/activate": "make setup makes",
        "tensorboard --logdir logs/gone": "no events",
        "conda activate reid": "no program",
        "clip3d evaluate --features ltcc.npz | tee log": "run by itself",
    }
    for text, words in mistakes.items():
        with pytest.raises(AssertionError, match=words):
            Reader(world).take(Command("page.md", 1, text))


def test_every_rule_says_why_and_fits_a_verb_or_tool_that_exists() -> None:
    known = {*VERBS, *(path.stem for path in REPOSITORY.glob("tools/**/*.py"))}
    for rule in RULES:
        assert rule.why
        assert known.issuperset(rule.tool.split("|")), rule.tool


def test_a_command_leaves_this_process_as_it_was(world: Path) -> None:
    import os
    import sys

    before = os.getcwd(), dict(os.environ), list(sys.path)
    with as_in_a_shell(world, {"FASTREID_DATASETS": "elsewhere"}):
        sys.path.append("elsewhere")
        os.environ["ANOTHER"] = "1"
    assert (os.getcwd(), dict(os.environ), list(sys.path)) == before
