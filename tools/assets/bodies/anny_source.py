"""The package anny as arrays: its mesh, its blend shapes, its skeleton, and adults sampled from its controls.

Shape letters: N sampled bodies, C blend shape coefficients. Arrays are in metres and in SMPL's axes (x to the body's
left, y up, z to the front).
"""

from __future__ import annotations

import contextlib
import importlib.metadata

import numpy as np

from fastreid_clip3d.common.locks import lock_folder
from fastreid_clip3d.errors import ClearError

ANNY_VERSION = "0.6.2"
DECIMATOR_VERSION = "0.2.0"
INSTALL_HINT = f"pip install anny=={ANNY_VERSION} fast-simplification=={DECIMATOR_VERSION}"

LOCAL_CHANGES = (
    "measure-upperarm-length-incr",
    "measure-lowerarm-length-incr",
    "measure-neck-height-incr",
    "measure-shoulder-dist-incr",
    "measure-hips-circ-incr",
    "measure-waist-circ-incr",
    "measure-bust-circ-incr",
    "measure-napetowaist-dist-incr",
    "measure-waisttohip-dist-incr",
    "upperlegs-height-incr",
    "lowerlegs-height-incr",
)
"""anny's local controls that vary in addition to its phenotypes: people of one size differ in proportions."""


class AnnySource:
    """anny's mesh, blend shapes and skeleton as float64 arrays in SMPL's axes.

    The first use on a machine takes about 80 s and fills ``ANNY_CACHE_DIR`` (default ``~/.cache/anny``) with
    about 0.8 GB; later uses take a few seconds. anny's SMPL and SMPL-X topologies (non-commercial) are not used.
    """

    def __init__(self) -> None:
        try:
            import anny
            import safetensors
            import torch
        except ImportError as error:
            raise ClearError(
                f"Building body models needs the package anny, which is not installed ({error}): {INSTALL_HINT}"
            ) from error
        installed = importlib.metadata.version("anny")
        if installed != ANNY_VERSION:
            raise ClearError(
                f"Building body models needs anny {ANNY_VERSION}, but {installed} is installed. Another version gives "
                f"other bodies: {INSTALL_HINT}"
            )
        cache = anny.paths.get_anny_cache_path()
        with contextlib.ExitStack() as stack:
            try:
                cache.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock_folder(cache))  # anny does not write its cache atomically
                self.model = anny.Anny(
                    topology="anny-notongue",
                    phenotypes="all",
                    local_changes=list(LOCAL_CHANGES),
                    phenotype_blendshapes="original",
                    skinning_method="lbs",
                )
            except safetensors.SafetensorError as error:
                raise ClearError(
                    f"anny's cache in '{cache}' is damaged ({error}), perhaps by an interrupted first use. Delete that "
                    "folder and start again, or set ANNY_CACHE_DIR to another one."
                ) from error
            except OSError as error:
                raise ClearError(
                    f"anny's cache in '{cache}' cannot be written or read ({error}). It needs about 0.8 GB; set "
                    "ANNY_CACHE_DIR to a folder with room."
                ) from error
        cavities = torch.load(
            f"{anny.__path__[0]}/data/template_mesh_internal_cavities.pth", map_location="cpu", weights_only=True
        )
        base_indices = self.model.base_mesh_vertex_indices.numpy()
        self.is_cavity = np.isin(base_indices, np.asarray(cavities["vertex_indices"]))
        self.faces = self.model.faces.numpy().astype(np.int64)
        self.vertices = to_smpl_axes(self.model.template_vertices.numpy())
        self.bone_labels = list(self.model.bone_labels)
        self.bone_parents = list(self.model.bone_parents)
        self.bone_heads = to_smpl_axes(self.model.template_bone_heads.numpy())
        self.bone_heads_blendshapes = to_smpl_axes(self.model.bone_heads_blendshapes.numpy())
        weights = np.zeros((len(self.vertices), len(self.bone_labels)))
        rows = np.arange(len(self.vertices))[:, None]
        np.add.at(weights, (rows, self.model.vertex_bone_indices.numpy()), self.model.vertex_bone_weights.numpy())
        self.bone_weights = weights / weights.sum(1, keepdims=True)

    def coefficients(self, phenotypes: dict[str, np.ndarray], local_changes: dict[str, np.ndarray]) -> np.ndarray:
        """Blend shape coefficients [N, C] of phenotypes in 0..1 and local changes in -1..1, each an array [N]."""
        import torch

        _, *tensors = self.model.get_tensor_inputs(
            None,
            {label: torch.from_numpy(values) for label, values in phenotypes.items()},
            {label: torch.from_numpy(values) for label, values in local_changes.items()},
            None,
        )
        return self.model._get_phenotype_blendshape_coefficients(*tensors).numpy()

    def blendshapes(self, vertices: np.ndarray) -> np.ndarray:
        """Displacements [C, len(vertices), 3] of the chosen vertices."""
        return to_smpl_axes(self.model.blendshapes[:, vertices].numpy())


def to_smpl_axes(points: np.ndarray) -> np.ndarray:
    """From anny's axes (z up, facing -y) to SMPL's (y up, facing +z): (x, y, z) -> (x, z, -y)."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1).astype(np.float64)


def draw_people(gender: str, count: int, rng: np.random.Generator) -> tuple[dict, dict]:
    """anny's phenotypes and local changes, each an array [count], for adults of one sex ("female" or "male").

    They vary widely; :mod:`tools.assets.bodies.population` gives them the frequencies of a survey.
    """

    def normal(mean: float, spread: float, low: float, high: float) -> np.ndarray:
        return rng.normal(mean, spread, count).clip(low, high)

    tall, spread = {"female": (0.375, 0.040), "male": (0.367, 0.043)}[gender]
    phenotypes = {
        "gender": np.full(count, 1.0 if gender == "female" else 0.0),
        "age": rng.uniform(0.60, 0.90, count),
        "muscle": rng.uniform(0.02, 0.98, count),
        "weight": rng.uniform(0.02, 0.98, count),
        "height": normal(tall, spread, tall - 2.5 * spread, tall + 2.5 * spread),
        "proportions": rng.uniform(0.2, 0.8, count),
        "cupsize": normal(0.5, 0.2, 0.02, 0.98),
        "firmness": rng.uniform(0.3, 0.8, count),
    }
    phenotypes.update(zip(("african", "asian", "caucasian"), rng.dirichlet((1.0, 1.0, 1.0), count).T))
    local_changes = {label: normal(0.0, 0.35, -0.9, 0.9) for label in LOCAL_CHANGES}
    return phenotypes, local_changes
