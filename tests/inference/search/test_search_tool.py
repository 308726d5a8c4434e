"""clip3d search and clip3d calibrate on small folders: answers, files, hostile names, calibrated verdicts."""

from __future__ import annotations

import html.parser
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference import load_model
from fastreid_clip3d.inference.search.answers import Answer, Answers
from fastreid_clip3d.inference.search.pictures import SAME, TILE, UNKNOWN, differing_parts, draw_sheet, shortened
from tests.inference.search.conftest import draw
from tests.inference.search.running import names_of, searched


def test_answers_are_the_nearest_pictures(run: Path, gallery: Path, tmp_path: Path, capsys) -> None:
    query = str(shutil.copy(gallery / "camera1" / "3.png", tmp_path / "query.png"))
    found = searched(run, gallery, "--query", query, "--top", "5")
    (answer,) = found["answers"]
    assert names_of(answer)[0] == "3.png" and answer["hits"][0]["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert found["gallery_size"] == 12 and found["unreadable"] == []
    model = load_model(run, "cpu")
    paths = sorted(map(str, gallery.rglob("*.png")))
    similarities = (model(paths) @ model(query)[0]).numpy()
    order = np.argsort(-similarities)[:5]
    assert [hit["name"] for hit in answer["hits"]] == [paths[place] for place in order]
    assert [hit["similarity"] for hit in answer["hits"]] == pytest.approx(similarities[order].tolist(), abs=1e-5)
    printed = capsys.readouterr()
    assert "3.png" in printed.out and "12 computed" in printed.err


def test_only_changes_are_computed_and_the_querys_own_file_is_not_listed(run: Path, gallery: Path, capsys) -> None:
    searched(run, gallery, "--query", str(gallery / "camera0"))
    capsys.readouterr()
    draw(gallery / "camera0" / "new.png", 99)
    (gallery / "camera1" / "1.png").unlink()
    found = searched(run, gallery, "--query", str(gallery / "camera0"), "--top", "100")
    assert "1 computed, 1 removed" in capsys.readouterr().err
    assert len(found["answers"]) == 7
    for answer in found["answers"]:
        assert answer["query"] not in [hit["name"] for hit in answer["hits"]] and len(answer["hits"]) == 11
    searched(run, gallery, "--query", str(gallery / "camera0"))
    assert " computed, " not in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--one-person", "best"], ["--nfc"]])
def test_links_to_the_querys_own_file_are_not_listed(run: Path, gallery: Path, options: list[str]) -> None:
    for name in ("a.png", "z.png"):
        (gallery / name).symlink_to(gallery / "camera0" / "4.png")
    query = ["--query", str(gallery / "camera0" / "4.png")]
    (answer,) = searched(run, gallery, *query, "--top", "11", *options)["answers"]
    assert sorted(names_of(answer)) == sorted(f"{number}.png" for number in range(12) if number != 4)


def test_a_frame_is_not_the_track_that_it_is_of(run: Path, gallery: Path) -> None:
    for frame in ("0.png", "2.png"):
        query = ["--query", str(gallery / "camera0" / frame), "--tracklets"]
        (answer,) = searched(run, gallery, *query)["answers"]
        assert sorted(names_of(answer)) == ["camera0", "camera1"]
    (answer,) = searched(run, gallery, "--query", str(gallery / "camera0"), "--tracklets")["answers"]
    assert names_of(answer) == ["camera1"]


def test_unreadable_pictures_are_listed_and_the_rest_is_found(run: Path, gallery: Path, capsys) -> None:
    (gallery / "empty.jpg").touch()
    whole = draw(gallery / "cut.png", 50).read_bytes()
    (gallery / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((40, 20), np.uint8)).save(gallery / "grey.png")
    (gallery.parent / "broken.jpg").write_bytes(b"no picture")
    query = [str(gallery / "grey.png"), str(gallery.parent / "broken.jpg")]
    for _ in range(2):
        found = searched(run, gallery, "--query", *query)
        assert {os.path.basename(item["name"]) for item in found["unreadable"]} == {
            "empty.jpg",
            "cut.png",
            "broken.jpg",
        }
        assert len(found["answers"]) == 1 and found["gallery_size"] == 13
        assert "3 pictures could not be read" in capsys.readouterr().err
    arguments = ["search", "--model", str(run), "--gallery", str(gallery), "--query", query[1], "--device", "cpu"]
    assert run_verb(arguments) == 1


class Page(html.parser.HTMLParser):
    """The tags, links and texts of a page; fails on tags that do not close in order."""

    EMPTY = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.alternatives: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        assert not [name for name in values if name.startswith("on")] and "href" not in values
        if tag == "img":
            self.sources.append(values["src"])
            self.alternatives.append(values["alt"])
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data) -> None:
        self.texts.append(data)


HOSTILE = [
    "<script>alert(1)<",
    "a\"b'c&amp;d",
    "new\nline",
    "[red]rich[",
    "esc\x1b[31m",
    'onerror=x" onload="y',
    "ünï 姓名",
]


def test_hostile_names_stay_texts(run: Path, tmp_path: Path, capsys) -> None:
    gallery = tmp_path / "gal<b>lery"
    for number, name in enumerate(HOSTILE):
        draw(gallery / f"{name}.png", number)
    stored = draw(tmp_path / "plain.png", 77).read_bytes()
    not_utf8 = os.fsencode(gallery) + b"/\xff\xfe.png"
    with open(not_utf8, "wb") as file:
        file.write(stored)
    (gallery / "<i>broken.png").write_bytes(b"")
    page, sheet = tmp_path / "page.html", tmp_path / "sheet.png"
    found = searched(run, gallery, "--query", str(tmp_path / "plain.png"), "--html", str(page), "--sheet", str(sheet))
    hits = [hit["name"] for hit in found["answers"][0]["hits"]]
    assert os.fsencode(hits[0]) == not_utf8
    assert sorted(map(os.path.basename, hits[1:])) == sorted(f"{name}.png" for name in HOSTILE)
    read = Page(page.read_text(encoding="utf-8"))
    assert set(read.tags) == {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "div", "figure", "img", "figcaption", "span",
        "ul", "li",
    }  # fmt: skip
    assert len(read.sources) == 9 and all(source.startswith("data:image/jpeg;base64,") for source in read.sources)
    assert {"<script>alert(1)<.png", "a\"b'c&amp;d.png", "new\\nline.png"} <= set(read.alternatives)
    printed = capsys.readouterr()
    assert "[red]rich[.png" in printed.out and "\x1b[31m" not in printed.out
    with Image.open(sheet) as picture:
        assert picture.width > 9 * 96
    # and the index knows them again
    searched(run, gallery, "--query", str(tmp_path / "plain.png"))
    assert " computed, " not in capsys.readouterr().err


def test_tracklets(run: Path, gallery: Path) -> None:
    found = searched(run, gallery, "--query", str(gallery / "camera0"), "--tracklets")
    assert found["gallery_size"] == 2 and names_of(found["answers"][0]) == ["camera1"]
    model = load_model(run, "cpu")
    features = [model(sorted(map(str, (gallery / f"camera{number}").glob("*.png")))).mean(0) for number in (0, 1)]
    similarity = float(features[0] @ features[1] / features[0].norm() / features[1].norm())
    assert found["answers"][0]["hits"][0]["similarity"] == pytest.approx(similarity, abs=1e-5)


def test_an_index_in_another_folder(run: Path, gallery: Path, tmp_path: Path) -> None:
    (gallery / ".fastreid_clip3d").touch()
    with pytest.raises(ClearError, match="--index FOLDER"):
        searched(run, gallery, "--query", str(gallery / "camera0"))
    searched(run, gallery, "--query", str(gallery / "camera0"), "--index", str(tmp_path / "indices"))
    assert len(list((tmp_path / "indices").rglob("listing.npz"))) == 1


def test_what_cannot_be_searched_is_named(run: Path, gallery: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    query = str(gallery / "camera0")
    with pytest.raises(ClearError, match="holds no pictures"):
        searched(run, tmp_path / "nothing", "--query", query)
    with pytest.raises(ClearError, match="no such folder"):
        searched(run, tmp_path / "nowhere", "--query", query)
    with pytest.raises(ClearError, match="can be written as .png"):
        searched(run, gallery, "--query", query, "--sheet", "x.txt")
    for options in ([], ["--query", query, "--phrases", "tall"]):
        with pytest.raises(ClearError, match="either --query or --phrases"):
            run_verb(["search", "--model", str(run), "--gallery", str(gallery), *options])


def calibrated(run: Path, data: str, *options: str) -> None:
    assert run_verb(["calibrate", "--model", str(run), "--data", data, "--device", "cpu", *options]) == 0


def test_a_calibrated_model_says_how_sure_it_is(
    run: Path, synthcc: Path, gallery: Path, tmp_path: Path, capsys
) -> None:
    own = shutil.copytree(run, tmp_path / "run")
    query = str(shutil.copy(gallery / "camera1" / "3.png", tmp_path / "query.png"))
    assert load_model(own, "cpu").compare(query, query).same_person is None
    calibrated(own, "SynthCCTiny", "--false-match-rate", "0.05")
    printed = capsys.readouterr()
    assert "| SC" in printed.out and "circular" in printed.err and "SynthCCTiny" in printed.err
    stored = json.loads((own / "calibration.json").read_text())
    assert list(stored["protocols"]) == ["CC", "SC", "general"]
    assert (
        stored["protocols"]["general"]["genuine_pairs"] == 12 * 4
        and stored["protocols"]["CC"]["genuine_pairs"] == 12 * 2
    )
    assert stored["protocols"]["CC"]["impostor_pairs"] == 24 * 22
    with Image.open(own / "calibration.png") as picture:
        assert picture.format == "PNG"

    hit = searched(own, gallery, "--query", query)["answers"][0]["hits"][0]
    assert hit["same_person"] is True and hit["by_protocol"]["CC"]["same_person"] is True
    assert "┃ verdict" in capsys.readouterr().out
    said = load_model(own, "cpu").compare(query, query)
    assert said.same_person is True and "same person (CC, SC, general)" in said.sentence

    assert said.sentence.endswith("(measured on SynthCCTiny)")

    stored["fingerprint"] = "0" * 32
    (own / "calibration.json").write_text(json.dumps(stored))
    with pytest.raises(ClearError, match="another model"):
        searched(own, gallery, "--query", query)
    with pytest.raises(ClearError, match="another model"):
        load_model(own, "cpu").compare(query, query)


def test_calibrating_on_saved_features(run: Path, plain_run: Path, synthcc: Path, tmp_path: Path, capsys) -> None:
    from fastreid_clip3d.data.datasets import build_dataset
    from fastreid_clip3d.evaluation.features_file import write_features
    from fastreid_clip3d.inference.dataset_features import dataset_features

    model = load_model(run, "cpu")
    query, gallery, protocols = dataset_features(model, "SynthCCTiny", progress=False)
    assert [protocol.name for protocol in protocols] == ["CC", "SC", "general"] and len(query) == len(gallery) == 24
    write_features(tmp_path / "saved.npz", query, gallery)
    calibrated(run, str(tmp_path / "saved.npz"), "--output", str(tmp_path / "saved"))
    calibrated(run, "SynthCCTiny", "--output", str(tmp_path / "fresh"), "--protocols", "general", "CC", "SC")
    one, other = (json.loads((tmp_path / name / "calibration.json").read_text()) for name in ("saved", "fresh"))
    assert one["protocols"] == other["protocols"] and not (run / "calibration.json").exists()
    lines = [
        f"{record.path},{record.pid},{record.camid},{record.clothes_id},{split}"
        for split in ("query", "gallery")
        for record in getattr(build_dataset("SynthCCTiny"), split)
    ]
    (tmp_path / "own.csv").write_text("\n".join(["path,pid,camid,clothes,split", *lines]))
    calibrated(run, str(tmp_path / "own.csv"), "--output", str(tmp_path / "own"), "--protocols", "CC", "SC", "general")
    own = json.loads((tmp_path / "own" / "calibration.json").read_text())
    assert own["dataset"] == "own.csv" and own["protocols"] == one["protocols"]
    named = shutil.copytree(run, tmp_path / "named")
    cfg = model.cfg.clone()
    cfg.defrost()
    cfg.DATASETS.CSV = (("OwnPeople", str(tmp_path / "own.csv")),)
    (named / "config.yaml").write_text(cfg.dump())
    calibrated(named, "OwnPeople", "--protocols", "CC", "SC", "general")
    assert json.loads((named / "calibration.json").read_text())["protocols"] == one["protocols"]
    with pytest.raises(ClearError, match="No dataset is called 'SynthCTiny'. Did you mean SynthCCTiny"):
        calibrated(run, "SynthCTiny")
    with pytest.raises(ClearError, match="holds another model's features"):
        calibrated(plain_run, str(tmp_path / "saved.npz"), "--output", str(tmp_path / "wrong"))
    with pytest.raises(ClearError, match="between 0 and 1"):
        calibrated(run, "SynthCCTiny", "--false-match-rate", "1")
    with pytest.raises(ClearError, match="Did you mean CC"):
        calibrated(run, "SynthCCTiny", "--protocols", "cc", "--output", str(tmp_path / "wrong"))
    assert not (tmp_path / "wrong").exists()


def test_evaluate_scores_what_extract_writes_of_a_dataset(run: Path, synthcc: Path, tmp_path: Path, capsys) -> None:
    """The same numbers as those of the features by hand; a file of pictures without ids is refused by its name."""
    words = ["--model", str(run), "--device", "cpu"]
    root = ["--root", str(synthcc.parent)]
    path = tmp_path / "tiny.npz"
    assert run_verb(["extract", "--data", "SynthCCTiny", *words, *root, "--output", str(path)]) == 0
    assert f"clip3d evaluate --features {path}" in capsys.readouterr().out
    assert run_verb(["evaluate", "--features", str(path), "--protocols", "nothing", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["nothing"]
    model = load_model(run, "cpu")
    sides = [sorted(map(str, (synthcc / split).iterdir())) for split in ("query", "gallery")]
    nearest = (model(sides[0]) @ model(sides[1]).T).argmax(1)
    right = [os.path.basename(q)[:4] == os.path.basename(sides[1][g])[:4] for q, g in zip(sides[0], nearest)]
    assert scores["valid_queries"] == 24 and scores["Rank-1"] == pytest.approx(100 * np.mean(right))
    assert run_verb(["extract", str(synthcc / "query"), *words, "--output", str(tmp_path / "own.npz")]) == 0
    with pytest.raises(ClearError, match="own.npz is a file of `clip3d extract`: .* no person and camera ids"):
        run_verb(["evaluate", "--features", str(tmp_path / "own.npz")])


def test_captions_of_a_sheet_keep_what_differs() -> None:
    """Long names that differ at their beginning, in their middle or in their folder have different captions."""
    font = ImageFont.load_default(11)
    common = "2024-11-05_recording_of_the_entrance"
    for names in (
        [f"cam{number:02d}_{common}_0001.jpg" for number in range(9)],
        [f"{common}_cam{number:02d}_{common}.jpg" for number in range(9)],
        [f"{common}_{number:04d}.jpg" for number in range(9)],
        [f"camera{number}/{common}.jpg" for number in range(9)],
    ):
        captions = [shortened(part, font, TILE[0]) for part in differing_parts(names)]
        assert len(set(captions)) == 9 and all(font.getlength(caption) <= TILE[0] for caption in captions)
    assert differing_parts(["a.png", "a.png"]) == ["a.png", "a.png"]
    assert differing_parts(["p1.png", "p1_b.png"]) == ["p1.png", "_b"]
    short = shortened("a" * 40 + "-" + "b" * 40, font, TILE[0])
    assert short.startswith("aaa") and short.endswith("bbb") and "…" in short


@pytest.mark.parametrize("count, name", [(72, "sheet.webp"), (288, "sheet.jpg"), (72, "sheet.png")])
def test_a_sheet_that_no_file_can_hold_is_named(tmp_path: Path, count: int, name: str) -> None:
    """A row has 228 pixels; WebP ends at 16383 of them, JPEG at 65500 (Pillow's encoders say so)."""
    answers = Answers((Answer("q", None, ()),) * count, "score", ".", 0)
    if name == "sheet.png":
        assert Image.open(draw_sheet(answers, tmp_path / name)).height == 72 * 228 + 8
        return
    with pytest.raises(ClearError, match=f"{name}: the sheet would be 120 x .* pixels.* a .png file, or --html"):
        draw_sheet(answers, tmp_path / name)
    draw_sheet(Answers(answers.answers[1:], "score", ".", 0), tmp_path / name)  # one row less is a picture


def test_places_of_results_are_checked_before_the_work(run: Path, gallery: Path, tmp_path: Path) -> None:
    query = ["--query", str(gallery / "camera0")]
    for options in (["--html", "x.txt"], ["--json", str(gallery)], ["--index", str(gallery / "camera0" / "0.png")]):
        with pytest.raises(ClearError, match=r"x.txt|is a folder|is no folder|\.json"):
            run_verb(["search", "--model", str(run), "--gallery", str(gallery), *query, *options])
    words = ["calibrate", "--model", str(run), "--data", "SynthCCTiny"]
    with pytest.raises(ClearError, match="--output .* is no folder"):
        run_verb([*words, "--output", str(gallery / "camera0" / "0.png")])
    assert not (gallery / ".fastreid_clip3d").exists()


def test_verdicts_are_withdrawn_where_the_calibration_does_not_hold(
    run: Path, synthcc: Path, tmp_path: Path, capsys
) -> None:
    """Forty nearly equal pictures: none is of the calibration's people, and all of them pass its threshold."""
    own = shutil.copytree(run, tmp_path / "run")
    calibrated(own, "SynthCCTiny", "--false-match-rate", "0.05")
    alike = tmp_path / "alike"
    alike.mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = np.clip(120 + rng.integers(-3, 4, (64, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(alike / f"{number:02d}.png")
    page, sheet = tmp_path / "found.html", tmp_path / "found.png"
    query = str(alike / "00.png")
    found = searched(own, alike, "--query", query, "--html", str(page), "--sheet", str(sheet))
    assert "does not hold for this gallery" in found["calibration_note"]
    assert all("same_person" not in hit for hit in found["answers"][0]["hits"])
    assert "does not hold for this gallery" in page.read_text() and 'class="same"' not in page.read_text()
    assert "┃ verdict" not in capsys.readouterr().out
    with Image.open(sheet) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert SAME not in colours and UNKNOWN in colours
