"""Body models in the SMPL schema: the embedded ones, and users' own licensed SMPL, SMPL-H or SMPL-X files.

Shape letters: B bodies, V vertices, F faces, K shape components, J = 24 joints. Metres; x to the body's left, y up,
z to the front; pelvis near the origin.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from fastreid_clip3d.body.constants import NUM_JOINTS
from fastreid_clip3d.body.files import read_fields
from fastreid_clip3d.body.schema import Fields, check_fields
from fastreid_clip3d.body.skinning import skin
from fastreid_clip3d.errors import ClearError


class BodyModel:
    """One sex of a linear body model: a template, shape directions, a skeleton and skinning weights.

    Attributes (float32 unless said otherwise):

    - ``v_template`` [V, 3]: the mean body in the T-pose, metres
    - ``shapedirs`` [V, 3, K]: metres per standard deviation of each shape component
    - ``posedirs`` [V, 3, P]: pose blend shapes, P = 0 where the file has none
    - ``J_regressor`` [24, V]: joints from vertices, rows sum to 1
    - ``weights`` [V, 24]: skinning weights, rows sum to 1
    - ``faces`` int64 [F, 3]; ``parents`` int64 [24], -1 for the root
    - ``gender``: "female", "male" or "neutral"
    """

    def __init__(self, fields: Fields, gender: str) -> None:
        self.gender = gender
        self.v_template = torch.as_tensor(fields.v_template, dtype=torch.float32)
        self.shapedirs = torch.as_tensor(fields.shapedirs, dtype=torch.float32)
        self.posedirs = torch.as_tensor(fields.posedirs, dtype=torch.float32)
        self.J_regressor = torch.as_tensor(fields.J_regressor, dtype=torch.float32)
        self.weights = torch.as_tensor(fields.weights, dtype=torch.float32)
        self.faces = torch.as_tensor(fields.faces, dtype=torch.int64)
        self.parents = torch.as_tensor(fields.parents, dtype=torch.int64)

    @property
    def num_vertices(self) -> int:
        """V."""
        return self.v_template.shape[0]

    @property
    def num_betas(self) -> int:
        """K."""
        return self.shapedirs.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.v_template.device

    def to(self, device: str | torch.device) -> BodyModel:
        """The same model with its tensors on `device`."""
        moved = object.__new__(BodyModel)
        moved.gender = self.gender
        for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "faces", "parents"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def shape(self, betas: torch.Tensor) -> torch.Tensor:
        """T-posed vertices [B, V, 3] of shape coefficients [B, K] (in standard deviations); no pose blend shapes."""
        self._check_betas(betas)
        offsets = betas.to(self.v_template) @ self.shapedirs.reshape(-1, self.num_betas).T
        return self.v_template + offsets.reshape(len(betas), -1, 3)

    def joints(self, vertices: torch.Tensor) -> torch.Tensor:
        """Joints [B, 24, 3] of T-posed vertices [B, V, 3]."""
        return torch.einsum("jv,bvi->bji", self.J_regressor, vertices)

    def pose(self, betas: torch.Tensor, poses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Posed vertices [B, V, 3] and joints [B, 24, 3] by linear blend skinning, with the model's pose blend shapes.

        `poses` [B, 72] are axis-angle rotations in radians, the root's first, each relative to the joint's parent.
        """
        self._check_betas(betas)
        if poses.ndim != 2 or poses.shape[1] != 3 * NUM_JOINTS:
            raise ClearError(f"poses must have the shape [B, {3 * NUM_JOINTS}] (axis-angle), not {list(poses.shape)}.")
        if len(betas) != len(poses):
            raise ClearError(f"As many poses as bodies are needed: {len(betas)} rows of betas, {len(poses)} poses.")
        rotations = poses.to(self.v_template).unflatten(1, (NUM_JOINTS, 3))
        return skin(self.shape(betas), rotations, self.posedirs, self.J_regressor, self.parents.tolist(), self.weights)

    def fingerprint(self) -> str:
        """A short hash of everything that decides the model's bodies: the same model, the same string."""
        digest = hashlib.sha256(self.gender.encode())
        for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "faces", "parents"):
            array = np.ascontiguousarray(getattr(self, name).cpu().numpy())
            digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def _check_betas(self, betas: torch.Tensor) -> None:
        if betas.ndim != 2 or betas.shape[1] != self.num_betas:
            raise ClearError(f"betas must have the shape [B, {self.num_betas}], not {list(betas.shape)}.")


def load_body_model(path: str | Path = "", gender: str = "neutral", num_betas: int = 10) -> BodyModel:
    """Loads a body model; `path` is "" (embedded), a folder with one file per sex, or one file.

    - "": the embedded models, built from free parts.
    - a folder: an official archive as unpacked, or any folder with the usual names, e.g. ``SMPL_FEMALE.pkl``,
      ``basicmodel_m_lbs_10_207_0_v1.1.0.pkl``, ``SMPLH_NEUTRAL.npz``, ``SMPLX_MALE.npz`` or ``female/model.npz``.
    - a file: ``.pkl`` or ``.npz`` of `gender`.

    Pickles are read by a reader that admits arrays only and runs nothing from the file.

    Raises:
        ClearError: no such file, a file that is no body model, a file of another gender, a field that is wrong, or more
            betas than it has.
    """
    fields = check_fields(*read_fields(path, gender), num_betas=num_betas)
    return BodyModel(fields, gender)
