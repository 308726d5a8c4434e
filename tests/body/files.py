"""Small body models as files: SMPL's fields on a box-like body, official-looking pickles and npz."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from fastreid_clip3d.body.constants import PARENTS
from tests.references.python2_pickle import Instance


def smpl_fields(vertices: int = 60, betas: int = 12, joints: int = 24, seed: int = 0) -> dict[str, np.ndarray]:
    """SMPL's fields with random numbers that pass every check: 1.7 m tall, rows that sum to 1."""
    rng = np.random.default_rng(seed)
    template = rng.uniform(-0.2, 0.2, (vertices, 3))
    template[:, 1] = np.linspace(-1.0, 0.7, vertices)
    weights = rng.uniform(0, 1, (vertices, joints))
    regressor = np.where(rng.uniform(size=(joints, vertices)) < 0.1, rng.uniform(0.1, 1, (joints, vertices)), 0.0)
    regressor[:, 0] += 0.1
    parents = np.array(list(PARENTS[: min(joints, 22)]) + [20, 21][: joints - 22] + [15] * (joints - 24))
    parents[0] = 2**32 - 1
    return {
        "v_template": template,
        "shapedirs": rng.normal(0, 0.01, (vertices, 3, betas)),
        "posedirs": rng.normal(0, 0.01, (vertices, 3, 9 * (joints - 1))),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "f": np.stack([np.arange(vertices - 2), np.arange(1, vertices - 1), np.arange(2, vertices)], 1).astype(
            np.uint32
        ),
        "kintree_table": np.stack([parents, np.arange(joints)]).astype(np.int64),
    }


def official(fields: dict[str, np.ndarray]) -> dict:
    """The same fields as SMPL's Python 2 pickles hold them: chumpy arrays, a chumpy selection, a sparse regressor."""
    sparse = scipy.sparse.csc_matrix(fields["J_regressor"])
    shapedirs = fields["shapedirs"]
    wide = np.concatenate([shapedirs, np.full((*shapedirs.shape[:2], 4), np.nan)], axis=2)
    chosen = np.arange(wide.size).reshape(wide.shape)[:, :, : shapedirs.shape[2]].ravel()
    return {
        "f": fields["f"],
        "J_regressor": Instance(
            "scipy.sparse.csc",
            "csc_matrix",
            {
                "_shape": sparse.shape,
                "maxprint": 50,
                "indptr": sparse.indptr,
                "indices": sparse.indices,
                "data": sparse.data,
            },
        ),
        "kintree_table": fields["kintree_table"],
        "J": chumpy(np.zeros((24, 3))),
        "weights": np.asfortranarray(fields["weights"]),
        "vert_sym_idxs": np.arange(len(fields["v_template"])),
        "posedirs": fields["posedirs"],
        "pose_training_info": {"gender": "f", "nested": [1, 2.5, None, True]},
        "bs_style": "lbs",
        "v_template": chumpy(fields["v_template"]),
        "shapedirs": Instance(
            "chumpy.reordering",
            "Select",
            {"a": chumpy(wide), "idxs": chosen, "preferred_shape": shapedirs.shape, "_dirty_vars": {"a"}, "_itr": None},
        ),
        "bs_type": "lrotmin",
    }


def chumpy(array: np.ndarray) -> Instance:
    """An array as chumpy's class saves itself."""
    state = {"x": array, "_dirty_vars": {"x"}, "_itr": None, "_depends_on_deps": {}, "_make_dense": False}
    return Instance("chumpy.ch", "Ch", state)
