"""Studies on the rendered benchmark SynthCC-tiny: they prepare what they need beyond the data of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.teacher.guidance import cache_folder
from tools.study.demo import Demo
from tools.study.repository import REPOSITORY
from tools.study.study import Study
from tools.study.true_answers import write_true_answers
from tools.study.variants import METHOD, SCENE_BODIES, Variant

CACHE_KEYS = ("MODEL.TEACHER.NAME", "MODEL.TEACHER.PRETRAINED", "DATASETS.NAMES")
TEST_SETS = {"test": ("SynthCCTiny", "SynthCCTinyShapeOnly"), "val": ("SynthCCTinyVal",)}


class SynthCCStudy(Study):
    """A table on SynthCC-tiny; `data_folder` is that of the demo."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.demo = Demo(self.data_folder, self.folder)

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
        return variant.tests or TEST_SETS[self.split]

    def prepare(self) -> None:
        """Makes data, ImageNet weights and the teacher's answers, each where it is missing."""
        self.demo.prepare()
        if any("SynthCCTinyShapeOnly" in self.tests(variant) for variant in self.variants):
            self.run_verb("render-people", "--root", str(self.data_folder), "--variant", "shape-only")
        if any(SCENE_BODIES in variant.options for variant in self.variants):
            folder = ("--output", str(self.data_folder / SCENE_BODIES))
            like_synthcc = ("--scene", "--framing", "fixed", "--size", "128", "64", "--poses-per-body", "4")
            self.run_verb("render-bodies", *folder, *like_synthcc)
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
        """The keys that decide which cache a teacher has: the teacher, the training images and the folder."""
        pairs = dict(zip(variant.options[::2], variant.options[1::2]))
        options = [text for key, value in pairs.items() if key in CACHE_KEYS for text in (key, value)]
        if variant.cache and not variant.truth:
            options += ["MODEL.TEACHER.CACHE_DIR", str(self.data_folder / variant.cache)]
        return tuple(options)

    def write_true_answers(self, options: Sequence[str], variant: Variant) -> Path:
        """Writes the cache with true answers for a row, from the cache of its teacher; returns its folder."""
        own_folder = ("MODEL.TEACHER.CACHE_DIR", str(self.data_folder / variant.cache))
        source, target = (
            cache_folder(load_config(str(REPOSITORY / METHOD), [*options, *self.options, *more]))
            for more in ((), own_folder)
        )
        return write_true_answers(source, target, self.data_folder / "SynthCC-tiny", variant.truth)
