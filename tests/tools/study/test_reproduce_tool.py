"""The command line: what it makes of its arguments, and the tables of datasets that are not here."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.errors import ClearError
from tests.conftest import REPOSITORY
from tools.reproduce import ON_DATASETS, parse_arguments
from tools.study import paper, real
from tools.study.commands import reproduce


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "datasets"))


def call(tmp_path: Path, *arguments: str) -> int:
    return reproduce(parse_arguments([*arguments, "--study-folder", str(tmp_path / "study")]), "the command")


def test_defaults_depend_on_the_table() -> None:
    ten, two = parse_arguments(["--table", "10"]), parse_arguments(["--table", "2"])
    assert ten.seeds == [0, 1, 2] and two.seeds == [0]
    assert ten.data_folder == Path("datasets/demo") and two.data_folder.name == "datasets"
    assert parse_arguments(["--table", "10", "--jobs", "2", "--threads", "1"]).threads == 1


@pytest.mark.parametrize(
    "arguments",
    [["--table", "12"], ["--table", "10", "--data", "real"], ["--table", "4", "--data", "synthcc"],
     ["--table", "10", "--jobs", "0"], ["--table", "10", "--seeds", "-1"], ["--table", "9", "--bodies", "0"],
     ["--table", "labels", "--list"], ["--table", "9", "--dry-run"], ["--table", "9", "--tables-only"],
     ["--table", "labels", "--options", "SEED", "1"]],
)  # fmt: skip
def test_arguments_that_cannot_be_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(arguments)
    assert ended.value.code == 2


def test_every_column_of_tables_2_to_8_has_configs_and_a_number_of_the_paper() -> None:
    assert set(real.COLUMNS) == set(ON_DATASETS)
    for number, datasets in real.COLUMNS.items():
        rows = {row.name: row for row in real.table_of_datasets(number)}
        columns = set()
        for dataset, by_protocol in datasets.items():
            method = f"{dataset}_clip3d"
            assert {method, f"{dataset}_bagtricks"} <= set(rows)
            assert load_config(str(REPOSITORY / rows[method].config)).MODEL.META_ARCHITECTURE == "CLIP3DReID"
            for protocol, column in by_protocol.items():
                assert real.paper_score(number, method, protocol) == paper.TABLES[number]["CLIP3DReID"][column]
                assert real.paper_score(number, f"{dataset}_bagtricks", protocol) is None
                columns.add(column)
        assert columns == set(paper.TABLES[number]["CLIP3DReID"])


def test_a_table_without_its_data_says_what_is_missing_and_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ClearError, match="No row of table 8 can run"):
        call(tmp_path, "--table", "8", "--variants", "ltcc_to_prcc_bagtricks")
    told = capsys.readouterr().out
    assert str(tmp_path / "datasets" / "LTCC_ReID") in told and str(tmp_path / "datasets" / "prcc") in told
    assert "https://" in told


def test_a_dry_run_prints_commands_and_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ("market1501_clip3d", "market1501_AGW")
    assert call(tmp_path, "--table", "7", "--dry-run", "--seeds", "3", "--variants", *rows) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("clip3d cache-teacher --config-file configs/CLIP3D/market1501.yml")
    assert "configs/CLIP3D/market1501.yml --resume SEED 3" in lines[1] and "market1501_AGW.yml" in lines[2]
    assert lines[3].startswith("# missing for CLIP3DReID, Market-1501: Market1501")
    assert not (tmp_path / "study").exists()


def test_the_list_shows_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path, "--table", "10", "--list") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("without_synthetic", "sbs", "true_labels"))


def test_tables_of_nothing_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path, "--table", "10", "--tables-only") == 0
    assert "0 of the 0 started runs are finished" in capsys.readouterr().out


def test_cross_has_no_validation_people(tmp_path: Path) -> None:
    with pytest.raises(ClearError, match="validation"):
        call(tmp_path, "--table", "cross", "--split", "val")


def test_results_of_a_table_of_datasets_have_the_papers_numbers_beside_them(tmp_path: Path) -> None:
    rows = [
        {"variant": "ccvid_clip3d", "title": "CLIP3DReID, CCVID", "dataset": "CCVID", "protocol": protocol,
         "seed": seed, "mAP": 80.0 + seed, "Rank-1": 81.0, "minutes": 60.0}
        for protocol in ("general", "CC", "CC-mean-of-frames") for seed in (0, 2)
    ]  # fmt: skip
    study = real.DatasetStudy("5", "Table 5", [], real.table_of_datasets("5"), tmp_path, tmp_path)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in study.table(rows).splitlines()[2:]]
    assert lines[0] == ["CLIP3DReID, CCVID", "general", "2", "81.0 ± 1.4", "81.0 ± 0.0", "60", "83.9 / 84.5"]
    assert lines[1][-1] == "83.2 / 82.4" and lines[2][-1] == ""
