"""`clip3d extract`: what it prints of odd names, and flags that would do nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from tests.inference.conftest import picture

MODEL = ["--model", "open_clip:embedded", "--device", "cpu"]


def test_names_that_are_no_text_are_printed_safely(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    picture(1).save(folder / "good.png")
    for name in (b"caf\xe9.jpg", b"red\x1b[31m\n.jpg"):
        (folder / os.fsdecode(name)).write_bytes(b"no picture")
    output = tmp_path / os.fsdecode(b"out\xe9.npz")
    assert run_verb(["extract", str(folder), *MODEL, "--output", str(output)]) == 0
    printed = capsys.readouterr()
    assert f"Written to {tmp_path}/out\\xe9.npz." in printed.out and output.is_file()
    assert "\x1b" not in printed.err
    listed = printed.err[printed.err.index("Not read, 2:") :].splitlines()[1:]
    assert [line.count(".jpg: ") for line in listed] == [1, 1]
    assert listed[0].startswith(f"  {folder}/caf\\xe9.jpg: cannot be read")
    assert listed[1].startswith(f"  {folder}/red\\x1b[31m\\n.jpg: cannot be read")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "LTCC", "--strict"], "--strict: only with IMAGES"),
        (["--data", "LTCC", "--json", "--tracklets"], "--tracklets, --json: only with IMAGES"),
        (["a.jpg", "--root", "datasets"], "--root is the folder of the dataset that --data names"),
    ],
)
def test_flags_without_an_effect_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ClearError, match=message):
        run_verb(["extract", *words, "--model", "no/such/run", "--output", "f.npz"])
