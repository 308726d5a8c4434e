"""Makes the table that tools/reproduce.py was called for."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tabulate import tabulate

from fastreid_clip3d.errors import ClearError
from tools.study import variants
from tools.study.labels import table_of_labels
from tools.study.real import COLUMNS, DatasetStudy, table_of_datasets
from tools.study.study import Study
from tools.study.synthcc import SynthCCStudy

TITLES = {
    "10": "Table 10 on SynthCC-tiny: the ablation, and fast-reid's own methods with the same student",
    "11": "Table 11 on SynthCC-tiny: teachers",
    "cross": "Trained on one kind of SynthCC-tiny, tested on both",
}


def reproduce(arguments: argparse.Namespace, command: str) -> int:
    """Makes the table of the parsed `arguments` of tools/reproduce.py; returns the exit code."""
    number = arguments.table
    if number == "labels":
        table_of_labels(arguments.teachers, arguments.study_folder, arguments.data_folder, command)
        return 0
    if number == "9":
        return _chamfer(arguments, command)
    if number in COLUMNS:
        return _on_datasets(arguments, command)
    if number == "cross" and arguments.split == "val":
        raise ClearError("--table cross has no validation people, since shape-only sets have none. Use --split test.")
    rows = {
        "10": variants.table_10,
        "11": lambda: variants.table_11(arguments.teachers),
        "cross": variants.table_cross,
    }[number]()
    chosen = variants.chosen(rows, arguments.variants)
    return make(SynthCCStudy(number, TITLES[number], chosen, rows, **_common(arguments), command=command), arguments)


def _chamfer(arguments: argparse.Namespace, command: str) -> int:
    """Table 9."""
    from tools.study.chamfer import default_runs, table_9

    torch.set_num_threads(arguments.threads)
    folder = Path(arguments.study_folder).absolute() / "table9"
    runs = arguments.runs or default_runs(arguments.study_folder)
    print("\n" + table_9(runs, folder, arguments.hbw, command, arguments.bodies))
    print(f"{folder}/results.csv, results.md")
    return 0


def _on_datasets(arguments: argparse.Namespace, command: str) -> int:
    """Tables 2 to 8."""
    number = arguments.table
    if arguments.split == "val":
        raise ClearError(f"--table {number} has no validation people; use --split test.")
    rows = table_of_datasets(number)
    chosen = variants.chosen(rows, arguments.variants)
    study = DatasetStudy(number, f"Table {number}", chosen, rows, **_common(arguments), command=command)
    if arguments.dry_run:
        print("\n".join(study.commands()))
        missing = {variant.title: study.missing(variant) for variant in chosen}
        for title, reason in missing.items():
            if reason:
                print(f"# missing for {title}: {reason}")
        return 0
    return make(study, arguments)


def _common(arguments: argparse.Namespace) -> dict[str, object]:
    names = ("study_folder", "data_folder", "seeds", "split", "epochs", "options", "jobs", "threads")
    return {name: getattr(arguments, name) for name in names}


def make(study: Study, arguments: argparse.Namespace) -> int:
    """Lists, tabulates or runs a study, as the options say; returns the exit code."""
    if arguments.list:
        show(study)
        return 0
    if arguments.dry_run:
        print("\n".join(run.printable_command() for run in study.runs()))
        return 0
    failed = 0
    if arguments.tables_only:
        study.write_tables()
    else:
        failed = study.make()
    print_results(study)
    return int(failed > 0)


def show(study: Study) -> None:
    """Prints the rows of a study and which seeds are finished."""
    lines = []
    for variant in study.all_variants:
        done = [str(run.seed) for run in study.runs_on_disk() if run.variant == variant and run.is_done()]
        lines.append([variant.name, variant.title, ", ".join(done) or "-", variant.config, " ".join(variant.options)])
    print(tabulate(lines, ["variant", "title", "finished seeds", "config", "options"], disable_numparse=True))


def print_results(study: Study) -> None:
    """Prints the markdown table and the names of the files."""
    path = study.folder / study.results_name
    print("\n" + path.with_suffix(".md").read_text(encoding="utf-8"))
    print(f"{path}.csv, {path.name}.md, {path.name}.png")
