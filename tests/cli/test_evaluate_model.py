"""`clip3d evaluate --model ... --data ...`: any model, scored on a dataset by the dataset's protocols."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference import load_model
from tests.data.miniatures import ccvid
from tests.references.evaluation import score

PEOPLE, OUTFITS, CAMERAS = 5, 2, 3


@pytest.fixture
def data(tmp_path, monkeypatch) -> list[dict[str, str]]:
    """mine.csv: five people in two outfits before three cameras; the first camera's pictures are queries."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    rows = []
    for person in range(PEOPLE):
        for outfit in range(OUTFITS):
            for camera in range(CAMERAS):
                path = f"{person}_{outfit}_{camera}.png"
                coarse = generator.integers(0, 256, (6, 3, 3), dtype=np.uint8)
                Image.fromarray(coarse).resize((32, 64), Image.Resampling.NEAREST).save(path)
                split = "query" if camera == 0 else "gallery"
                rows.append({"path": path, "split": split, "pid": person, "camid": camera, "clothes": outfit})
    rows.append({"path": "0_0_0.png", "split": "train", "pid": 99, "camid": 0, "clothes": 0})
    with open("mine.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return [{**row, "path": str(Path(row["path"]).resolve())} for row in rows[:-1]]


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        ("open_clip:embedded", []),
        ("net.onnx", ["--range", "255", "--mean", "127", "127", "127", "--std", "80", "80", "80"]),
    ],
)
def test_a_model_is_scored_by_the_datasets_protocols(data, source, flags, capsys) -> None:
    if source.endswith(".onnx"):
        write_network(Path(source))
    words = ["evaluate", "--model", source, *flags, "--data", "mine.csv", "--device", "cpu"]
    assert run_verb([*words, "--json", "scores.json", "--per-query", "queries.csv"]) == 0
    shown = capsys.readouterr().out
    options = {"range": 255, "mean": (127,) * 3, "std": (80,) * 3} if flags else {}
    model = load_model(source, "cpu", **options)
    queries, gallery = ([row for row in data if row["split"] == split] for split in ("query", "gallery"))
    distances = 1 - model([row["path"] for row in queries]) @ model([row["path"] for row in gallery]).T
    written = json.loads(Path("scores.json").read_text())
    assert set(written) == {"general", "CC", "SC"}
    for protocol, numbers in written.items():
        expected = score(protocol, queries, gallery, distances.tolist())
        assert numbers["mAP"] == pytest.approx(100 * float(expected["mAP"]), abs=1e-4)
        assert numbers["Rank-1"] == pytest.approx(100 * float(expected["cmc"][0]), abs=1e-4)
        assert f"{numbers['mAP']:.2f}" in shown
    assert len({numbers["mAP"] for numbers in written.values()}) > 1  # the protocols do differ
    assert run_verb([*words, "--protocols", "CC", "--json", "cc.json"]) == 0
    assert json.loads(Path("cc.json").read_text()) == {"CC": written["CC"]}


def write_network(path: Path) -> None:
    """A network that averages the colours of 4 x 2 areas, from torch's own exporter."""

    class Areas(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return nn.functional.adaptive_avg_pool2d(images, (4, 2)).flatten(1)

    torch.onnx.export(Areas(), (torch.rand(2, 3, 64, 32),), str(path), dynamo=False, input_names=["x"],
                      dynamic_axes={"x": {0: "b"}})  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--features", "f.npz", "--model", "open_clip:embedded", "--data", "mine.csv"],
        ["--model", "open_clip:embedded"],
        ["--features", "f.npz", "--data", "mine.csv"],
        ["--data", "mine.csv"],
    ],
)
def test_features_or_a_model_with_data(words) -> None:
    with pytest.raises(ClearError, match="either --features FILE or --model MODEL with --data DATASET"):
        run_verb(["evaluate", *words])


def test_a_wrong_dataset_or_protocol_is_named(data) -> None:
    with pytest.raises(ClearError, match="gone"):
        run_verb(["evaluate", "--model", "open_clip:embedded", "--data", "gone.csv", "--device", "cpu"])
    with pytest.raises(ClearError, match="Protocol 'CX' is unknown"):
        run_verb(["evaluate", "--model", "open_clip:embedded", "--data", "mine.csv", "--protocols", "CX"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--per-query", "q.txt"], "written as .csv or .parquet"),
        (["--json", "a.jpg"], "it can be written as .json"),
        (["--max-memory", "0"], "--max-memory is 0"),
    ],
)
def test_wrong_arguments_are_named_before_the_model_is_loaded(words, message) -> None:
    with pytest.raises(ClearError, match=message):
        run_verb(["evaluate", "--model", "no/such/run", "--data", "mine.csv", *words])


def test_protocols_of_clips_are_not_scored_on_means_of_frames(tmp_path, capsys) -> None:
    ccvid(tmp_path)
    words = ["evaluate", "--model", "open_clip:embedded", "--data", "CCVID", "--root", str(tmp_path), "--device", "cpu"]
    out = tmp_path / "scores.json"
    assert run_verb([*words, "--json", str(out)]) == 0
    assert list(json.loads(out.read_text())) == ["general-mean-of-frames", "CC-mean-of-frames"]
    assert "warning: general, CC: not scored; `clip3d train --eval-only` scores clips" in capsys.readouterr().err
    assert run_verb([*words, "--protocols", "CC", "--json", str(out)]) == 0
    assert list(json.loads(out.read_text())) == ["CC"]
    assert "warning: CC: scored on the mean of each tracklet's frames" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--features", "f.npz", "--root", "datasets"], "--root: only with --model"),
        (["--features", "f.npz", "--size", "256", "128", "--channels", "BGR"], "--size, --channels: only with --model"),
        (["--features", "f.npz", "--top", "5"], "--top is the number of items in the file of --per-query"),
    ],
)
def test_flags_without_an_effect_are_refused(words, message) -> None:
    with pytest.raises(ClearError, match=message):
        run_verb(["evaluate", *words])
