"""Tables 2 to 8 on the licensed datasets: the configs of each column, and the runs whose datasets are here."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.errors import ClearError
from tools.study import paper, results
from tools.study.repository import REPOSITORY
from tools.study.study import Study
from tools.study.variants import Variant

# By table: the name of the config below configs/CLIP3D and configs/Baselines, and for each protocol the paper's column.
COLUMNS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "2": {"celeb": {"general": paper.CELEB}, "celeb_light": {"general": paper.LIGHT}},
    "3": {
        "celeb_blur": {"general": "Celeb-reID (blur)"},
        "celeb_light_blur": {"general": "Celeb-reID-light (blur)"},
    },
    "4": {"ltcc": {"CC": "LTCC"}, "prcc": {"CC": "PRCC"}},
    "5": {
        "ccvid": {"general": "CCVID, general", "CC": "CCVID, cloth-changing"},
        "celeb_to_ccda": {"general": "CCDA"},
    },
    "6": {"deepchange": {"general": "DeepChange"}},
    "7": {"market1501": {"general": "Market-1501"}, "msmt17": {"general": "MSMT17"}},
    "8": {"ltcc_to_prcc": {"CC": "LTCC to PRCC"}, "prcc_to_ltcc": {"CC": "PRCC to LTCC"}},
}
METHODS = {
    "clip3d": ("CLIP3DReID", "configs/CLIP3D/{}.yml"),
    "bagtricks": ("fast-reid bag of tricks", "configs/Baselines/{}_bagtricks.yml"),
    "AGW": ("fast-reid AGW", "configs/Baselines/{}_AGW.yml"),
    "SBS": ("fast-reid SBS", "configs/Baselines/{}_SBS.yml"),
    "MGN": ("fast-reid MGN", "configs/Baselines/{}_MGN.yml"),
}
USUAL = ("clip3d", "bagtricks")


def table_of_datasets(number: str) -> list[Variant]:
    """The rows of a table: for each dataset our method and those methods of fast-reid that have a config for it."""
    rows = []
    for dataset, columns in COLUMNS[number].items():
        for method, (title, pattern) in METHODS.items():
            config = pattern.format(dataset)
            if not (REPOSITORY / config).is_file():
                continue
            cfg = load_config(str(REPOSITORY / config))
            where = next(iter(columns.values())).partition(",")[0]
            rows.append(
                Variant(
                    f"{dataset}_{method}",
                    f"{title}, {where}",
                    config,
                    teacher=method == "clip3d",
                    tests=tuple(cfg.DATASETS.TESTS),
                    extra=method not in USUAL,
                )
            )
    return rows


def paper_score(number: str, variant: str, protocol: str) -> paper.Score | None:
    """The paper's score for a row and a protocol; None for rows other than CLIP3DReID's."""
    dataset, _, method = variant.rpartition("_")
    column = COLUMNS.get(number, {}).get(dataset, {}).get(protocol)
    if method != "clip3d" or column is None:
        return None
    return paper.TABLES[number]["CLIP3DReID"][column]


class DatasetStudy(Study):
    """A table on the licensed datasets below `data_folder`."""

    def prepare(self) -> None:
        """Looks for the datasets and bodies of each row, and caches the teacher's answers per training set."""
        for variant in list(self.variants):
            missing = self.missing(variant)
            if not missing and variant.teacher:
                missing = self.cache_or_why_not(variant.config, self.cache_options(variant))
            if missing:
                self.leave_out(variant, missing)

    def own_options(self, variant: Variant) -> dict[str, str]:
        options = self.cache_options(variant)
        return dict(zip(options[::2], options[1::2]))

    def cache_options(self, variant: Variant) -> list[str]:
        """Names the cache of the teacher's answers: each training set has its own."""
        if not variant.teacher:
            return []
        names = load_config(str(REPOSITORY / variant.config), [*variant.options, *self.options]).DATASETS.NAMES
        return ["MODEL.TEACHER.CACHE_DIR", str(self.data_folder / "teacher_cache" / "_".join(names))]

    def missing(self, variant: Variant) -> str:
        """What a row needs and does not find, and how to get it; "" if nothing is missing."""
        from fastreid_clip3d.body.synthetic_index import read_index
        from fastreid_clip3d.data.datasets.from_config import dataset_of
        from fastreid_clip3d.data.synthetic_bodies import synthetic_folder

        cfg = load_config(str(REPOSITORY / variant.config), [*variant.options, *self.options])
        reasons = []
        for name in dict.fromkeys((*cfg.DATASETS.NAMES, *cfg.DATASETS.TESTS)):
            try:
                dataset_of(cfg, name)
            except (ClearError, RuntimeError) as error:
                reasons.append(" ".join(str(error).split()))
        if variant.teacher and cfg.DATALOADER.SYNTHETIC_PER_BATCH:
            try:
                read_index(synthetic_folder(cfg.DATASETS.SYNTHETIC))
            except ClearError as error:
                reasons.append(str(error))
        return " And: ".join(reasons)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """A line per row and protocol, with the paper's CLIP3DReID in the last column."""
        groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
        for row in rows:
            groups.setdefault((row["variant"], row["dataset"], row["protocol"]), []).append(row)
        lines = []
        for (variant, _, protocol), own in groups.items():
            values = ([row[metric] for row in own if row[metric] is not None] for metric in results.SHOWN)
            metrics = [results.text_of(numbers) for numbers in values]
            minutes = statistics.fmean(row["minutes"] for row in own)
            score = paper_score(self.number, variant, protocol)
            printed = results.pair(score) if score else ""
            lines.append([own[0]["title"], protocol, len(own), *metrics, f"{minutes:.0f}", printed])
        headers = ["", "protocol", "seeds", *results.SHOWN, "minutes per run", "paper, mAP / Rank-1"]
        return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)

    def commands(self) -> list[str]:
        """The commands of all runs in order; the teacher's answers are cached before the first run of a config."""
        lines, cached = [], set()
        for run in self.runs():
            if run.variant.teacher and run.variant.config not in cached:
                cached.add(run.variant.config)
                arguments = ["--config-file", run.variant.config, *self.cache_options(run.variant), *self.options]
                lines.append(shlex.join(["clip3d", "cache-teacher", *arguments]))
            lines.append(run.printable_command())
        return lines
