"""The page of a run: valid and closed to the network, every loss a curve, whatever is missing, broken or hostile."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.config import get_cfg
from fastreid_clip3d.engine.job import Job
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.features_file import write_features
from fastreid_clip3d.evaluation.protocols import CC
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, evaluate
from fastreid_clip3d.visualization.report.charts import thinned
from fastreid_clip3d.visualization.report.record import Series, command_of, parse_metrics, read_run
from fastreid_clip3d.visualization.report.scores import score_tables
from fastreid_clip3d.visualization.report.settings import differences
from fastreid_clip3d.visualization.report.write import write_report
from fastreid_clip3d.visualization.run_files import run_titles

VOID = {"meta", "img", "br", "link", "input", "path", "use", "rect"}
LOSSES = ("total_loss", "loss_cls", "loss_ot", "loss_body_shape")
HOSTILE = "</title></pre><script>alert(1)</script><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Checks that elements nest, and gathers tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def rows(count: int = 6) -> list[dict]:
    return [
        {
            "iteration": 10 * step + 9, "time": 0.5, "data_time": 0.1, "lr": 0.001, "cls_accuracy": 0.1 * step,
            **{name: 1.0 / (step + place + 1) for place, name in enumerate(LOSSES)},
        }
        for step in range(count)
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of a small test set, as training leaves it, without a checkpoint."""
    folder = tmp_path / "clip3d"
    folder.mkdir()
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.SOLVER.IMS_PER_BATCH, cfg.OUTPUT_DIR = "cpu", 16, HOSTILE
    (folder / "config.yaml").write_text(cfg.dump())
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    (folder / "log.txt").write_text(
        "[01/01 00:00:00] fastreid INFO: Environment info:\n"
        "Python                3.11.7\nPyTorch               2.11.0 @/x\n"
        "[01/01 00:00:00] fastreid INFO: Command line arguments: Namespace(config_file='a b.yml', resume=True, "
        f"eval_only=False, num_gpus=1, opts=['OUTPUT_DIR', {HOSTILE!r}])\n"
        "[01/01 00:00:09] fastreid.engine.hooks INFO: Total training time: 0:04:13 (0:00:00 on hooks)\n"
    )
    generator = np.random.default_rng(0)
    sides = []
    for side, count in (("query", 8), ("gallery", 24)):
        names = [str(tmp_path / f"{side}{place}.png") for place in range(count)]
        for place, name in enumerate(names):
            Image.new("RGB", (8, 16), (10 * place, 90, 0)).save(name)
        features = torch.from_numpy(generator.standard_normal((count, 4)).astype(np.float32))
        outfits = np.arange(count) // 4 % 2
        sides.append(LabelledFeatures(features, np.arange(count) % 4, np.full(count, len(side)), outfits, tuple(names)))
    write_features(folder / "evaluation" / "Small_features.npz", *sides)
    return folder


def page_of(folder: Path, **options) -> tuple[str, Page]:
    path, _ = write_report(folder, **options)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_page_is_valid_needs_nothing_and_escapes_everything(run: Path) -> None:
    text, page = page_of(run)
    assert text.startswith("<!DOCTYPE html>") and page.tags.count("html") == page.tags.count("body") == 1
    assert not re.search(r"https?://|//\w|@import|url\((?!#)", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    sources = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert sources and all(value.startswith(("data:image/", "#")) for value in sources)
    assert len(page.ids) == len(set(page.ids))
    assert all(value[1:] in page.ids for value in sources if value.startswith("#"))
    assert text.count("alert(1)") == page.text.count("alert(1)") > 2  # in words, never in markup
    assert (run / "report.html").is_file() and len(text) < 2_000_000


def test_every_loss_has_a_curve_and_a_number(run: Path) -> None:
    _, page = page_of(run, with_pictures=False)
    drawn = [value for name, value in page.attributes if name == "data-curve"]
    assert [name for name in drawn if "loss" in name] == sorted(LOSSES, key=lambda name: (name != "total_loss", name))
    assert {"lr", "cls_accuracy"} <= set(drawn) and page.tags.count("svg") == len(drawn)
    assert (
        "last 0.1667" in page.text
        and "32real images per second, 0.50 s per step" in page.text
        and "0:04:13" in page.text
    )


def test_scores_are_those_of_the_features(run: Path) -> None:
    from fastreid_clip3d.evaluation.features_file import read_features

    _, page = page_of(run, with_pictures=False)
    expected = evaluate(*read_features(run / "evaluation" / "Small_features.npz"), [CC])["CC"].percentages()
    (table,) = score_tables(read_run(run))
    assert table.protocols["CC"]["mAP"] == pytest.approx(expected["mAP"])
    assert f"{expected['mAP']:.2f}" in page.text and "evaluation/Small_features.npz" in page.text


def test_scores_that_the_run_wrote_come_first_and_the_last_ones_count(run: Path) -> None:
    with open(run / "metrics.json", "a") as file:
        for iteration, score in ((59, 11.25), (60, 77.125)):
            file.write(
                json.dumps({"iteration": iteration, "Small/CC/mAP": score, "Other/Other/SC/Rank-1": 3.5, "mAP": 1})
                + "\n"
            )
    tables = {table.dataset: table for table in score_tables(read_run(run))}
    assert tables["Small"].protocols == {"CC": {"mAP": 77.125}} and "step 60" in tables["Small"].source
    assert tables["Other"].protocols == {"SC": {"Rank-1": 3.5}}
    _, page = page_of(run, with_pictures=False)
    assert "77.12" in page.text and ("data-curve", "Small/CC/mAP") in page.attributes


def test_pictures_are_drawn_or_named_with_the_reason(run: Path) -> None:
    path, pictures = write_report(run)
    found = {picture.title: picture for picture in pictures}
    assert list(found) == ["Ranking", "Embedding", "Transport plans", "Bodies"]
    for title in ("Ranking", "Embedding"):
        assert found[title].data.startswith("data:image/") and len(found[title].data) > 2000
    for title in ("Transport plans", "Bodies"):
        assert not found[title].data and "neither model_final.pth nor last_checkpoint" in found[title].caption
    page = Page(path.read_text())
    assert page.tags.count("img") == 2 and page.text.count("Not drawn:") == 2


def test_a_killed_run_gets_a_page(run: Path) -> None:
    (run / "config.yaml").unlink()
    shutil.rmtree(run / "evaluation")
    (run / "log.txt").write_bytes(b"\xff\xfe half a l")
    text = (run / "metrics.json").read_text()
    (run / "metrics.json").write_text(text[:-20])
    _, page = page_of(run)
    assert "1 line(s) of metrics.json cannot be read" in page.text and "config.yaml is missing" in page.text
    assert "not evaluated" in page.text and "no finished training" in page.text and "50training steps" in page.text
    (run / "metrics.json").unlink()
    _, page = page_of(run)
    assert "There are no curves" in page.text and "svg" not in page.tags


def test_damaged_files_are_reported_and_left_out(run: Path) -> None:
    (run / "config.yaml").write_text("A: [1, 2\nB: !!python/object/apply:os.system ['true']")
    (run / "evaluation" / "Small_features.npz").write_bytes(b"PK\x03\x04 cut off")
    _, page = page_of(run, with_pictures=False)
    assert "config.yaml is damaged" in page.text and "No scores of Small" in page.text


def test_numbers_that_are_none_leave_gaps(run: Path) -> None:
    broken = [
        {**row, "loss_ot": float("nan"), "loss_cls": float("inf") if row["iteration"] > 30 else 1.0} for row in rows()
    ]
    (run / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in broken))
    text, page = page_of(run, with_pictures=False)
    assert "Not finite at least once: loss_cls, loss_ot" in page.text
    assert "no finite value" in page.text and page.text.count("last value not finite") == 2
    assert not re.search(r'\sd="[^"]*(nan|inf)', text)


def test_a_resumed_run_counts_its_later_steps() -> None:
    lines = [{"iteration": step, "total_loss": 1.0} for step in (9, 19, 29)]
    lines += [{"iteration": 30, "mAP": 5.0}, {"iteration": 19, "total_loss": 2.0}, {"iteration": 29, "total_loss": 3.0}]
    found, broken = parse_metrics("\n".join(map(json.dumps, lines)) + '\n[1]\n{"iteration": "x"}\n')
    assert [(row["iteration"], row["total_loss"]) for row in found] == [(9, 1.0), (19, 2.0), (29, 3.0)] and broken == 2


def test_two_runs_share_curves_tables_and_settings(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "baseline"
    shutil.copytree(run, other)
    settings = yaml.safe_load((other / "config.yaml").read_text())
    settings["SOLVER"]["IMS_PER_BATCH"] = 48
    (other / "config.yaml").write_text(yaml.safe_dump(settings))
    output = tmp_path / "new" / "page.html"
    path, pictures = write_report(run, output, other)
    text = path.read_text()
    page = Page(text)
    assert path == output and "clip3d, compared with baseline" in page.text
    assert text.count("var(--second)") > len(LOSSES)
    assert (
        len(re.findall(r"<td>CC</td><td>baseline</td>", text))
        == len(re.findall(r"<td>CC</td><td>clip3d</td>", text))
        == 1
    )
    assert re.search(
        r'<tr style="font-weight:600"><td class="mono key">SOLVER.IMS_PER_BATCH</td>(<td[^>]*>\d+</td>){3}', text
    )
    assert pictures[0].data


def test_settings_show_only_what_differs() -> None:
    defaults = {"A": {"B": 1, "C": ["x", 2]}, "D": ""}
    assert [tuple(one) for one in differences({"A": {"B": 1, "C": ["x", 3]}, "D": "", "E": None}, defaults)] == [
        ("A.C", "[x, 3]", "[x, 2]", ""), ("E", "None", "-", ""),
    ]  # fmt: skip
    compared = differences({"A": {"B": 1}}, defaults, {"A": {"B": 5}})
    assert [tuple(one) for one in compared] == [("A.B", "1", "1", "5")]


def test_commands_come_back_as_typed() -> None:
    words = "Namespace(config_file='my cfg.yml', resume=False, eval_only=True, num_gpus=2, opts=['SEED', '1'])"
    assert command_of(words) == "clip3d train --config-file 'my cfg.yml' --eval-only --num-gpus 2 SEED 1"
    job = Job("my cfg.yml", ("SEED", "1"), eval_only=True, num_gpus=2)
    assert command_of(str(job)) == command_of(words)
    assert command_of("Namespace(__import__('os').system('true'))") == "clip3d train"
    assert command_of("Namespace(opts=f(1))") == command_of("Namespace(") == ""


def test_long_curves_keep_their_ends() -> None:
    kept = thinned(Series(list(range(10_001)), [float(step) for step in range(10_001)]))
    assert len(kept.values) <= 402 and kept.iterations[0] == 0 and kept.iterations[-1] == 10_000


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ClearError, match="no such run folder"):
        write_report(tmp_path / "gone")
    with pytest.raises(ClearError, match="is not a run folder"):
        write_report(tmp_path)


def test_the_tool_writes_the_page_and_names_what_is_not_drawn(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert run_verb(["report", str(run), "--output", str(run / "x.html")]) == 0
    told = capsys.readouterr()
    assert "x.html" in told.out and "not drawn, Bodies: " in told.err


def test_runs_of_one_name_are_told_apart(run: Path, tmp_path: Path) -> None:
    for place in ("full", "without_ot"):
        shutil.copytree(run, tmp_path / place / "seed0")
    _, page = page_of(tmp_path / "full" / "seed0", compare=tmp_path / "without_ot" / "seed0", with_pictures=False)
    assert "full/seed0, compared with without_ot/seed0" in page.text
    features = [tmp_path / place / "seed0" / "evaluation" / "Small_features.npz" for place in ("full", "without_ot")]
    assert run_titles(features) == ["full/seed0", "without_ot/seed0"]
    assert run_titles([run, run]) == ["clip3d (1)", "clip3d (2)"]
    assert run_titles([run, tmp_path / "full"]) == ["clip3d", "full"]
