"""Phrase scores against a slow reference, the phrases that are understood, and their measurement on true bodies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference import load_model
from fastreid_clip3d.inference.pictures import Entry, list_images
from fastreid_clip3d.inference.search.phrase_quality import rank_people
from fastreid_clip3d.inference.search.phrases import (
    patch_means,
    phrase_directions,
    sentence_of,
)
from fastreid_clip3d.synthcc.index import true_choices_of
from fastreid_clip3d.vocabulary import PHRASES
from tests.inference.search.conftest import save_run
from tests.inference.search.running import names_of, searched
from tests.references import phrases as reference
from tests.standins import small_config, tiny_teacher_folder


def test_scores_are_those_of_the_reference(run: Path, gallery: Path) -> None:
    model = load_model(run, "cpu")
    entries = list_images([gallery])[:2]
    means = np.stack([vector for _, vector in patch_means(model, entries)])
    _, directions = phrase_directions(model, run, PHRASES)
    patches = model.local_features([entry.frames[0] for entry in entries]).tolist()
    table = model.phrase_features.tolist()
    for image, row in ((0, 0), (0, 7), (1, 12), (1, 31)):
        expected = reference.score(patches[image], table[row], table[row + 1 if row % 2 == 0 else row - 1])
        assert float(means[image] @ directions[row]) == pytest.approx(expected, abs=2e-6)


def test_a_tracklets_patches_are_those_of_its_readable_frames(run: Path, gallery: Path) -> None:
    model = load_model(run, "cpu")
    frames = [entry.frames[0] for entry in list_images([gallery])[:3]]
    (gallery / "broken.png").touch()
    tracklet = Entry("tracklet", (*frames, gallery / "broken.png"))
    nothing = Entry("nothing", (gallery / "broken.png",))
    (_, mean), (_, error) = patch_means(model, [tracklet, nothing])
    singles = [vector for _, vector in patch_means(model, [Entry("one", (frame,)) for frame in frames])]
    assert np.allclose(mean, np.mean(singles, axis=0), atol=1e-6) and "broken.png" in str(error)


def test_searching_by_phrases(run: Path, gallery: Path, tmp_path: Path, capsys) -> None:
    options = ("--top", "12", "--sheet", str(tmp_path / "sheet.png"), "--html", str(tmp_path / "page.html"))
    tall = searched(run, gallery, "--phrases", "tall", *options)
    assert "12 computed" in capsys.readouterr().err
    short = searched(run, gallery, "--phrases", "SHORT", *options)
    assert " computed, " not in capsys.readouterr().err
    assert tall["answers"][0]["query"] == "Tall" and len(tall["answers"][0]["hits"]) == 12
    assert names_of(tall["answers"][0]) == names_of(short["answers"][0])[::-1]
    scores = {hit["name"]: hit["score"] for hit in tall["answers"][0]["hits"]}
    both = searched(run, gallery, "--phrases", "tall", "broad shouldered", *options)["answers"][0]
    broad = searched(run, gallery, "--phrases", "Broad-Shouldered", *options)["answers"][0]
    for hit in broad["hits"]:
        scores[hit["name"]] = (scores[hit["name"]] + hit["score"]) / 2
    assert both["query"] == "Tall, Broad-Shouldered"
    assert {hit["name"]: hit["score"] for hit in both["hits"]} == pytest.approx(scores, abs=1e-6)


def test_phrases_that_are_not_known(run: Path, plain_run: Path, gallery: Path) -> None:
    with pytest.raises(
        ClearError, match="'brod-shoulderd' is none of the 32.*Did you mean Broad-Shouldered.*--free-text"
    ):
        searched(run, gallery, "--phrases", "tall", "brod-shoulderd")
    with pytest.raises(ClearError, match="phrase is empty"):
        searched(run, gallery, "--phrases", " ", "--free-text")
    with pytest.raises(ClearError, match="no text space.*OTLoss"):
        searched(plain_run, gallery, "--phrases", "tall")


def test_sentences_of_free_text() -> None:
    assert sentence_of("bald") == "A photo of a person; the person is bald."
    assert sentence_of("has a beard.") == "A photo of a person; the person has a beard."
    assert sentence_of("wears a coat") == "A photo of a person; the person wears a coat."


def test_free_text_goes_through_the_teacher(run: Path, gallery: Path) -> None:
    model = load_model(run, "cpu")
    shown, directions = phrase_directions(model, run, ["tall", "tall."], free_text=True)
    row = PHRASES.index("Tall")
    assert shown == ["Tall", "A photo of a person; the person is tall."]
    # the same sentence as the phrase's own, against all phrases instead of its opposite
    expected = model.phrase_features[row] - model.phrase_features.mean(0)
    assert np.allclose(directions[1], expected.numpy(), atol=1e-5)
    assert len(searched(run, gallery, "--phrases", "wears a hat", "--free-text")["answers"][0]["hits"]) == 10


def test_free_text_needs_the_teacher_of_the_training(run: Path, tmp_path: Path) -> None:
    teacher = tiny_teacher_folder(tmp_path / "teacher")
    other = save_run(tmp_path / "other", small_config(teacher, ("CrossEntropyLoss", "OTLoss")))
    weights = torch.load(other / "model_final.pth", weights_only=True)
    weights["model"]["phrase_table"] += torch.randn_like(weights["model"]["phrase_table"])
    torch.save(weights, other / "model_final.pth")
    model = load_model(other, "cpu")
    phrase_directions(model, other, ["tall"])
    with pytest.raises(ClearError, match="another teacher"):
        phrase_directions(model, other, ["bald"], free_text=True)
    for path in (tmp_path / "teacher").iterdir():
        path.unlink()
    with pytest.raises(ClearError, match="cannot be loaded"):
        phrase_directions(model, other, ["bald"], free_text=True)


def test_quality_is_that_of_the_reference() -> None:
    rng = np.random.default_rng(0)
    pids = rng.permutation(np.repeat(np.arange(100, 123), 3))
    of_person = rng.integers(0, 2, (23, 16))
    choices = of_person[pids - 100]
    scores = rng.standard_normal((len(pids), 32))
    found = rank_people(scores, pids, choices)
    assert (found.people, found.images) == (23, 69)
    for row in range(32):
        fits = [bool(of_person[person, row // 2] == row % 2) for person in range(23)]
        means = [float(scores[pids == person + 100, row].mean()) for person in range(23)]
        assert found.base_rate[row] == pytest.approx(np.mean(fits))
        assert found.precision[row] == pytest.approx(reference.precision_at_10(means, fits))
        assert found.auc[row] == pytest.approx(reference.auc(means, fits))
    assert found.chance[0] < found.base_rate.mean() < found.chance[1]
    assert found.table().count("\n") == 36 and "| mean " in found.table()


def test_perfect_scores_have_perfect_precision() -> None:
    of_person = np.random.default_rng(1).permuted(np.repeat([[0], [1]], 15, axis=0).repeat(16, axis=1), axis=0)
    pids, choices = np.repeat(np.arange(30), 2), of_person.repeat(2, axis=0)
    scores = np.stack([np.where(choices[:, row // 2] == row % 2, 1.0, -1.0) for row in range(32)], axis=1)
    found = rank_people(scores, pids, choices)
    assert (found.precision == 1).all() and (found.single_precision == 1).all() and (found.auc == 1).all()
    assert found.chance[1] < 0.7


def test_measuring_a_model(run: Path, synthcc: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "phrases.json"
    arguments = [
        "search",
        "--evaluate-phrases",
        "--model",
        str(run),
        "--data",
        "SynthCCTiny",
        "--json",
        str(out),
        "--device",
        "cpu",
    ]
    assert run_verb(arguments) == 0
    stored = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert stored["people"] == 12 and stored["images"] == 48 and list(stored["phrases"]) == list(PHRASES)
    assert "| Broad-Shouldered" in capsys.readouterr().out
    (synthcc / "index.npz").unlink()
    with pytest.raises(ClearError, match="true descriptors"):
        run_verb(arguments)
    with pytest.raises(ClearError, match="--data DATASET"):
        run_verb(arguments[:4])


def test_true_choices_follow_the_files(synthcc: Path) -> None:
    with np.load(synthcc / "index.npz") as arrays:
        paths, choices = [str(synthcc / name) for name in arrays["files"]], arrays["phrase_choices"]
    order = np.random.default_rng(0).permutation(len(paths))
    assert np.array_equal(true_choices_of(synthcc, [paths[place] for place in order]), choices[order])
    with pytest.raises(ClearError, match="does not know"):
        true_choices_of(synthcc, [str(synthcc / "query" / "unknown.jpg")])
