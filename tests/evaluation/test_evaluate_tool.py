"""clip3d evaluate: numbers as json, and hostile files that are named instead of crashing anything."""

from __future__ import annotations

import csv
import json
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas
import pytest

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError, run_tool
from fastreid_clip3d.evaluation.features_file import read_features, write_features

KEYS = ["mAP", "Rank-1", "Rank-5", "Rank-10", "mINP", "valid_queries"]


def arrays(num_query: int = 6, num_gallery: int = 30) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for side, count in (("query", num_query), ("gallery", num_gallery)):
        made[f"{side}_features"] = generator.standard_normal((count, 5)).astype(np.float32)
        made[f"{side}_pids"] = generator.integers(0, 3, count)
        made[f"{side}_camids"] = generator.integers(-1, 2, count)
        made[f"{side}_clothes_ids"] = made[f"{side}_pids"] * 2 + generator.integers(0, 2, count)
    return made


def save(path: Path, changes: dict | None = None, drop: tuple[str, ...] = (), **sizes: int) -> Path:
    made = {**arrays(**sizes), **(changes or {})}
    np.savez(path, **{key: value for key, value in made.items() if key not in drop})
    return path


def scored(path: Path, *options: str) -> dict:
    out = path.with_suffix(".json")
    assert run_verb(["evaluate", "--features", str(path), "--json", str(out), *options]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(out.read_text(), parse_constant=refuse)


def refused(path: Path, *options: str) -> str:
    out = path.parent / "refused.json"
    with pytest.raises(ClearError) as caught:
        run_verb(["evaluate", "--features", str(path), "--json", str(out), *options])
    assert not out.exists()
    return str(caught.value)


def test_numbers_by_hand(tmp_path: Path) -> None:
    # the query stands at 0 degrees, gallery items ever farther off: other, match (same clothes),
    # other, match (other clothes)
    angles = np.radians([0, 10, 20, 30, 40])
    features = np.stack([np.cos(angles), np.sin(angles)], 1)
    path = save(
        tmp_path / "hand.npz",
        {
            "query_features": features[:1], "query_pids": np.array([1]), "query_camids": np.array([-1]),
            "query_clothes_ids": np.array([5]), "gallery_features": features[1:],
            "gallery_pids": np.array([2, 1, 3, 1]),
            "gallery_camids": np.array([-1, 0, 0, 0]), "gallery_clothes_ids": np.array([7, 5, 8, 6]),
        },
    )  # fmt: skip
    found = scored(path, "--protocols", "general", "CC", "SC")
    assert [list(values) for values in found.values()] == [KEYS] * 3
    assert found["general"] == pytest.approx(
        {"mAP": 50.0, "Rank-1": 0.0, "Rank-5": 100.0, "Rank-10": 100.0, "mINP": 50.0, "valid_queries": 1}
    )
    assert found["CC"]["mAP"] == pytest.approx(100 / 3) and found["SC"]["mAP"] == pytest.approx(50.0)


def test_camera_minus_one_is_a_camera(tmp_path: Path) -> None:
    made = {
        f"{side}_{name}": np.array([value])
        for side in ("query", "gallery")
        for name, value in (("pids", 4), ("camids", -1))
    }
    path = save(tmp_path / "a.npz", made, ("query_clothes_ids", "gallery_clothes_ids"), num_query=1, num_gallery=1)
    assert scored(path, "--protocols", "general")["general"] == {**dict.fromkeys(KEYS), "valid_queries": 0}
    assert scored(path, "--protocols", "nothing")["nothing"]["mAP"] == 100.0


@pytest.mark.parametrize("sizes", [{"num_query": 0}, {"num_gallery": 0}])
def test_empty_sides_give_null(tmp_path: Path, capsys: pytest.CaptureFixture, sizes: dict) -> None:
    path = save(tmp_path / "a.npz", **sizes)
    for values in scored(path).values():
        assert values == {**dict.fromkeys(KEYS), "valid_queries": 0}
    side = next(iter(sizes)).removeprefix("num_")
    assert f"{side}_features has no rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gallery_pids": np.full(30, 99)}, "No person of the query is in the gallery."),
        (
            {"query_camids": np.full(6, 3), "gallery_camids": np.full(30, 3)},
            "All images are from one camera.*choose it with --protocols nothing",
        ),
    ],
)
def test_why_there_is_no_match_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture, changes: dict, why: str
) -> None:
    scored(save(tmp_path / "a.npz", changes), "--protocols", "general")
    assert re.search(f"warning: general: none of 6 queries has a match. {why}", capsys.readouterr().err)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint64, ">i4"])
def test_ids_of_any_integer_type(tmp_path: Path, dtype) -> None:
    expected = scored(save(tmp_path / "a.npz", {key: value for key, value in arrays().items() if "cam" not in key}))
    changes = {key: value.astype(dtype) for key, value in arrays().items() if key.endswith(("pids", "clothes_ids"))}
    assert scored(save(tmp_path / "b.npz", changes)) == expected


def test_huge_ids_are_not_rounded(tmp_path: Path) -> None:
    large = np.uint64(2**63)
    changes = {
        "query_pids": np.full(6, large + np.uint64(1)),
        "gallery_pids": np.array([large, large + np.uint64(2)] * 15),
    }
    assert scored(save(tmp_path / "a.npz", changes), "--protocols", "general")["general"]["valid_queries"] == 0
    changes["gallery_pids"][2] += np.uint64(1)
    changes["gallery_camids"] = np.full(30, 9)
    assert scored(save(tmp_path / "b.npz", changes), "--protocols", "general")["general"]["valid_queries"] == 6


def test_protocols_without_clothes_ids(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", drop=("query_clothes_ids", "gallery_clothes_ids"))
    assert list(scored(path)) == ["general"]
    message = refused(path, "--protocols", "general", "CC", "SC")
    assert str(path) in message and "protocol CC, SC needs" in message


def test_clothes_minus_one_are_not_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clothes = arrays()["gallery_clothes_ids"]
    clothes[[3, 8]] = -1
    path = save(tmp_path / "a.npz", {"gallery_clothes_ids": clothes})
    assert list(scored(path)) == ["general"]
    assert "2 of 36 items have the clothes id -1" in caplog.text
    assert "protocol CC needs" in refused(path, "--protocols", "general", "CC")


def test_the_nearest_protocol_is_named(tmp_path: Path) -> None:
    assert "'cc' is unknown. Did you mean CC" in refused(save(tmp_path / "a.npz"), "--protocols", "cc")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


BAD_FILES = {
    "missing key": ({}, ("gallery_camids",), "misses gallery_camids; it holds query_features"),
    "one side's clothes": ({}, ("query_clothes_ids",), "misses query_clothes_ids"),
    "misspelt": (
        {"query_feature": np.zeros((6, 5))},
        ("query_features",),
        "did you write 'query_feature' for 'query_features'",
    ),
    "object features": ({"query_features": np.array([Trap()] * 6)}, (), "query_features is an object array"),
    "object ids": ({"gallery_pids": np.array([Trap()] * 30)}, (), "gallery_pids is an object array"),
    "integer features": ({"query_features": np.zeros((6, 5), int)}, (), "query_features is int64, expected float16"),
    "complex features": ({"query_features": np.zeros((6, 5), complex)}, (), "query_features is complex128"),
    "float ids": ({"query_pids": np.zeros(6)}, (), "query_pids is float64, expected integers"),
    "boolean ids": ({"query_camids": np.zeros(6, bool)}, (), "query_camids is bool, expected integers"),
    "text ids": ({"query_pids": np.array(["a"] * 6)}, (), "query_pids is <U1, expected integers"),
    "flat features": (
        {"gallery_features": np.zeros(30, "f4")},
        (),
        r"gallery_features has shape (30,), expected (items, dim",
    ),
    "no dimensions": ({"gallery_features": np.zeros((30, 0), "f4")}, (), "gallery_features has shape (30, 0)"),
    "other dimensions": (
        {"gallery_features": np.zeros((30, 4), "f4")},
        (),
        "query_features has 5 columns, gallery_features 4",
    ),
    "too few ids": ({"gallery_pids": np.zeros(29, int)}, (), "gallery_pids has shape (29,), expected (30,)"),
    "columns of ids": ({"gallery_pids": np.zeros((30, 1), int)}, (), "gallery_pids has shape (30, 1), expected (30,)"),
    "scalar": ({"query_camids": np.array(3)}, (), "query_camids has shape (), expected (6,)"),
    "names of numbers": ({"query_names": np.arange(6), "gallery_names": np.arange(30)}, (), "query_names is int64"),
    "half a character": (
        {"query_names": np.array(["\ud800"] * 6), "gallery_names": np.array(["g.jpg"] * 30)},
        (),
        "query_names holds a text that no file name can be",
    ),
    "no character": (
        {"query_names": np.full(6, 2**32 - 1, "u4").view("U1"), "gallery_names": np.array(["g.jpg"] * 30)},
        (),
        "query_names holds a text that no file name can be",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_arrays_are_named(tmp_path: Path, name: str) -> None:
    changes, drop, message = BAD_FILES[name]
    path = tmp_path / "bad.npz"
    assert message in refused(save(path, changes, drop)).removeprefix(f"{path}: ")


def test_a_hostile_key_does_not_reach_the_terminal(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", {"\x1b[31mgallery_camid": np.zeros(1)}, ("gallery_camids",))
    message = refused(path)
    assert r"\x1b[31mgallery_camid" in message and message.isprintable()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side, row", [("query", 4), ("gallery", 17)])
def test_non_finite_features_are_named(tmp_path: Path, side: str, row: int, value: float) -> None:
    features = arrays()[f"{side}_features"]
    features[row, 2] = value
    features[row + 1 :] = np.nan
    path = save(tmp_path / "a.npz", {f"{side}_features": features})
    assert f"{path}: {side}_features, row {row}: holds {np.float32(value)} (column 2)" in refused(path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.npz").read_bytes()
    contents = {
        "empty": (b"", "is empty (0 bytes)"),
        "half": (whole[: len(whole) // 2], "not a complete npz file"),
        "text": (b"not an archive at all", "not a complete npz file"),
        "pickle": (pickle.dumps(Trap()), "not a complete npz file"),
        "flipped": (whole[:400] + bytes(b ^ 255 for b in whole[400:420]) + whole[420:], "query_pids cannot be read"),
    }
    for name, (content, message) in contents.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        found = refused(path)
        assert str(path) in found and message in found, name
    np.save(tmp_path / "single.npy", np.zeros(3))
    assert "holds a single array" in refused(tmp_path / "single.npy")
    assert "no such file" in refused(tmp_path / "nowhere.npz")
    assert "is a folder" in refused(tmp_path)


@pytest.mark.parametrize("header", ["{'descr': '<f4', ", "{'shape': (3,", "(((", "'", "{1: 2}", "", "\0"])
def test_a_broken_header_of_an_array_is_named(tmp_path: Path, header: str) -> None:
    path = save(tmp_path / "whole.npz", drop=("query_features",))
    content = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + f"{header}\n".encode()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("query_features.npy", content)
    message = refused(path)
    assert message.startswith(f"{path}: query_features cannot be read, the file is damaged or cut off")


def test_per_query_results(tmp_path: Path) -> None:
    made = arrays()
    made["query_pids"][2] = 77  # nobody
    names = {
        f"{side}_names": np.array([f"{side} {i}.jpg" for i in range(n)]) for side, n in (("query", 6), ("gallery", 30))
    }
    path = save(tmp_path / "a.npz", {**made, **names})
    found = scored(path, "--protocols", "general", "SC", "--per-query", str(tmp_path / "q.csv"), "--top", "4")
    with open(tmp_path / "q.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["protocol"], row["query"]) for row in rows] == [
        (p, str(q)) for p in ("general", "SC") for q in range(6)
    ]
    general = rows[:6]
    assert (general[2]["matches"], general[2]["AP"], general[2]["top_matches"]) == ("0.0", "", "")
    values = [float(row["AP"]) for row in general if row["AP"]]
    assert 100 * np.mean(values) == pytest.approx(found["general"]["mAP"])
    for row in general:
        top = [int(item) for item in row["top_matches"].split()]
        assert row["query_name"] == f"query {row['query']}.jpg"
        assert row["top_names"] == "\t".join(f"gallery {item}.jpg" for item in top)
        assert row["top_are_matches"].split() == [
            str(int(made["gallery_pids"][item] == int(row["pid"]))) for item in top
        ]
        if "1" in row["top_are_matches"]:
            assert float(row["first_match_rank"]) == row["top_are_matches"].split().index("1") + 1
    assert "written as .csv or .parquet" in refused(path, "--per-query", str(tmp_path / "q.txt"))


def test_parquet_holds_any_id_and_any_name(tmp_path: Path) -> None:
    large = 2**63 + 1
    ids = {name: np.full(6, large, np.uint64) for name in ("query_pids", "query_camids", "query_clothes_ids")}
    names = {"query_names": np.array(["caf\udce9.jpg"] * 6), "gallery_names": np.array(["g\udcff.jpg"] * 30)}
    path = save(tmp_path / "a.npz", {**ids, **names, "gallery_pids": np.full(30, large, np.uint64)})
    scored(path, "--protocols", "general", "--per-query", str(tmp_path / "q.parquet"), "--top", "2")
    table = pandas.read_parquet(tmp_path / "q.parquet")
    assert (table[["pid", "camid", "clothes_id"]] == str(large)).all(axis=None)
    assert set(table["query_name"]) == {r"caf\xe9.jpg"} and set(table["top_names"]) == {"g\\xff.jpg\tg\\xff.jpg"}


def test_more_top_matches_than_the_gallery_has(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz")
    for top in ("30", "10000000000000"):
        scored(path, "--per-query", str(tmp_path / f"{top}.csv"), "--top", top)
    assert (tmp_path / "30.csv").read_text() == (tmp_path / "10000000000000.csv").read_text()


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_memory_that_is_no_number_above_zero_is_refused(tmp_path: Path, value: str) -> None:
    assert f"--max-memory is {value}; it must be" in refused(save(tmp_path / "a.npz"), "--max-memory", value)


def test_reading_gives_what_was_written(tmp_path: Path) -> None:
    query, gallery = read_features(save(tmp_path / "a.npz"))
    query.names, gallery.names = tuple(f"q{i}" for i in range(6)), tuple(f"g{i}" for i in range(30))
    write_features(tmp_path / "new" / "b.npz", query, gallery)
    again = read_features(tmp_path / "new" / "b.npz")
    for one, other in zip((query, gallery), again):
        assert one.features.equal(other.features) and one.names == other.names
        for name in ("pids", "camids", "clothes_ids"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["b.npz"]


def test_the_command_line_ends_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        run_tool(lambda: run_verb(["evaluate", "--features", str(tmp_path / "no.npz")]))
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'no.npz'}: no such file\n"
