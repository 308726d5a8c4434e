"""A folder full of odd pictures goes through; a kill loses nothing; what cannot be read is named at the end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference import features_writer
from fastreid_clip3d.inference.collection import extract_to_file
from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.extraction import extract
from fastreid_clip3d.inference.features_writer import check_output
from fastreid_clip3d.inference.pictures import Entry, list_images
from fastreid_clip3d.inference.preprocess import InputSize
from tests.inference.conftest import picture


def main(words: list[str]) -> int:
    return run_verb(["extract", *words])


class Colours(ReIDModel):
    """A student in a line: the unit vector of the mean colour. `batches` counts what it was given."""

    def __init__(self, fingerprint: str = "one", dies_at: int = 0) -> None:
        self.run_folder, self.feature_dim, self.fingerprint = Path("run"), 3, fingerprint
        self.device, self.backbone_name, self.recipe = torch.device("cpu"), "colours", InputSize((6, 4))
        self.dies_at, self.batches = dies_at, []

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(pixels))
        if len(self.batches) == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.nn.functional.normalize(pixels.float().mean((2, 3)) + 1)


@pytest.fixture
def odd_folder(tmp_path) -> Path:
    """Pictures of all kinds, broken ones among them."""
    place = tmp_path / "odd"
    place.mkdir()
    good = picture(1)
    good.save(place / "plain.jpg")
    good.convert("L").save(place / "grey.png")
    good.convert("CMYK").save(place / "cmyk.jpg")
    good.convert("RGBA").save(place / "alpha.png")
    good.convert("P").save(place / "palette.gif")
    good.save(place / "animated.gif", save_all=True, append_images=[picture(2)])
    good.save(place / "animated.webp", save_all=True, append_images=[picture(2)])
    Image.fromarray(np.asarray(good.convert("L")).astype(np.uint16) * 257).save(place / "deep.png")
    good.resize((3000, 2000)).save(place / "large.jpg")
    good.resize((1, 1)).save(place / "dot.bmp")
    content = (place / "plain.jpg").read_bytes()
    (place / "broken_cut.jpg").write_bytes(content[: len(content) // 2])
    (place / "broken_empty.png").write_bytes(b"")
    (place / "broken_text.jpg").write_text("no image")
    huge = bytearray((place / "grey.png").read_bytes())
    huge[16:24] = (60000).to_bytes(4, "big") * 2  # the header says 60000 x 60000 pixels
    (place / "broken_bomb.png").write_bytes(huge)
    (place / "notes.md").write_text("not meant")
    return place


GOOD = {
    "alpha.png",
    "animated.gif",
    "animated.webp",
    "cmyk.jpg",
    "deep.png",
    "dot.bmp",
    "grey.png",
    "large.jpg",
    "palette.gif",
    "plain.jpg",
}
BROKEN = {"broken_bomb.png", "broken_cut.jpg", "broken_empty.png", "broken_text.jpg"}


def test_odd_pictures_go_through_or_are_named(odd_folder, run, model, tmp_path, capsys) -> None:
    command = [str(odd_folder), "--model", str(run), "--output", str(tmp_path / "f.npz"), "--device", "cpu"]
    command += ["--batch-size", "3"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "10 of 14 entries have a feature of 48 numbers" in printed.out
    assert "1 files in the folders do not have the ending of an image" in printed.out
    listed = printed.err[printed.err.index("Not read, 4:") :]
    assert all(name in listed for name in BROKEN) and not any(name in listed for name in GOOD)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as saved:
        assert {Path(path).name for path in saved["paths"]} == GOOD
        assert saved["features"].dtype == np.float32 and str(saved["fingerprint"]) == model.fingerprint
        expected = model([str(path) for path in saved["paths"]])
        np.testing.assert_allclose(saved["features"], expected.numpy(), atol=1e-5)
    assert not (tmp_path / "f.npz.partial").exists()
    assert main([*command, "--strict", "--json"]) == 1
    summary = json.loads(capsys.readouterr().out)
    assert (summary["written"], summary["failed"], summary["passed_over"]) == (10, 4, 1)
    assert {Path(item["path"]).name for item in summary["unreadable"]} == BROKEN


def test_nothing_readable_is_a_failure_without_a_file(odd_folder, run, tmp_path, capsys) -> None:
    broken = [str(odd_folder / name) for name in sorted(BROKEN)]
    assert main([*broken, "--model", str(run), "--output", str(tmp_path / "f.npz"), "--device", "cpu"]) == 1
    assert not list(tmp_path.glob("f.npz*")) and "Nothing is written" in capsys.readouterr().out


def test_wrong_options_are_named(run, folder, tmp_path, capsys) -> None:
    command = ["--model", str(run), "--output", str(tmp_path / "f.npz")]
    with pytest.raises(ClearError, match="no images there .1 other files"):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty/x.md").write_text("x")
        main([str(tmp_path / "empty"), *command])
    with pytest.raises(SystemExit):
        main([str(folder), *command, "--batch-size", "0"])
    assert "argument --batch-size: 0 is no whole number of 1 or more" in capsys.readouterr().err
    with pytest.raises(ClearError, match="The batch size is 0"):
        next(extract(Colours(), [Entry("p", (folder / "p1.png",))], batch_size=0))
    for words in ([], [str(folder), "--data", "SynthCCTiny"]):
        with pytest.raises(ClearError, match="Give either IMAGES or --data DATASET"):
            main([*words, *command])
    with pytest.raises(ClearError, match="p1.png: the name ends in .png; it can be written as .json"):
        main([*command, "--json", str(folder / "p1.png"), str(folder)])
    with pytest.raises(ClearError, match="written as .npz or .parquet"):
        check_output("f.csv")


def killed_run(folder: Path, output: Path, dies_at: int) -> None:
    """Extraction in a child process that the system kills at its batch number `dies_at`."""
    child = os.fork()
    if child == 0:
        try:
            extract_to_file(Colours(dies_at=dies_at), list_images([str(folder)]), output, batch_size=2)
        finally:
            os._exit(7)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def features_of(path: Path) -> np.ndarray:
    with np.load(path) as saved:
        return saved["features"]


@pytest.fixture
def whole(folder, tmp_path) -> np.ndarray:
    """What a run without interruption writes."""
    extract_to_file(Colours(), list_images([str(folder)]), tmp_path / "whole.npz", batch_size=2)
    return features_of(tmp_path / "whole.npz")


def test_a_kill_loses_nothing(folder, whole, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(features_writer, "_SECONDS_BETWEEN_FLUSHES", -1)
    output = tmp_path / "f.npz"
    killed_run(folder, output, dies_at=4)
    assert not output.exists() and (tmp_path / "f.npz.partial").is_dir()
    with open(tmp_path / "f.npz.partial/features.bin", "ab") as rows:
        rows.write(b"half")  # as if the kill had come in the middle of writing
    with open(tmp_path / "f.npz.partial/done.jsonl", "a") as lines:
        lines.write('{"row": 6, "na')
    again = Colours()
    summary = extract_to_file(again, list_images([str(folder)]), output, batch_size=2)
    assert (summary.written, summary.reused, sum(again.batches)) == (12, 6, 6)
    np.testing.assert_array_equal(features_of(output), whole)
    assert not (tmp_path / "f.npz.partial").exists()


def test_changed_files_and_changed_models_are_computed_again(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(features_writer, "_SECONDS_BETWEEN_FLUSHES", -1)
    own, output = tmp_path / "own", tmp_path / "f.npz"
    own.mkdir()
    for path in folder.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    killed_run(own, output, dies_at=4)
    Image.new("RGB", (8, 8), (0, 0, 255)).save(own / "p0.png")
    again = Colours()
    summary = extract_to_file(again, list_images([str(own)]), output, batch_size=2)
    assert (summary.reused, sum(again.batches), summary.started_over) == (5, 7, "")
    assert features_of(output)[0, 2] > 0.99  # blue
    killed_run(own, output, dies_at=4)
    other = Colours("two")
    summary = extract_to_file(other, list_images([str(own)]), output, batch_size=2)
    assert sum(other.batches) == 12 and "another model" in summary.started_over
    (tmp_path / "f.npz.partial").mkdir()
    (tmp_path / "f.npz.partial/thesis.txt").write_text("mine")
    with pytest.raises(ClearError, match="other contents .thesis.txt"):
        extract_to_file(Colours(), list_images([str(own)]), output)
    assert (tmp_path / "f.npz.partial/thesis.txt").exists()


def test_a_file_that_changes_during_the_work_is_computed_again(folder, tmp_path) -> None:
    own, output = tmp_path / "own", tmp_path / "f.npz"
    own.mkdir()
    for path in folder.iterdir():
        (own / path.name).write_bytes(path.read_bytes())

    class Interrupted(Colours):
        def _features(self, pixels: torch.Tensor) -> torch.Tensor:
            if self.batches:
                raise KeyboardInterrupt
            Image.new("RGB", (8, 8), (0, 0, 255)).save(own / "p0.png")  # it is in this batch already
            return super()._features(pixels)

    with pytest.raises(KeyboardInterrupt):
        extract_to_file(Interrupted(), list_images([str(own)]), output, batch_size=2)
    assert extract_to_file(Colours(), list_images([str(own)]), output, batch_size=2).reused == 1  # p1.png
    assert features_of(output)[0, 2] > 0.99  # blue


def test_tracklets_are_normalised_means(tmp_path, folder) -> None:
    model = Colours()
    paths = sorted(folder.iterdir())
    gone = tmp_path / "gone.png"
    frames: list = []
    entries = [Entry("a", tuple(paths[:5])), Entry("b", (paths[5], gone))]
    entries += [Entry("c", (gone, gone)), Entry("d", (gone,))]
    results = {entry.name: outcome for entry, outcome in extract(model, entries, 3, unreadable_frames=frames)}
    expected = torch.nn.functional.normalize(model(paths[:5]).mean(0), dim=0)
    torch.testing.assert_close(results["a"], expected)
    torch.testing.assert_close(results["b"], model(paths[5])[0])
    assert [path for path, _ in frames] == [gone] and "gone.png" in str(frames[0][1])
    assert "c: none of its 2 frames can be read" in str(results["c"]) and "gone.png: no such" in str(results["d"])


def test_batches_are_full_and_entries_keep_their_order(folder) -> None:
    model = Colours()
    entries = list_images([str(folder)])
    assert [entry for entry, _ in extract(model, entries, 5)] == list(entries)
    assert model.batches == [5, 5, 2]


def test_parquet_holds_what_the_npz_holds(odd_folder, run, tmp_path, capsys) -> None:
    for name in ("f.npz", "f.parquet"):
        assert main([str(odd_folder), "--model", str(run), "--output", str(tmp_path / name), "--device", "cpu"]) == 0
    table = pandas.read_parquet(tmp_path / "f.parquet")
    with np.load(tmp_path / "f.npz", allow_pickle=False) as saved:
        assert list(table["path"]) == list(saved["paths"])
        np.testing.assert_array_equal(np.stack(table["feature"]), saved["features"])
