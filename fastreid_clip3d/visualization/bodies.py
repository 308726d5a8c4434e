"""Draws images beside the bodies that phi predicts from f_id, and the true bodies where known (paper, Figure 5).

B: images. V: vertices. K: shape coefficients. Metres unless said otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fastreid.config import CfgNode
from torch import Tensor, nn

from fastreid_clip3d.body import BodyModel, load_body_model
from fastreid_clip3d.body.constants import GENDERS
from fastreid_clip3d.body.rendering import Draw, GreyRenderer, lights_of, stand_on_ground, to_bytes, views_of
from fastreid_clip3d.body.sheets import relaxed_pose
from fastreid_clip3d.body.synthetic_index import SyntheticIndex
from fastreid_clip3d.common.figures import save_figure
from fastreid_clip3d.common.images import read_image
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.model import TorchModel
from fastreid_clip3d.modeling.backbones.build import student_maps
from fastreid_clip3d.modeling.losses import MLP
from fastreid_clip3d.modeling.meta_arch.clip3d_reid import running_statistics_kept

PHI = "body_shape_loss.regressor."
PICTURE_SIZE = (192, 96)
ZOOM = 0.82
"""The scale of drawn bodies against the set's pictures, so that a prediction that is too tall still fits."""


@dataclass(frozen=True)
class PredictedBodies:
    """The result of :func:`known_bodies` or :func:`unknown_bodies`.

    Attributes:
        paths: B image files.
        pictures: uint8 [B, H, W] pictures by title ("predicted", "true"), with the same pose and light per image.
        errors: mean distance of the predicted from the true vertices in the T-pose, millimetres, float [M]; the first B
            belong to the drawn images, the others to bodies that were only measured. None where the truth is unknown.
        mean_body_errors: the same for the mean body in place of the prediction, or None.
    """

    paths: list[str]
    pictures: dict[str, np.ndarray]
    errors: np.ndarray | None = None
    mean_body_errors: np.ndarray | None = None

    def caption(self) -> str:
        """One line with both errors, or the remark that the true bodies are unknown."""
        if self.errors is None or self.mean_body_errors is None:
            return "Predicted bodies in a resting pose; the true ones are not known."
        return (
            f"Mean vertex error in the T-pose over {len(self.errors)} bodies: {self.errors.mean():.1f} mm; the mean "
            f"body in place of the prediction: {self.mean_body_errors.mean():.1f} mm."
        )


def vertex_errors(predicted: Tensor, true: Tensor) -> Tensor:
    """Mean distance of corresponding vertices of two sets of bodies [B, V, 3] in metres: millimetres, [B]."""
    return 1000 * (predicted - true).norm(dim=2).mean(1)


def phi_of(weights: dict[str, Tensor]) -> MLP:
    """phi from a checkpoint's weights by name.

    Raises:
        ClearError: the run was trained without BodyShapeLoss.
    """
    own = {name[len(PHI) :]: tensor for name, tensor in weights.items() if name.startswith(PHI)}
    if not own:
        raise ClearError(
            "This run predicts no bodies: it was trained without BodyShapeLoss in MODEL.LOSSES.NAME. Give a CLIP3DReID "
            "run, such as one of configs/CLIP3D/."
        )
    hidden, width = own["0.weight"].shape
    phi = MLP(width, hidden, own["2.weight"].shape[0])
    phi.load_state_dict(own)
    return phi.float().eval()


@torch.no_grad()
def predict_betas(
    model: TorchModel, phi: MLP, images: Sequence[str | Path], batch_statistics: bool = False, batch: int = 64
) -> Tensor:
    """Shape coefficients of the neutral body [B, K] from the f_id that L_3D saw: before the neck by default.

    Args:
        model: of a CLIP3DReID run.
        batch_statistics: batch norms use the statistics of these images instead of the running ones, as a training with
            ``MODEL.SYNTHETIC_STATISTICS separate`` does for its grey bodies.
        batch: images per forward pass.
    """
    parts = [list(images[start : start + batch]) for start in range(0, len(images), batch)]
    if batch_statistics and len(parts) > 1 and len(parts[-1]) < batch:
        parts[-2:] = [parts[-2] + parts[-1]]  # a few images alone would give poor statistics
    found = []
    with statistics_of_the_batch(model.network) if batch_statistics else contextlib.nullcontext():
        for part in parts:
            pixels = model.preprocess([str(path) for path in part], "RGB").to(next(model.network.parameters()).device)
            maps = student_maps(model.network.backbone, model.network.preprocess_image({"images": pixels}))
            side = model.network.sides_of_neck["body_shape"]
            found.append(phi(model.network.global_features(maps.head_input, side).float().cpu()))
    return torch.cat(found)


@contextlib.contextmanager
def statistics_of_the_batch(network: nn.Module) -> Iterator[None]:
    """Inside the block batch norms use the statistics of their batch; running statistics and modes do not change."""
    batch_norms = [part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    modes = [part.training for part in batch_norms]
    with running_statistics_kept(network):
        for part in batch_norms:
            part.train()
        try:
            yield
        finally:
            for part, mode in zip(batch_norms, modes):
                part.train(mode)


def known_bodies(
    model: TorchModel, weights: dict[str, Tensor], bodies: SyntheticIndex, rows: Sequence[int], measured: int = 400
) -> PredictedBodies:
    """Pictures of a synthetic set: prediction and truth in the picture's own pose, camera and light.

    Args:
        rows: rows of the set that are drawn.
        measured: number of pictures for the mean error, which include the drawn ones.

    Raises:
        ClearError: no BodyShapeLoss, or a set of bodies with another number of vertices or coefficients.
    """
    phi, drawn = phi_of(weights), list(rows)
    others = [row for row in choose_bodies(bodies, measured) if row not in set(drawn)]
    rows = [*drawn, *others[: max(0, measured - len(drawn))]]
    grey_like_training = model.cfg.MODEL.SYNTHETIC_STATISTICS == "separate"
    betas = predict_betas(model, phi, [bodies.paths[row] for row in rows], grey_like_training)
    neutral = _body(model.cfg, "neutral")
    true_betas = torch.from_numpy(bodies.betas[rows])
    if true_betas.shape[1] != neutral.num_betas:
        raise ClearError(
            f"{bodies.folder} has {true_betas.shape[1]} shape coefficients per body, the run's body model "
            f"{neutral.num_betas} (MODEL.BODY.NUM_BETAS)."
        )
    models = [_body(model.cfg, gender) for gender in GENDERS]
    recorded = bodies.meta.get("body_models", {})
    if any(recorded.get(gender, one.fingerprint()) != one.fingerprint() for gender, one in zip(GENDERS, models)):
        raise ClearError(
            f"{bodies.folder} was rendered from another body model than the run's MODEL.BODY.PATH; its shape "
            "coefficients mean other bodies. Render a set with `clip3d render-bodies --body-model`."
        )
    owners = [models[int(gender)] for gender in bodies.gender[rows]]
    errors = [
        torch.cat(
            [vertex_errors(shaped, owner.shape(one[None])) for shaped, owner, one in zip(given, owners, true_betas)]
        )
        for given in (neutral.shape(betas)[:, None], neutral.v_template.expand(len(rows), 1, -1, -1))
    ]
    poses = torch.from_numpy(bodies.poses[drawn])
    views, lights = torch.from_numpy(bodies.cameras[drawn]).clone(), torch.from_numpy(bodies.lights[drawn])
    views[:, 3:] *= ZOOM
    posed_true = torch.cat([owner.pose(b[None], p[None])[0] for owner, b, p in zip(owners, true_betas, poses)])
    height, width = bodies.image_size
    renderer = GreyRenderer(neutral.faces, (PICTURE_SIZE[0], round(PICTURE_SIZE[0] * width / height)))
    pictures = {
        "predicted": _render(renderer, neutral.pose(betas[: len(drawn)], poses)[0], views, lights),
        "true": _render(renderer, posed_true, views, lights),
    }
    return PredictedBodies([bodies.paths[row] for row in drawn], pictures, *(one.numpy() for one in errors))


def unknown_bodies(model: TorchModel, weights: dict[str, Tensor], images: Sequence[str | Path]) -> PredictedBodies:
    """Predicted bodies of any people beside the mean body, in one resting pose from the front and at one scale.

    Raises:
        ClearError: no BodyShapeLoss, or an unreadable image.
    """
    betas = predict_betas(model, phi_of(weights), images)
    neutral = _body(model.cfg, "neutral")
    draws = [Draw(0.0, 5.0, 5.0, 0.0, (0.0, 0.0), (-40.0, 35.0), 0.4)] * len(betas)
    poses = relaxed_pose().expand(len(betas), -1)
    renderer = GreyRenderer(neutral.faces, PICTURE_SIZE)
    pictures = {}
    for title, shown in (("predicted", betas), ("mean body", torch.zeros_like(betas))):
        vertices = stand_on_ground(neutral.pose(shown, poses)[0])
        views = views_of(vertices, draws, PICTURE_SIZE, "fixed")
        pictures[title] = _render(renderer, vertices, views, lights_of(draws))
    return PredictedBodies([str(path) for path in images], pictures)


def choose_bodies(bodies: SyntheticIndex, count: int, seed: int = 0) -> list[int]:
    """Rows of up to `count` pictures of different bodies, drawn at random, women and men in turn."""
    by_gender: list[list[int]] = [[], []]
    seen: set[bytes] = set()
    for row in np.random.default_rng(seed).permutation(len(bodies)):
        key = bodies.betas[row].tobytes() + bytes([int(bodies.gender[row])])
        if key not in seen:
            seen.add(key)
            by_gender[int(bodies.gender[row])].append(int(row))
    turns = [row for pair in zip(*by_gender) for row in pair]
    rest = [row for rows in by_gender for row in rows[len(turns) // 2 :]]
    return (turns + rest)[:count]


def bodies_sheet(seen: PredictedBodies, output: str | Path) -> Path:
    """Draws one column per image: image, predicted body, true (or mean) body, errors below; returns `output`."""
    from matplotlib.figure import Figure

    titles = ["image", *seen.pictures]
    count = len(seen.paths)
    figure = Figure(figsize=(1.15 * count + 0.6, 2.25 * len(titles) + 0.7), layout="constrained", dpi=110)
    axes = figure.subplots(len(titles), count, squeeze=False)
    height, width = next(iter(seen.pictures.values())).shape[1:]
    for place, path in enumerate(seen.paths):
        for row, title in enumerate(titles):
            one = axes[row, place]
            one.set(xticks=[], yticks=[])
            one.spines[:].set_visible(False)
            if title == "image":
                one.imshow(np.asarray(read_image(path).resize((width, height))))
            else:
                one.imshow(seen.pictures[title][place], cmap="gray", vmin=0, vmax=255)
            if place == 0:
                one.set_ylabel(title, fontsize=9)
        if seen.errors is not None and seen.mean_body_errors is not None:
            text = f"{seen.errors[place]:.0f} mm\n(mean {seen.mean_body_errors[place]:.0f})"
            axes[-1, place].set_xlabel(text, fontsize=8)
    figure.supxlabel(seen.caption().replace("; ", ";\n"), fontsize=8, color="0.25")
    return save_figure(figure, output)


def _render(renderer: GreyRenderer, vertices: Tensor, views: Tensor, lights: Tensor) -> np.ndarray:
    with torch.no_grad():
        return to_bytes(renderer.render(stand_on_ground(vertices), views, lights))


def _body(cfg: CfgNode, gender: str) -> BodyModel:
    return load_body_model(cfg.MODEL.BODY.PATH, gender, cfg.MODEL.BODY.NUM_BETAS)
