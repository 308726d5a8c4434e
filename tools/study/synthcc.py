"""Studies on the rendered benchmark SynthCC-tiny: what they need on disk beyond the data of the demo."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.teacher.guidance import cache_folder
from tools.study.demo import Demo
from tools.study.demo.stages import REPOSITORY
from tools.study.study import Study
from tools.study.true_answers import write_true_answers
from tools.study.variants import METHOD, Variant

CACHE_KEYS = ("MODEL.TEACHER.NAME", "MODEL.TEACHER.PRETRAINED", "DATASETS.NAMES")
TEST_SETS = {"test": "SynthCCTiny", "val": "SynthCCTinyVal"}


class SynthCCStudy(Study):
    """A table on SynthCC-tiny; `data_folder` is the demo's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.demo = Demo(self.data_folder, self.folder)  # names the data folder in this process's environment

    def own_options(self, variant: Variant) -> dict[str, str]:
        own = {
            "MODEL.BACKBONE.PRETRAIN_PATH": str(self.demo.pretrained),
            "WRITE_PERIOD": "20",
            "SOLVER.CHECKPOINT_PERIOD": "1",
            "DATALOADER.NUM_WORKERS": "1" if self.threads == 1 else "2",
        }
        if variant.cache:
            own["MODEL.TEACHER.CACHE_DIR"] = str(self.data_folder / variant.cache)
        return own

    def tests(self, variant: Variant) -> tuple[str, ...]:
        return variant.tests or (TEST_SETS[self.split],)

    def prepare(self) -> None:
        """Data, ImageNet weights, and the teacher's answers for the rows that ask for them; what is there stays."""
        self.demo.prepare()
        if any("SynthCCTinyShapeOnly" in variant.tests for variant in self.variants):
            self.tool("render_people.py", "--root", str(self.data_folder), "--variant", "shape-only")
        made: dict[tuple[str, ...], str] = {}
        for variant in list(self.variants):
            if not variant.teacher:
                continue
            options = self._cache_options(variant)
            if options not in made:
                made[options] = self.cache_or_why_not(METHOD, options)
            if made[options]:
                self.leave_out(variant, made[options])
            elif variant.truth:
                self.write_true_answers(options, variant)

    def _cache_options(self, variant: Variant) -> tuple[str, ...]:
        """What decides a teacher's own cache: the teacher, the training images and the cache's folder."""
        pairs = dict(zip(variant.options[::2], variant.options[1::2]))
        options = [text for key, value in pairs.items() if key in CACHE_KEYS for text in (key, value)]
        if variant.cache and not variant.truth:
            options += ["MODEL.TEACHER.CACHE_DIR", str(self.data_folder / variant.cache)]
        return tuple(options)

    def write_true_answers(self, options: Sequence[str], variant: Variant) -> Path:
        """The cache of a row that is told the truth, from the one of its teacher."""
        os.environ["FASTREID_DATASETS"] = str(self.data_folder)
        source = cache_folder(load_config(str(REPOSITORY / METHOD), [*options, *self.options]))
        target = self.data_folder / variant.cache / source.name
        return write_true_answers(source, target, self.data_folder / "SynthCC-tiny", variant.truth)
