"""Tables and plots from numbers made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastreid_clip3d.errors import ClearError
from tools.study import results, variants
from tools.study.runner import Run, write_record
from tools.study.synthcc import SynthCCStudy


def row(variant: str, seed: int, protocol: str, score: float | None, **more: object) -> dict[str, object]:
    values = {"title": f"title of {variant}", "dataset": "SynthCCTiny", "minutes": 2.0 + seed, "settings": "same"}
    rank_1 = None if score is None else 2 * score
    numbers = {"mAP": score, "Rank-1": rank_1, "Rank-5": 50.0, "Rank-10": 60.0, "mINP": 1.0}
    return {"variant": variant, "seed": seed, "protocol": protocol, **values, **numbers, **more}


ROWS = [
    row("full", 0, "CC", 10.0), row("full", 0, "general", 20.0), row("full", 0, "SC", 40.0),
    row("full", 1, "CC", 12.0), row("full", 1, "general", 20.0), row("full", 1, "SC", 40.0),
    row("without_all", 0, "CC", 9.0), row("without_all", 0, "general", 25.0),
    row("without_all", 1, "CC", 8.0), row("without_all", 1, "general", 15.0),
    row("agw", 0, "CC", 7.5), row("agw", 0, "general", None),
]  # fmt: skip


def cells(markdown: str) -> list[list[str]]:
    lines = [line.strip("|").split("|") for line in markdown.splitlines() if "---" not in line]
    return [[cell.strip() for cell in line] for line in lines]


def test_mean_deviation_gain_and_the_papers_numbers_stand_in_a_row() -> None:
    header, full, without, agw = cells(results.markdown_table(ROWS, "10"))
    assert header == [
        "", "seeds", "general mAP", "general Rank-1", "CC mAP", "CC Rank-1", "CC mAP above w/o all three",
        "minutes per run", "paper, Celeb-reID", "paper, Celeb-reID-light",
    ]  # fmt: skip
    assert full == [
        "title of full", "2", "20.0 ± 0.0", "40.0 ± 0.0", "11.0 ± 1.4", "22.0 ± 2.8", "+2.50 ± 2.12", "2.5",
        "19.2 / 63.1", "26.3 / 39.4",
    ]  # fmt: skip
    assert without[6] == "-" and without[2] == "20.0 ± 7.1" and without[8] == "14.2 / 57.5"
    assert agw == ["title of agw", "1", "-", "-", "7.50", "15.0", "-1.50", "2.0", "", ""]


def test_gains_are_taken_seed_by_seed() -> None:
    assert results.gains(ROWS, "full", "without_all", "CC") == [1.0, 4.0]
    assert results.gains(ROWS, "agw", "without_all", "general") == []


def test_two_test_sets_are_two_lines_and_never_averaged() -> None:
    rows = [row("natural_full", 0, "CC", 10.0), row("natural_full", 0, "CC", 30.0, dataset="SynthCCTinyShapeOnly")]
    rows += [row("natural_without_all", 0, "CC", 4.0)]
    rows += [row("natural_without_all", 0, "CC", 5.0, dataset="SynthCCTinyShapeOnly")]
    _, first, second, *_ = cells(results.markdown_table(rows, "cross"))
    assert first[0].endswith("tested on SynthCCTiny") and first[2] == "10.0" and first[4] == "+6.00"
    assert second[0].endswith("tested on SynthCCTinyShapeOnly") and second[2] == "30.0" and second[4] == "+25.0"


def test_csv_gives_back_what_was_written(tmp_path: Path) -> None:
    results.write_csv(tmp_path / "results.csv", ROWS)
    assert results.read_csv(tmp_path / "results.csv") == ROWS


@pytest.mark.parametrize("text", ["variant,seed\nfull,0\n", "", "\xff"])
def test_another_csv_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.csv").write_text(text, encoding="latin-1")
    with pytest.raises(ClearError, match="results.csv"):
        results.read_csv(tmp_path / "results.csv")


def test_seeds_of_different_settings_are_named() -> None:
    assert results.mixed_settings(ROWS) == []
    assert results.mixed_settings([*ROWS, row("agw", 1, "CC", 7.0, settings="other")]) == ["title of agw"]


def test_plot_shows_every_seed_the_mean_and_its_deviation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    dots, bars = [], []
    plot, errorbar = Axes.plot, Axes.errorbar
    monkeypatch.setattr(Axes, "plot", lambda *a, **k: (dots.append((list(a[1]), list(a[2]))), plot(*a, **k))[1])
    monkeypatch.setattr(Axes, "errorbar", lambda *a, **k: (bars.append((a[1], a[2], k["xerr"])), errorbar(*a, **k))[1])
    results.plot(tmp_path / "results.png", ROWS, "a title")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    assert ([10.0, 12.0], [0, 0]) in dots and ([9.0, 8.0], [1, 1]) in dots and ([7.5], [2]) in dots
    assert bars[0] == (11.0, 0, pytest.approx(2**0.5)) and bars[2] == (7.5, 2, None)


def run_of(folder: Path, name: str, epochs: int) -> Run:
    rows = variants.chosen(variants.table_10(), [name])
    return SynthCCStudy("10", "a title", rows, rows, folder, folder, epochs=epochs).run(rows[0], 0)


def trained_for(folder: Path, name: str, epochs: int) -> Run:
    """The run as a command of four epochs sees it; its record says that it was trained for `epochs`."""
    run = run_of(folder, name, epochs)
    scores = {dataset: {} for dataset in run.tests}
    made = {"variant": name, "seed": 0, "settings": run.settings(), "config": run.config(), "scores": scores}
    write_record(run.folder, made)
    return run_of(folder, name, 4)


def test_rows_that_were_trained_for_another_time_are_named(tmp_path: Path) -> None:
    names = ("full", "without_ot", "without_all")
    same = [trained_for(tmp_path / "same", name, 8) for name in names]
    assert results.other_settings(same) == []  # all have eight epochs, whatever the command says now
    mixed = [trained_for(tmp_path / "mixed", name, epochs) for name, epochs in zip(names, (8, 4, 4))]
    assert results.other_settings(mixed) == [
        "full, seed 0: SOLVER.MAX_EPOCH was 8, is 4",
        "without_ot, seed 0; without_all, seed 0: the settings of this command",
    ]
