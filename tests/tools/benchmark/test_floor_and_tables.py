"""The least work of a step by hand, and the tables that are made of figures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from fastreid_clip3d.errors import ClearError
from tools.benchmark import tables
from tools.benchmark.floor import covered_length, floor_milliseconds, machine_rates, step_work
from tools.benchmark.markers import replace_between


def test_the_work_of_one_linear_layer() -> None:
    """Forward and the weight's gradient: two products of 2 x 8 x 16 x 4 operations. The input has no gradient."""
    layer = nn.Linear(16, 4, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    images = torch.randn(8, 16)

    def step() -> None:
        optimizer.zero_grad()
        layer(images).sum().backward()
        optimizer.step()

    step()
    work = step_work(step, layer, optimizer)
    assert work["tflop"] * 1e12 == 2 * (2 * 8 * 16 * 4)
    weight = 16 * 4 * 4
    assert work["gb"] * 1e9 == pytest.approx(2 * images.nbytes + 6 * weight + 2 * weight)  # 2 * momentum


def test_the_floor_is_the_slower_of_both() -> None:
    work, rates = {"tflop": 3.0, "gb": 100.0}, {"tflops": 300.0, "gb_per_second": 1000.0}
    assert floor_milliseconds(work, rates) == pytest.approx({"arithmetic": 10.0, "memory": 100.0, "floor": 100.0})


def test_rates_of_this_machine() -> None:
    rates = machine_rates("cpu", "float32")
    assert 1e-4 < rates["tflops"] < 1e4 and 1e-2 < rates["gb_per_second"] < 1e5


def test_points_are_covered_once() -> None:
    assert covered_length([(0, 3), (1, 2), (2, 4), (10, 11)]) == 5


def parse(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    tables.add_arguments(parser)
    return parser.parse_args(list(options))


STEP = {
    "device": "Some Card", "config": "celeb.yml", "real": 64, "synthetic": 64, "steps": 20, "precision": "float16",
    "compiled": True, "rates": {"tflops": 700.0, "gb_per_second": 3000.0}, "ratios": {"c/a2": 1.03},
    "rows": [
        {"contestant": "c  ours, R + S", "teacher": 0.0, "forward": 20.0, "losses": 2.0, "backward": 40.0,
         "optimiser": 3.0, "milliseconds": 65.0, "peak_mib": 9000.4, "busy_share": 0.93, "floor": {"floor": 13.0}},
        {"contestant": "d  online", "teacher": 9.0, "forward": 20.0, "losses": 2.0, "backward": 40.0, "optimiser": 3.0,
         "milliseconds": 74.0, "peak_mib": None, "busy_share": None, "floor": None},
    ],
    "loading": {"share": 0.013, "workers": 8, "images_per_second": 5000.0, "images_per_second_of_step": 1900.0},
}  # fmt: skip


def test_a_table_has_the_figures_and_the_document_keeps_its_text(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "step.json").write_text(json.dumps(STEP))
    (tmp_path / "session.json").write_text("[]")
    document = tmp_path / "performance.md"
    document.write_text(f"before\n<!-- {tables.MARKER}: begin -->\nold\n<!-- {tables.MARKER}: end -->\nafter\n")
    tables.run(parse("--folder", str(tmp_path), "--markdown", str(document)))
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "**A step in float16, compiled** on Some Card" in text
    assert "| c  ours, R + S | 0.0 | 20.0 | 2.0 | 40.0 | 3.0 | 65.0 | 9000 | 93 % | 13.0 | 5.0 |" in text
    assert "| d  online | 9.0 | 20.0 | 2.0 | 40.0 | 3.0 | 74.0 | - | - | - | - |" in text
    assert "c/a2 = 1.03" in text and "700.0 TFLOP/s" in text and "1.3 % of a step with 8 workers" in text
    header, ruler = text.splitlines()[4:6]
    assert header.count("|") == ruler.count("|")


def test_the_other_figures_are_a_sentence_each(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    card = {"device": "Some Card"}
    figures = {
        "label-vit-l14": {
            **card, "teacher": "ViT-L-14 (random weights)", "batch": 64, "labelled_per_second": 930.4,
            "bare_per_second": 1000.0, "ratio": 0.93,
        },
        "evaluation": {**card, "size": "msmt17", "max_memory": 1024, "rows": [{"seconds": 4.25, "peak_mib": 2048.3}]},
        "teacher": {
            **card, "tower": "some_tower", "batch": 64, "steps_per_second": 20.04, "pictures_per_second": 1282.0,
            "milliseconds": 49.9, "peak_mib": 800.2,
        },
        "render": {**card, "seconds_for_10000": 25.2, "pictures_per_second": 397.0, "images": 10000},
    }  # fmt: skip
    for name, found in figures.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    tables.run(parse("--folder", str(tmp_path)))
    printed = capsys.readouterr().out
    for words in (
        "ViT-L-14 (random weights) teacher, batch 64: 930 images/s from files, 1000 in open_clip's bare forward pass",
        "**Evaluation** at msmt17's size, distances on Some Card: 4.2 s, 2048 MiB",
        "**Training of the embedded teacher** on Some Card, batch 64: 20.0 steps/s (49.9 ms), peak 800 MiB",
        "**Rendering** on Some Card: 25 s for 10,000 pictures (397/s, measured with 10000)",
    ):
        assert words in printed


def test_nothing_to_tell_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClearError, match="no figures"):
        tables.run(parse("--folder", str(tmp_path)))
    (tmp_path / "plain.md").write_text("no markers")
    with pytest.raises(ClearError, match="plain.md"):
        replace_between(tmp_path / "plain.md", "table", "some")


def test_the_document_of_the_project_has_the_markers() -> None:
    text = (Path(tables.__file__).resolve().parents[2] / "docs" / "performance.md").read_text()
    assert f"<!-- {tables.MARKER}: begin -->" in text and f"<!-- {tables.MARKER}: end -->" in text
