"""A run as a folder for the hub: the same features, no people of the training, no paths, and a card."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from safetensors.torch import load_file

from fastreid_clip3d.cli import run_verb
from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation import calibration
from fastreid_clip3d.inference import load_model
from fastreid_clip3d.inference.publish import without_machine_paths
from tests.inference.conftest import picture

PICTURES = [picture(seed) for seed in range(4)]


def write_scores(run: Path, seed: int, cc: float) -> None:
    """metrics.json as training writes it, and the seed in config.yaml."""
    cfg = load_config(str(run / "config.yaml"))
    cfg.SEED, cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS = seed, str(run), str(run / "start.pth")
    cfg.MODEL.BACKBONE.PRETRAIN_PATH = "/home/somebody/weights/r50.pth"
    cfg.MODEL.TEACHER.NAME = "local-dir:/home/somebody/clip"
    cfg.MODEL.TEACHER.PRETRAINED = "openai=/home/somebody/x=y/weights.pt"
    cfg.DATASETS.NAMES, cfg.DATASETS.TESTS = ("LTCC",), ("LTCC",)
    cfg.DATASETS.CSV = (("Mine", "/home/somebody/mine.csv"),)
    (run / "config.yaml").write_text(cfg.dump())
    line = {"iteration": 7, "LTCC/CC/mAP": cc, "LTCC/CC/Rank-1": 2 * cc, "LTCC/general/mAP": 50.0}
    (run / "metrics.json").write_text(json.dumps(line) + "\n")


@pytest.fixture
def scored(own_run) -> Path:
    write_scores(own_run, 3, 20.0)
    return own_run


def test_the_folder_is_the_same_model(scored, model, tmp_path, capsys) -> None:
    loaded = load_model(scored, "cpu")
    rates = calibration.ProtocolRates(
        (-1.0, 0.9), (1.0, 0.01), (0.0, 0.2), 100, 100, 10, calibration.Recommended(0.9, 0.01, 0.2)
    )
    calibration.write_calibration(scored, calibration.Calibration(loaded.fingerprint, "Data", 0.01, {"CC": rates}))
    hub = tmp_path / "hub"
    assert run_verb(["push", str(scored), "me/model", "--local", str(hub)]) == 0
    assert "nothing is uploaded" in capsys.readouterr().out
    assert {path.name for path in hub.iterdir()} == {
        "model.safetensors",
        "config.yaml",
        "README.md",
        "calibration.json",
    }
    published = load_model(hub, "cpu")
    assert published.fingerprint == loaded.fingerprint
    assert torch.equal(published(PICTURES), model(PICTURES))
    assert torch.equal(published.phrase_features, loaded.phrase_features)
    assert published.compare(PICTURES[0], PICTURES[0]).same_person is True
    assert not [name for name in load_file(hub / "model.safetensors") if name == "heads.weight"]  # the people
    text = (hub / "config.yaml").read_text()
    assert "/home/somebody" not in text and str(scored) not in text
    settings = yaml.safe_load(text)
    assert settings["MODEL"]["BACKBONE"]["PRETRAIN_PATH"] == "r50.pth"
    assert settings["MODEL"]["TEACHER"]["NAME"] == "local-dir:clip"
    assert settings["MODEL"]["TEACHER"]["PRETRAINED"] == "openai=weights.pt"


@pytest.mark.parametrize(
    ("value", "published"),
    [
        ("/home/me/run/", "run"),
        ("~/run", "run"),
        ("../../client/run", "run"),
        ("logs/demo", "logs/demo"),
        ("hf-hub:OWNER/NAME", "hf-hub:OWNER/NAME"),
        ("openai", "openai"),
    ],
)
def test_paths_of_this_machine_are_cut(scored, value, published) -> None:
    cfg = load_config(str(scored / "config.yaml"))
    cfg.OUTPUT_DIR = value
    found = without_machine_paths(cfg).OUTPUT_DIR
    assert found == published


def test_a_folder_with_other_contents_is_left_alone(scored, tmp_path) -> None:
    """A README.md of somebody's project, a run folder: `push` would overwrite them."""
    (scored / "calibration.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in scored.iterdir()}
    with pytest.raises(ClearError, match=r"--local .* holds calibration.json, which is of no earlier push"):
        run_verb(["push", str(scored), "me/model", "--local", str(scored)])
    assert {path.name: path.read_bytes() for path in scored.iterdir()} == before
    (scored / "calibration.json").unlink()
    project = tmp_path / "project"
    project.mkdir()
    (project / "README.md").write_text("mine")
    with pytest.raises(ClearError, match="holds README.md, which is of no earlier push. Name a new or an empty folder"):
        run_verb(["push", str(scored), "me/model", "--local", str(project)])
    assert (project / "README.md").read_text() == "mine"
    for _ in range(2):
        assert run_verb(["push", str(scored), "me/model", "--local", str(tmp_path / "hub")]) == 0
    with pytest.raises(ClearError, match="is the folder of the model itself"):
        run_verb(["push", str(tmp_path / "hub"), "me/model", "--local", str(tmp_path / "hub")])


def test_the_card_says_what_it_must(scored, tmp_path) -> None:
    other = tmp_path / "seed4"
    other.mkdir()
    for name in ("config.yaml", "model_final.pth"):
        (other / name).write_bytes((scored / name).read_bytes())
    write_scores(other, 4, 24.0)
    words = ["push", str(scored), "me/model", "--other-seeds", str(other), "--licence", "cc-by-nc-4.0"]
    with pytest.raises(ClearError, match="seed4 is another training than .*: MODEL differ"):
        run_verb([*words, "--local", str(tmp_path / "hub")])
    for run in (scored, other):
        settings = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(settings.replace(str(run / "start.pth"), "''"))
    assert run_verb([*words, "--local", str(tmp_path / "hub")]) == 0
    card = huggingface_hub.ModelCard.load(tmp_path / "hub" / "README.md")
    assert card.data.license == "cc-by-nc-4.0" and card.data.library_name == "fastreid_clip3d"
    text = card.text
    assert 'load_model("hf-hub:me/model")' in text and "Trained on LTCC" in text
    assert "| LTCC | CC | 3 | 20.0 | 40.0 | - | - |" in text
    assert "| LTCC | CC | 4 | 24.0 | 48.0 | - | - |" in text
    assert "| LTCC | CC | mean ± std of 2 | 22.0 ± 2.8 | 44.0 ± 5.7 | - | - |" in text  # sqrt(8), sqrt(32)
    for heading in ("## Licence", "## Intended use", "## What it must not be used for", "## Limits"):
        assert heading in text


def test_a_run_without_scores_says_so_and_modules_are_named(own_run, tmp_path) -> None:
    (own_run / "config.yaml").write_text((own_run / "config.yaml").read_text() + "\nIMPORTS: [json]\n")
    assert run_verb(["push", str(own_run), "me/model", "--local", str(tmp_path / "hub")]) == 0
    text = (tmp_path / "hub" / "README.md").read_text()
    assert "The run folder held no scores." in text and "not stated: ask the owner" in text
    assert "modules that are not in this repository: json" in text


def test_the_scores_of_the_last_checkpoint_are_not_those_of_another(scored, tmp_path, capsys) -> None:
    (scored / "model_0001.pth").write_bytes((scored / "model_final.pth").read_bytes())
    for name, has_scores in (("model_final.pth", True), ("model_0001.pth", False)):
        assert run_verb(["push", str(scored / name), "me/model", "--local", str(tmp_path / name)]) == 0
        assert ("| LTCC | CC | 3 |" in (tmp_path / name / "README.md").read_text()) == has_scores
        assert ("model_0001.pth: no scores" in capsys.readouterr().out) != has_scores
    for name in ("model_final.pth", "last_checkpoint"):
        (scored / name).unlink()
    assert run_verb(["push", str(scored / "model_0001.pth"), "me/model", "--local", str(tmp_path / "alone")]) == 0


def test_what_is_uploaded_is_what_is_downloaded(scored, model, tmp_path, monkeypatch) -> None:
    """The hub's client is replaced by a folder; the same files go up and come down."""
    server = tmp_path / "server"
    made = []

    class Client:
        def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
            made.append((name, private, exist_ok))

        def upload_folder(self, repo_id: str, folder_path: Path, allow_patterns: list[str]) -> str:
            target = server / repo_id
            target.mkdir(parents=True)
            for name in allow_patterns:
                if (Path(folder_path) / name).is_file():
                    (target / name).write_bytes((Path(folder_path) / name).read_bytes())
            return f"https://hub/{repo_id}"

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        assert revision in (None, "v2") and "config.yaml" in allow_patterns
        return str(server / name)

    monkeypatch.setattr(huggingface_hub, "HfApi", Client)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert run_verb(["push", str(scored), "me/model"]) == 0
    assert made == [("me/model", True, True)]
    for source in ("hf-hub:me/model", "hf-hub:me/model@v2"):
        assert torch.equal(load_model(source, "cpu")(PICTURES), model(PICTURES))
    (server / "me" / "model" / "model.safetensors").unlink()
    with pytest.raises(ClearError, match="lacks model.safetensors; it is no model of `clip3d push`"):
        load_model("hf-hub:me/model", "cpu")


def test_the_hubs_modules_are_not_imported_unasked(own_run, tmp_path, monkeypatch) -> None:
    (own_run / "config.yaml").write_text((own_run / "config.yaml").read_text() + "\nIMPORTS: [not_yet_imported]\n")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(own_run))
    (own_run / "model.safetensors").touch()
    with pytest.raises(ClearError, match="names modules of the run's author"):
        load_model("hf-hub:me/model", "cpu")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["push", "RUN", "model"], "'model' is no repository of the Hugging Face hub; write OWNER/NAME"),
        (["push", "RUN", "a/b/c"], "write OWNER/NAME"),
        (["push", "gone", "me/model"], "gone: no such run folder"),
        (["push", "RUN", "me/model"], "me/model cannot be written on .*hf auth login"),
        (["check-model", "--model", "hf-hub:me"], "'me' is no repository"),
        (["check-model", "--model", "hf-hub:me/model"], "hf-hub:me/model cannot be downloaded"),
    ],
)
def test_wrong_names_and_no_network_are_named(own_run, monkeypatch, words, message) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ClearError, match=message):
        run_verb([str(own_run) if word == "RUN" else word for word in words])
