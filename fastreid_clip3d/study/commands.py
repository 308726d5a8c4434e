"""What tools/reproduce.py does for each table."""

from __future__ import annotations

import argparse

from tabulate import tabulate

from fastreid_clip3d.study import variants
from fastreid_clip3d.study.synthcc import SynthCCStudy


def reproduce(arguments: argparse.Namespace, command: str) -> int:
    """The table that `arguments` ask for; returns the exit code."""
    rows = variants.table_10()
    study = SynthCCStudy(
        "10",
        "Table 10 on SynthCC-tiny: the ablation, and fast-reid's own methods with the same student",
        variants.chosen(rows, arguments.variants),
        rows,
        **_common(arguments),
        command=command,
    )
    return make(study, arguments)


def _common(arguments: argparse.Namespace) -> dict[str, object]:
    names = ("study_folder", "data_folder", "seeds", "split", "epochs", "options", "jobs", "threads")
    return {name: getattr(arguments, name) for name in names}


def make(study: SynthCCStudy, arguments: argparse.Namespace) -> int:
    """Lists, tabulates or runs a study, as asked for."""
    if arguments.list:
        show(study)
        return 0
    failed = 0
    if arguments.tables_only:
        study.write_tables()
    else:
        failed = study.make()
    print_results(study)
    return int(failed > 0)


def show(study: SynthCCStudy) -> None:
    """The rows of a study and how far each is."""
    lines = []
    for variant in study.variants:
        runs = [run for run in study.runs() if run.variant == variant]
        done = [str(run.seed) for run in runs if run.is_done()]
        lines.append([variant.name, variant.title, ", ".join(done) or "-", variant.config, " ".join(variant.options)])
    print(tabulate(lines, ["variant", "title", "seeds done", "config", "with"], disable_numparse=True))


def print_results(study: SynthCCStudy) -> None:
    """The markdown table in the terminal, and where the files are."""
    print("\n" + (study.folder / "results.md").read_text(encoding="utf-8"))
    print(f"{study.folder}/results.csv, results.md, results.png")
