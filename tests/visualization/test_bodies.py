"""Predicted bodies: the error by numpy, phi from a checkpoint, the f_id that the loss saw, the sheet's tiles."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastreid.modeling.meta_arch import build_model

from fastreid_clip3d.body import load_body_model
from fastreid_clip3d.body.synthetic_index import SyntheticIndex
from fastreid_clip3d.config_loading import inference_config
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.preprocess import InputSize, as_batch, one_by_one, to_pixels
from fastreid_clip3d.visualization import bodies
from tests.standins import small_config
from tests.visualization.few_bodies import render_few_bodies


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> SyntheticIndex:
    return render_few_bodies(tmp_path_factory.mktemp("data") / "bodies", 4, 2, (64, 32))


@pytest.fixture(scope="module")
def trained() -> tuple[SimpleNamespace, dict[str, torch.Tensor]]:
    """A network with BodyShapeLoss, as inference has it, and the weights that its checkpoint would hold."""
    torch.manual_seed(0)
    cfg = small_config(losses=("CrossEntropyLoss", "BodyShapeLoss"))
    weights = {name: tensor.clone() for name, tensor in build_model(cfg).state_dict().items()}
    inference = inference_config(cfg)
    network = build_model(inference)
    network.load_state_dict(weights, strict=False)
    network.heads.bottleneck[0].running_mean.fill_(0.3)  # behind the neck is something else
    recipe = InputSize((64, 32))

    def preprocess(images: list[str], channels: str) -> torch.Tensor:
        return as_batch([to_pixels(one, recipe, channels) for one in one_by_one(images)], (64, 32)).float()

    return SimpleNamespace(network=network.eval(), cfg=inference, preprocess=preprocess), weights


def test_vertex_error_by_numpy() -> None:
    generator = np.random.default_rng(0)
    predicted, true = generator.standard_normal((2, 3, 7, 3)).astype(np.float32)
    expected = [
        1000 * sum(float(np.sqrt(((p - t) ** 2).sum())) for p, t in zip(one, other)) / 7
        for one, other in zip(predicted, true)
    ]
    errors = bodies.vertex_errors(torch.from_numpy(predicted), torch.from_numpy(true))
    assert errors.tolist() == pytest.approx(expected, rel=1e-5)
    moved = torch.tensor([[[0.0, 0.003, 0.004]]])
    assert bodies.vertex_errors(moved, torch.zeros(1, 1, 3)).item() == pytest.approx(5.0)


def test_betas_are_phi_of_the_f_id_that_the_loss_saw(trained: tuple, rendered: SyntheticIndex) -> None:
    model, weights = trained
    phi = bodies.phi_of(weights)
    images = rendered.paths[:3]
    betas = bodies.predict_betas(model, phi, images)
    with torch.no_grad():
        pixels = model.network.preprocess_image({"images": model.preprocess(images, "RGB")})
        f_id = model.network.heads.pool_layer(model.network.backbone(pixels))[:, :, 0, 0]
        hidden = torch.relu(f_id @ weights[f"{bodies.PHI}0.weight"].T + weights[f"{bodies.PHI}0.bias"])
        expected = hidden @ weights[f"{bodies.PHI}2.weight"].T + weights[f"{bodies.PHI}2.bias"]
    assert betas.shape == (3, 10) and torch.allclose(betas, expected, atol=1e-5)


def test_betas_of_a_run_whose_l_3d_saw_the_searched_vector(trained: tuple, rendered: SyntheticIndex) -> None:
    model, weights = trained
    cfg = model.cfg.clone()
    cfg.MODEL.LOSSES.BODY_SHAPE.FEATURE = "after"
    network = build_model(cfg).eval()
    network.load_state_dict(model.network.state_dict())
    behind_the_neck = SimpleNamespace(network=network, cfg=cfg, preprocess=model.preprocess)
    phi = bodies.phi_of(weights)
    betas = bodies.predict_betas(behind_the_neck, phi, rendered.paths[:3])
    with torch.no_grad():
        searched = network({"images": model.preprocess(rendered.paths[:3], "RGB")})
        torch.testing.assert_close(betas, phi(searched), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(betas, bodies.predict_betas(model, phi, rendered.paths[:3]), atol=1e-3)


def test_errors_of_a_student_that_knows_and_of_one_that_says_the_mean(
    trained: tuple, rendered: SyntheticIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, weights = trained
    rows = [0, 3]
    monkeypatch.setattr(bodies, "predict_betas", lambda _, __, images, *___: torch.zeros(len(images), 10))
    seen = bodies.known_bodies(model, weights, rendered, rows, measured=2)
    assert seen.errors == pytest.approx(seen.mean_body_errors) and seen.errors.min() > 1
    true = [
        load_body_model("", ("female", "male")[int(rendered.gender[row])]).shape(
            torch.from_numpy(rendered.betas[row : row + 1])
        )
        for row in rows
    ]
    template = load_body_model("").v_template.numpy()
    by_hand = [1000 * np.linalg.norm(template - one[0].numpy(), axis=1).mean() for one in true]
    assert seen.errors == pytest.approx(by_hand, rel=1e-4)
    assert "2 bodies" in seen.caption() and f"{np.mean(by_hand):.1f} mm" in seen.caption()
    # The true body, in the picture's pose and camera, is the picture itself but for the zoom.
    assert seen.pictures["true"].shape == (2, 192, 96)
    monkeypatch.setattr(bodies, "ZOOM", 1.0)
    again = bodies.known_bodies(model, weights, rendered, rows, measured=2).pictures["true"][0]
    from PIL import Image

    picture = np.asarray(Image.open(rendered.paths[0]).convert("L").resize((96, 192))).astype(int)
    assert np.abs(picture - again).mean() < 6


def test_the_caption_speaks_of_many_bodies_and_the_sheet_draws_few(
    trained: tuple, rendered: SyntheticIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, weights = trained
    seen = bodies.known_bodies(model, weights, rendered, [0])
    assert len(seen.paths) == len(seen.pictures["true"]) == 1 and len(seen.errors) == 4
    drawn = [bodies.known_bodies(model, weights, rendered, [row], measured=1).errors[0] for row in (0,)]
    assert seen.errors[0] == pytest.approx(drawn[0], rel=1e-4)
    assert "over 4 bodies" in seen.caption() and f"{seen.errors.mean():.1f} mm" in seen.caption()


def test_grey_bodies_are_predicted_with_the_statistics_that_they_were_learned_with(
    trained: tuple, rendered: SyntheticIndex
) -> None:
    model, weights = trained
    phi, images = bodies.phi_of(weights), rendered.paths[:6]
    running = {name: value.clone() for name, value in model.network.state_dict().items()}
    found = bodies.predict_betas(model, phi, images, batch_statistics=True)
    with torch.no_grad():
        network = build_model(model.cfg).train()
        network.load_state_dict(running)
        pixels = network.preprocess_image({"images": model.preprocess(images, "RGB")})
        expected = phi(network.heads.pool_layer(network.backbone(pixels))[:, :, 0, 0])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found, bodies.predict_betas(model, phi, images), atol=1e-3)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, running[name]) or name.endswith("num_batches_tracked"), name
    assert not any(part.training for part in model.network.modules())

    separate = SimpleNamespace(**{**vars(model), "cfg": model.cfg.clone()})
    separate.cfg.MODEL.SYNTHETIC_STATISTICS = "separate"
    errors = [bodies.known_bodies(one, weights, rendered, [0, 2]).errors for one in (model, separate)]
    assert not np.allclose(errors[0], errors[1])


def test_people_of_unknown_shape_get_the_mean_body_beside_them(
    trained: tuple, rendered: SyntheticIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, weights = trained
    seen = bodies.unknown_bodies(model, weights, rendered.paths[:2])
    assert list(seen.pictures) == ["predicted", "mean body"] and seen.errors is None and "not known" in seen.caption()
    drawn = []
    monkeypatch.setattr(bodies, "save_figure", lambda figure, output: drawn.append(figure) or output)
    bodies.bodies_sheet(seen, tmp_path / "sheet.png")
    assert len([axes for axes in drawn[0].axes if axes.images]) == 3 * 2


def test_runs_and_sets_that_do_not_fit_are_refused(trained: tuple, rendered: SyntheticIndex) -> None:
    model, weights = trained
    with pytest.raises(ClearError, match="without BodyShapeLoss"):
        bodies.phi_of({"backbone.weight": torch.zeros(1)})
    import dataclasses

    fewer = dataclasses.replace(rendered, betas=rendered.betas[:, :4])
    with pytest.raises(ClearError, match="4 shape coefficients.*NUM_BETAS"):
        bodies.known_bodies(model, weights, fewer, [0])
    other = dataclasses.replace(rendered, meta={**rendered.meta, "body_models": {"female": "other", "male": "other"}})
    with pytest.raises(ClearError, match="another body model"):
        bodies.known_bodies(model, weights, other, [0])


def test_chosen_bodies_are_different_people_of_both_sexes(rendered: SyntheticIndex) -> None:
    rows = bodies.choose_bodies(rendered, 4)
    assert len({rendered.betas[row].tobytes() for row in rows}) == 4
    assert sorted(rendered.gender[rows[:2]].tolist()) == [0, 1]
    assert rows == bodies.choose_bodies(rendered, 4) and len(bodies.choose_bodies(rendered, 9)) == 4
