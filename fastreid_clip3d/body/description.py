"""What `clip3d describe` prints: measurements, scores and phrases of one body from a mesh file or from betas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fastreid_clip3d.body.descriptors import DESCRIPTORS, label, population_statistics, scores_from_measurements
from fastreid_clip3d.body.measurements import Measurements, measure
from fastreid_clip3d.body.model import BodyModel
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.vocabulary import PHRASE_PAIRS


@dataclass(frozen=True)
class DescribedPair:
    """One of the 16 pairs for one body."""

    phrase: str  # the one that fits
    opposite: str
    score: float
    threshold: float  # median of the body's own sex
    deviations: float  # distance from the threshold in standard deviations of the population
    meaning: str


@dataclass(frozen=True)
class Description:
    """One body in numbers and phrases."""

    gender: str
    measurements: dict[str, float]  # metres, volume in cubic metres
    pairs: tuple[DescribedPair, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "gender": self.gender,
            "measurements": {
                name: {"value": value, "unit": Measurements.unit(name)} for name, value in self.measurements.items()
            },
            "descriptors": [vars(pair) for pair in self.pairs],
        }


def describe_one(vertices: Tensor, body_model: BodyModel) -> Description:
    """Describes one T-posed body, vertices [V, 3] in metres; its thresholds are those of the model's population."""
    measured = measure(vertices[None], body_model)
    scores = scores_from_measurements(measured)[0]
    population = population_statistics(body_model)
    choices = label(scores, population.median).tolist()
    deviations = (scores - population.median) / population.standard_deviation
    pairs = tuple(
        DescribedPair(
            pair[choice], pair[1 - choice], float(score), float(threshold), float(deviation), descriptor.meaning
        )
        for pair, choice, score, threshold, deviation, descriptor in zip(
            PHRASE_PAIRS, choices, scores, population.median, deviations, DESCRIPTORS, strict=True
        )
    )
    return Description(
        gender=body_model.gender,
        measurements={name: float(getattr(measured, name)) for name in Measurements.names()},
        pairs=pairs,
    )


def vertices_from_betas(betas: Sequence[float], body_model: BodyModel) -> Tensor:
    """Vertices [V, 3] of shape coefficients in standard deviations; those left out are 0."""
    count = body_model.shapedirs.shape[2]
    if len(betas) > count:
        raise ClearError(f"--betas: at most {count} numbers, the body model's directions, got {len(betas)}")
    row = torch.zeros(1, count)
    row[0, : len(betas)] = torch.tensor(list(betas), dtype=torch.float32)
    if not torch.isfinite(row).all():
        raise ClearError("--betas: only finite numbers, got NaN or infinity")
    return body_model.shape(row)[0]


def vertices_from_file(path: str | Path, body_model: BodyModel) -> Tensor:
    """Vertices [V, 3] of a mesh file that trimesh reads, in the file's order.

    Raises:
        ClearError: no such file, not a mesh, or not of the body model's topology, without which there are no joints.
    """
    import trimesh

    path = Path(path)
    if not path.is_file():
        raise ClearError(f"{path}: no such file; give a mesh (.ply, .obj, .off, ...) or --betas")
    try:
        mesh: Any = trimesh.load(path, force="mesh", process=False, maintain_order=True)
        vertices, faces = np.asarray(mesh.vertices, dtype=np.float32), np.asarray(mesh.faces, dtype=np.int64)
    except Exception as error:  # trimesh's readers raise whatever their format's parser raises
        raise ClearError(f"{path}: cannot be read as a mesh ({type(error).__name__}: {error})") from error
    wanted = body_model.v_template.shape[0]
    if vertices.ndim != 2 or len(vertices) == 0:
        raise ClearError(f"{path}: holds no mesh")
    if len(vertices) != wanted:
        raise ClearError(
            f"{path}: {len(vertices)} vertices, but the body model has {wanted}. Joints and body parts come from the "
            "model, so the mesh must have its topology, vertex by vertex: give the matching --body-model (SMPL's for a "
            "mesh of 6890 vertices), and a format that keeps shared vertices (.ply, or .obj without texture; not .stl)"
        )
    if len(faces) and _edge_set(faces) != _edge_set(body_model.faces.numpy()):
        raise ClearError(
            f"{path}: as many vertices as the body model, but joined in another way, so they are not the same points; "
            "give the --body-model that the mesh was made with"
        )
    return torch.from_numpy(vertices)


def _edge_set(faces: np.ndarray) -> set[tuple[int, int]]:
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return set(map(tuple, np.unique(edges, axis=0).tolist()))


def print_tables(description: Description) -> None:
    """Two tables on the terminal."""
    console = Console()
    phrases = Table(title=f"descriptors ({description.gender})")
    phrases.add_column("phrase", no_wrap=True)
    for heading in ("score", "median", "deviations"):
        phrases.add_column(heading, justify="right", no_wrap=True)
    phrases.add_column("from")
    for pair in description.pairs:
        numbers = (f"{pair.score:.3f}", f"{pair.threshold:.3f}", f"{pair.deviations:+.2f}")
        phrases.add_row(pair.phrase, *numbers, pair.meaning)
    sizes = Table(title="measurements")
    for heading in ("measurement", "value", "meaning"):
        sizes.add_column(heading, justify="right" if heading == "value" else "left")
    for name, value in description.measurements.items():
        text = f"{100 * value:.1f} cm" if Measurements.unit(name) == "m" else f"{1000 * value:.1f} l"
        sizes.add_row(name.replace("_", " "), text, Measurements.meaning(name))
    console.print(phrases)
    console.print(sizes)
