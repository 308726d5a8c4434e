"""The table of students: known figures of known networks, and a document that keeps its text."""

from __future__ import annotations

import argparse
import json

import pytest

from fastreid_clip3d.errors import ClearError
from tools.benchmark import students
from tools.benchmark.markers import replace_between

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def parse(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    students.add_arguments(parser)
    return parser.parse_args(["--device", "cpu", "--batch", "1", "--repeats", "1", *options])


def test_figures_of_a_known_network(tmp_path, monkeypatch) -> None:
    """ResNet-18 has 11.18 M parameters without its classifier; at 256 x 128 with a last stride of 1 its last stage
    costs four times as much as with 2: 1.18 G multiply-adds of the plain network and 3 x 0.269 G more."""
    monkeypatch.setattr(students, "REFERENCE", students.STUDENTS[0])
    document = tmp_path / "students.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    written = tmp_path / "figures.json"
    figures = students.run(
        parse("--only", "build_resnet_backbone 18x", "--markdown", str(document), "--json", str(written))
    )
    (row,) = figures["rows"]
    assert row["parameters"] == 11_176_512
    assert row["gflops"] == pytest.approx(1.18 + 3 * 0.269, rel=0.02)
    assert (row["patches"], row["width"]) == ([16, 8], 512)
    assert json.loads(written.read_text()) == figures
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "old" not in text and "| 128 (16 x 8) | 512 |" in text


def test_no_repeats_no_speeds(capsys) -> None:
    (row,) = students.run(parse("--only", "x0_25", "--repeats", "0"))["rows"]
    assert row["images_per_second"] is None and row["relative"] is None
    assert "| 128 | - | - | downloaded by fast-reid |" in capsys.readouterr().out


def test_every_student_of_the_table_is_registered() -> None:
    from fastreid.modeling.backbones import BACKBONE_REGISTRY

    import fastreid_clip3d.modeling.backbones  # noqa: F401

    for student in students.STUDENTS:
        assert callable(BACKBONE_REGISTRY.get(student.name))


def test_wrong_options_are_named(tmp_path) -> None:
    with pytest.raises(ClearError, match="--only nobody"):
        students.run(parse("--only", "nobody"))
    (tmp_path / "plain.md").write_text("no markers")
    with pytest.raises(ClearError, match="plain.md"):
        replace_between(tmp_path / "plain.md", "table")
