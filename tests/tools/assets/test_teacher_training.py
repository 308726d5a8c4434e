from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher import load_teacher
from fastreid_clip3d.vocabulary import PHRASES, prompts
from tools.assets.teacher.augment import augment
from tools.assets.teacher.captions import WORDINGS, caption, draw_captions, single_phrase_sentences
from tools.assets.teacher.export import export
from tools.assets.teacher.losses import caption_loss, pair_loss, relation_loss
from tools.assets.teacher.model import create_clip, split_trunk
from tools.assets.teacher.pictures import NUM_SHAPES, LabelledPictures
from tools.assets.teacher.scores import evaluate
from tools.assets.teacher.settings import TrainingSettings
from tools.assets.teacher.training import TeacherTraining

SETTINGS = TrainingSettings(
    steps=80,
    batch=16,
    learning_rate=4e-3,
    warmup=5,
    text_steps=60,
    visual_tower="test_efficientnet",
    image_size=(48, 24),
    embed_dim=48,
    text_width=32,
    text_layers=1,
    frozen_stages=1,
    views=2,
)


def striped(count: int, seed: int) -> LabelledPictures:
    """Pictures whose labels can be seen: the upper half tells the even pairs, the lower half the odd ones."""
    rng = np.random.default_rng(seed)
    halves = rng.integers(0, 2, (count, 2))
    choices = np.tile(halves, 8)
    images = rng.integers(100, 150, (count, 48, 24, 3))
    for half in range(2):
        images[:, half * 24 : (half + 1) * 24] += ((1 - 2 * halves[:, half]) * 90)[:, None, None, None]
    return LabelledPictures(
        images.clip(0, 255).astype(np.uint8),
        (1 - choices).astype(np.float32),
        np.arange(count),
        np.zeros(count, np.int64),
        np.repeat(1.0 - 2.0 * choices, 2, axis=1)[:, :NUM_SHAPES].astype(np.float32),
        np.zeros(count, bool),
    )


def test_the_first_wording_is_the_prompt():
    assert single_phrase_sentences(WORDINGS[0]) == prompts()


def test_captions_say_what_is_chosen():
    choices = np.array([0, 1] * 8)
    assert caption(choices, np.array([4])) == "A photo of a person; the person has long legs."
    said = caption(choices, np.array([0, 1, 5]))
    assert said == "A photo of a person; the person is muscular, is narrow-shouldered and has short torso."


def test_every_image_that_fits_a_caption_counts_as_its_positive():
    rng = np.random.default_rng(0)
    choices = rng.integers(0, 2, (20, 16))
    captions, fits = draw_captions(choices, rng)
    assert fits.diagonal().all() and not fits.all()
    start = "A photo of a person; the person "
    for image in range(20):
        own = {PHRASES[2 * m + choices[image, m]].lower() for m in range(16)}
        for column, said in enumerate(captions):
            parts = said[len(start) : -1].replace(" and ", ", ").split(", ")
            assert bool(fits[image, column]) == ({part.split(" ", 1)[1] for part in parts} <= own), (said, own)


def test_pair_loss_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    features, table = torch.randn(3, 8, generator=generator), torch.randn(32, 8, generator=generator)
    targets = torch.rand(3, 16, generator=generator)
    total = 0.0
    for b in range(3):
        for m in range(16):
            one, two = (float(F.cosine_similarity(features[b], table[2 * m + side], dim=0)) for side in (0, 1))
            probability = math.exp(5 * one) / (math.exp(5 * one) + math.exp(5 * two))
            target = float(targets[b, m])
            total -= target * math.log(probability) + (1 - target) * math.log(1 - probability)
    assert float(pair_loss(features, table, torch.tensor(5.0), targets)) == pytest.approx(total / 48, rel=1e-5)


def test_caption_loss_against_a_loop():
    generator = torch.Generator().manual_seed(1)
    features, captions = torch.randn(4, 6, generator=generator), torch.randn(4, 6, generator=generator)
    fits = torch.eye(4, dtype=torch.bool)
    fits[0, 2] = fits[3, 1] = True
    cosine = F.cosine_similarity(features[:, None], captions[None], dim=-1).double() * 3
    total = 0.0
    for i in range(4):
        for logits, row in ((cosine[i], fits[i]), (cosine[:, i], fits[:, i])):
            logs = [float(logits[j] - torch.logsumexp(logits, 0)) for j in range(4) if row[j]]
            total -= sum(logs) / len(logs)
    found = caption_loss(features, captions, torch.tensor(3.0), fits)
    assert float(found) == pytest.approx(total / 8, rel=1e-5)


def test_augmentation_keeps_range_and_proportions():
    images = torch.zeros(64, 3, 40, 20)
    images[:, :, 10:30, 8:12] = 1.0
    out = augment(images, torch.Generator().manual_seed(0), colour=0.0, hidden=0.0)
    assert out.min() >= 0 and out.max() <= 1 and not torch.equal(out, images)
    inside = out.mean(1) > 0.5
    height, width = inside.any(2).sum(1).float(), inside.any(1).sum(1).float()
    assert height.min() >= 19 and height.max() <= 21  # scaled by 3 % at most, by the same factor in both directions
    assert width.min() >= 3 and width.max() <= 5
    assert torch.equal(out, augment(images, torch.Generator().manual_seed(0), colour=0.0, hidden=0.0))


def test_the_two_parts_of_the_trunk_are_the_whole():
    model = create_clip(SETTINGS).eval()
    images = torch.rand(2, 3, 48, 24, generator=torch.Generator().manual_seed(0))
    early, late = split_trunk(model.visual, 2)
    with torch.no_grad():
        torch.testing.assert_close(late(early(images)), model.encode_image(images), atol=1e-6, rtol=1e-5)


def test_colours_and_patches_change_what_the_body_does_not():
    images = torch.rand(64, 3, 40, 20, generator=torch.Generator().manual_seed(1))
    out = augment(images, torch.Generator().manual_seed(2))
    assert out.min() >= 0 and out.max() <= 1
    grey = (out.std(dim=1).flatten(1).median(dim=1).values < 1e-6).float().mean()
    assert 0.02 < float(grey) < 0.25
    hidden = augment(torch.zeros(64, 3, 40, 20), torch.Generator().manual_seed(0), colour=0.0, hidden=1.0)
    share = (hidden.amax(1) > 0).float().mean(dim=(1, 2))
    assert float(share.min()) > 0.005 and float(share.max()) < 0.18


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    training = TeacherTraining(SETTINGS, striped(256, 0), folder)
    return training.run(save_every=40, progress=False), folder


def test_it_learns_what_can_be_seen(run):
    report = evaluate(run[0], SETTINGS, striped(128, 1), ("striped",))
    assert min(report.accuracy["all"]) > 0.9 > 0.6 > max(report.majority["all"])
    assert report.accuracy["all"] == report.accuracy["striped"] and report.images == {"all": 128, "striped": 128}
    assert "mean" in report.table()


def test_the_exported_folder_is_the_same_teacher(run, tmp_path):
    folder = export(run[0], SETTINGS, striped(256, 0), tmp_path / "model")
    teacher = load_teacher(f"local-dir:{folder}")
    assert teacher.image_size == (48, 24) and teacher.embed_dim == 48
    pictures = striped(128, 1)
    features, _, choices = teacher.label_images(torch.from_numpy(pictures.images).permute(0, 3, 1, 2))
    accuracy = (choices.numpy() == pictures.phrase_choices).mean(0)
    np.testing.assert_allclose(accuracy, evaluate(run[0], SETTINGS, pictures, ()).accuracy["all"], atol=0.02)
    assert 0.3 < float(features.square().mean().sqrt()) < 0.6


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path):
    short = TrainingSettings(**{**SETTINGS.__dict__, "steps": 8})
    whole = TeacherTraining(short, striped(64, 0), tmp_path / "whole").run(progress=False)
    first = TeacherTraining(short, striped(64, 0), tmp_path / "stopped")
    first.run_until(5)
    model = TeacherTraining(short, striped(64, 0), tmp_path / "stopped").run(progress=False)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, atol=1e-6, rtol=1e-6)


def test_images_are_to_be_as_similar_as_their_bodies():
    """Against a loop over the pairs; a turned copy of the bodies meets it, whatever its lengths."""
    rng = np.random.default_rng(0)
    features, shapes = rng.standard_normal((5, 40)), rng.standard_normal((5, NUM_SHAPES))

    def cosine(one: np.ndarray, other: np.ndarray) -> float:
        return one @ other / math.sqrt((one @ one) * (other @ other))

    expected = np.mean(
        [
            (cosine(features[i], features[j]) - cosine(shapes[i], shapes[j])) ** 2
            for i in range(5)
            for j in range(5)
            if i != j
        ]
    )
    assert relation_loss(torch.tensor(features), torch.tensor(shapes)).item() == pytest.approx(expected)
    turned = 3.0 * shapes @ np.linalg.qr(rng.standard_normal((NUM_SHAPES, NUM_SHAPES)))[0]
    assert relation_loss(torch.tensor(turned), torch.tensor(shapes)).item() == pytest.approx(0.0, abs=1e-12)
    assert relation_loss(torch.tensor(features[:1]), torch.tensor(shapes[:1])).item() == 0.0


def test_mixed_images_hidden_patches_and_dropped_blocks_are_seeded(tmp_path):
    strong = {"frozen_stages": 0, "views": 0, "relation_weight": 1.0, "mixup": 1.0, "hidden": 0.5, "drop_path": 0.1}
    settings = TrainingSettings(**{**SETTINGS.__dict__, "steps": 4, **strong})
    trainings = [TeacherTraining(settings, striped(64, 0), tmp_path / name) for name in ("one", "other")]
    losses = [[training.train_step() for _ in range(3)] for training in trainings]
    for one, other in zip(*losses):
        assert {name: value.item() for name, value in one.items()} == {name: v.item() for name, v in other.items()}
    plain = TeacherTraining(TrainingSettings(**{**settings.__dict__, "mixup": 0.0}), striped(64, 0), tmp_path / "plain")
    assert plain.train_step()["pairs"].item() != losses[0][0]["pairs"].item()


def test_a_caption_is_tokenized_once(tmp_path):
    training = TeacherTraining(SETTINGS, striped(64, 0), tmp_path)
    captions = [caption(np.array([0, 1] * 8), np.array(pairs)) for pairs in ([4], [0, 1, 5], [4])]
    assert torch.equal(training._tokenized(captions), training.tokenizer(captions))
    training.tokenizer = None
    assert len(training._tokenized(captions)) == 3


def test_other_settings_do_not_go_on(run):
    other = TrainingSettings(**{**SETTINGS.__dict__, "steps": 61})
    with pytest.raises(ClearError, match="other settings"):
        TeacherTraining(other, striped(256, 0), run[1]).run(progress=False)


@pytest.mark.parametrize("what", ["pids", "targets", "number", "weights"])
def test_other_people_or_starting_weights_do_not_go_on(what, tmp_path):
    settings = TrainingSettings(**{**SETTINGS.__dict__, "steps": 1, "text_steps": 1})
    pictures, weights = striped(32, 0), ["", ""]
    if what == "weights":
        for number in (0, 1):
            trunk = create_clip(TrainingSettings(**{**settings.__dict__, "seed": 7 + number})).visual.trunk
            torch.save(trunk.state_dict(), tmp_path / f"{number}.pth")
            weights[number] = tmp_path / f"{number}.pth"
    others = {
        "pids": pictures._replace(pids=pictures.pids // 2),
        "targets": pictures._replace(targets=1 - pictures.targets),
        "number": striped(48, 0),
        "weights": pictures,
    }
    TeacherTraining(settings, pictures, tmp_path / "run", weights[0]).run(progress=False)
    again = TeacherTraining(settings, pictures, tmp_path / "run", weights[0])
    again.run(progress=False)
    assert again.step == 1
    with pytest.raises(ClearError, match="other people .* Give another --output or delete it"):
        TeacherTraining(settings, others[what], tmp_path / "run", weights[1]).run(progress=False)


def test_views_of_other_pictures_are_not_taken(tmp_path):
    first, other = striped(32, 0), striped(32, 5)
    TeacherTraining(SETTINGS, first, tmp_path)._compute_views(progress=False)
    taken = TeacherTraining(SETTINGS, other, tmp_path)._compute_views(progress=False)
    own = TeacherTraining(SETTINGS, other, tmp_path / "own")._compute_views(progress=False)
    np.testing.assert_array_equal(taken, own)


def test_a_state_that_does_not_know_its_pictures_still_goes_on(tmp_path):
    settings = TrainingSettings(**{**SETTINGS.__dict__, "steps": 1, "text_steps": 1})
    TeacherTraining(settings, striped(32, 0), tmp_path).run(progress=False)
    state = torch.load(tmp_path / "training_state.pt", weights_only=True)
    del state["data"]
    torch.save(state, tmp_path / "training_state.pt")
    again = TeacherTraining(settings, striped(32, 0), tmp_path)
    again.run(progress=False)
    assert again.step == 1


def test_words_that_no_caption_holds_are_silent():
    model = create_clip(SETTINGS)
    rows = model.token_embedding.weight.abs().sum(1) > 0
    assert 40 < int(rows.sum()) < 120
    tokens = torch.from_numpy(np.flatnonzero(rows.numpy()))
    assert 49406 in tokens and 49407 in tokens  # start and end of text


def test_trunk_weights_are_taken_in_order_and_refused_if_they_do_not_fit(tmp_path):
    source = create_clip(TrainingSettings(**{**SETTINGS.__dict__, "seed": 7})).visual.trunk.state_dict()
    renamed = {f"other.{index}": value for index, value in enumerate(source.values())}
    torch.save({**renamed, "classifier": torch.zeros(10, 3)}, tmp_path / "trunk.pth")
    loaded = create_clip(SETTINGS, tmp_path / "trunk.pth").visual.trunk.state_dict()
    assert all(torch.equal(loaded[name], source[name]) for name in source)
    torch.save({"a": torch.zeros(3)}, tmp_path / "wrong.pth")
    with pytest.raises(ClearError, match="do not fit"):
        create_clip(SETTINGS, tmp_path / "wrong.pth")


def test_pictures_of_another_size_are_refused(tmp_path):
    wrong = striped(4, 0)._replace(images=np.zeros((4, 10, 10, 3), np.uint8))
    with pytest.raises(ClearError, match="10, 10"):
        TeacherTraining(SETTINGS, wrong, tmp_path)


def test_settings_make_a_config_open_clip_understands():
    json.dumps(
        {"model_cfg": TrainingSettings().model_config(), "preprocess_cfg": TrainingSettings().preprocess_config()}
    )
    assert TrainingSettings().model_config()["vision_cfg"]["image_size"] == [128, 64]
