"""One dialect of flags: a flag has the same name, form and meaning in every verb."""

from __future__ import annotations

import argparse
import json

import pytest

from fastreid_clip3d import cli
from fastreid_clip3d.cli import VERBS, run_verb, verb_parser


def parsers() -> list[tuple[str, argparse.ArgumentParser]]:
    found = []
    for verb in VERBS:
        parser = verb_parser(verb)
        found.append((verb, parser))
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found += [(f"{verb} {name}", one) for name, one in action.choices.items()]
    return found


def actions(flag: str) -> dict[str, argparse.Action]:
    """The flag's action by verb; hidden older names are not counted."""
    return {
        verb: action
        for verb, parser in parsers()
        for action in parser._actions
        if flag in action.option_strings and action.help != argparse.SUPPRESS
    }


def test_json_takes_a_file_everywhere() -> None:
    found = actions("--json")
    assert {"check-dataset", "describe", "doctor", "evaluate", "extract", "label", "search"} <= set(found)
    assert {(action.nargs, action.const, action.metavar) for action in found.values()} == {("?", "-", "FILE")}


def test_the_other_flags_have_one_meaning() -> None:
    assert {action.metavar for action in actions("--data").values()} == {"DATASET"}
    assert len(actions("--data")) >= 6
    assert {action.default for action in actions("--batch-size").values()} == {64}
    devices = actions("--device")
    devices.pop("render-bodies")  # it draws without PyTorch3D, which CUDA would need, unless the user names CUDA
    assert {action.default for action in devices.values()} == {""}
    assert not actions("--batch") and not actions("--dataset") and not actions("--statistics")


@pytest.mark.parametrize(
    "words, name, value",
    [
        (["cache-teacher", "--batch", "8"], "batch_size", 8),
        (["label", "--statistics", "LTCC"], "data", "LTCC"),
        (["report", "run", "--dataset", "LTCC"], "data", "LTCC"),
        (["visualize", "ranking", "--models", "run", "--dataset", "LTCC"], "data", "LTCC"),
        (["visualize", "bodies", "--model", "run", "--data", "held_out"], "bodies", "held_out"),
    ],
)
def test_older_names_are_still_taken(words, name, value) -> None:
    assert getattr(verb_parser(words[0]).parse_args(words[1:]), name) == value


@pytest.mark.parametrize(
    "words",
    [
        ["search", "--model", "run", "--top", "0"],
        ["search", "--model", "run", "--batch-size", "-1"],
        ["evaluate", "--features", "f.npz", "--top", "-3"],
        ["calibrate", "--model", "run", "--data", "LTCC", "--batch-size", "0"],
        ["extract", "a.jpg", "--model", "run", "--output", "f.npz", "--batch-size", "x"],
        ["check-dataset", "LTCC", "--workers", "-1"],
        ["label", "a.jpg", "--workers", "-1"],
        ["cache-teacher", "--batch-size", "0"],
        ["cache-teacher", "--workers", "-1"],
        ["visualize", "ranking", "--models", "run", "--top", "0"],
        ["visualize", "embedding", "--model", "run", "--people", "0"],
        ["visualize", "transport", "--model", "run", "--images", "a", "--phrases", "tall", "--most", "0"],
    ],
)
def test_numbers_out_of_range_are_refused_before_the_work(words, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        verb_parser(words[0]).parse_args(words[1:])
    assert ended.value.code == 2
    assert f"argument {words[-2]}: {words[-1]} is no whole number of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search", "--query", "a.jpg", "--gallery", "g", "--free-text"], "--free-text goes with --phrases"),
        (["search", "--query", "a.jpg", "--gallery", "g", "--data", "LTCC"], "--data: only for --evaluate-phrases"),
        (
            ["search", "--evaluate-phrases", "--data", "LTCC", "--phrases", "tall", "--html", "a.html"],
            "--evaluate-phrases .* takes no --phrases, --html",
        ),
        (["export", "--output", "a.onnx", "--max-loss", "0"], "--max-loss: only for --precision float16 or int8"),
        (
            ["export", "--output", "a.onnx", "--calibration", "g", "--data", "LTCC"],
            "--calibration, --data: only for --precision",
        ),
        (["export", "--output", "a.onnx", "--precision", "int8", "--root", "g"], "--root .* Give --data"),
        (["export", "--output", "a.onnx", "--format", "torchscript"], "a.onnx has the ending of onnx and would hold"),
        (
            ["export", "--output", "a.onnx", "--format", "torch.export", "--precision", "float16"],
            r"would hold torch.export. Write .pt2, or no --format",
        ),
    ],
)
def test_flags_without_an_effect_are_refused_before_the_work(words, message) -> None:
    with pytest.raises(cli.ClearError, match=message):
        run_verb([*words, "--model", "run"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["label", "a.jpg", "--plot", "p.png", "--cache", "c"], "--plot, --cache: only for --data"),
        (["label", "a.jpg", "--most", "3"], "--most: only for --data"),
        (["label", "--data", "LTCC", "--sheet", "s.png"], "--sheet: only for images"),
        (["config-keys", "OT", "--output", "keys.md"], "--output writes the whole page, and 'OT' asks for a part"),
        (["config-keys", "XYZ"], "No key .* has 'XYZ' in its name"),
        (
            ["report", "run", "--no-pictures", "--images", "a.jpg", "--data", "LTCC"],
            "so --images, --data would have no",
        ),
    ],
)
def test_flags_of_other_verbs_without_an_effect_are_refused(words, message) -> None:
    with pytest.raises(cli.ClearError, match=message):
        run_verb(words)


def test_a_list_of_datasets_checks_none_of_them() -> None:
    for words in (["LTCC"], ["--json"], ["--sheet", "a.png"]):
        with pytest.raises(cli.ClearError, match="--list prints the names of all datasets and takes nothing else"):
            run_verb(["check-dataset", "--list", *words])


def test_public_without_an_upload_is_refused() -> None:
    with pytest.raises(cli.ClearError, match="--local uploads nothing"):
        run_verb(["push", "run", "me/model", "--local", "folder", "--public"])


def test_json_to_a_file_keeps_the_text_and_without_a_file_replaces_it(tmp_path, capsys) -> None:
    body = ["describe", "--gender", "female", "--betas", "1"]
    assert run_verb([*body, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert run_verb([*body, "--json", str(tmp_path / "body.json")]) == 0
    assert json.loads((tmp_path / "body.json").read_text()) == printed
    with pytest.raises(json.JSONDecodeError):
        json.loads(capsys.readouterr().out)


def test_a_picture_after_json_is_never_overwritten(tmp_path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"precious")
    with pytest.raises(cli.ClearError, match=r"a.jpg: the name ends in .jpg; it can be written as .json"):
        run_verb(["label", "--json", str(picture), "b.jpg"])
    assert picture.read_bytes() == b"precious"
