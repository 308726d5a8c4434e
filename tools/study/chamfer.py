"""Table 9: how near the bodies that phi predicts from f_id are to the true ones, as Chamfer distance CD-L2.

Both meshes stand in canonical space, the T-pose, in metres, each moved so that its sampled points have their mean at
the origin: a scan and a body model put their origins in different places. CD-L2 is PyTorch3D's: the mean squared
distance to the nearest point of the other mesh, added up over both directions, in square metres. We print it in
10^-3 m^2; the paper gives no unit. Two samplings of one and the same body are not at zero from each other: that floor
is printed as well.

Shape letters: V vertices, F faces, n sampled points, B images.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError
from tools.study import paper
from tools.study.results import machine

POINTS = 10_000
FRESH_BODIES, FRESH_SEED = 200, 90_001
FLOOR_BODIES = 20
PRINTED_UNIT = 1e3
"""From square metres to what is printed, 10^-3 m^2."""
RUNNING, BATCH = "predicted, as at test time", "predicted, batch statistics of the bodies (as in training)"
NEUTRAL, GENDERED, FLOOR = "mean body", "mean body of the person's sex", "the true body itself, sampled again"


@dataclass(frozen=True)
class Mesh:
    """vertices float32 [V, 3], metres; faces int64 [F, 3]."""

    vertices: Tensor
    faces: Tensor


def sample_points(mesh: Mesh, count: int, seed: int) -> Tensor:
    """Points spread evenly over the surface, their mean at the origin: [count, 3]."""
    from pytorch3d.ops import sample_points_from_meshes
    from pytorch3d.structures import Meshes

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        points = sample_points_from_meshes(Meshes([mesh.vertices], [mesh.faces]), count)[0]
    return points - points.mean(0)


def chamfer(first: Tensor, second: Tensor) -> float:
    """CD-L2 of two sets of points [n, 3] in metres: square metres."""
    from pytorch3d.loss import chamfer_distance

    return float(chamfer_distance(first[None], second[None])[0])


def mesh_distance(predicted: Mesh, true: Mesh, points: int = POINTS, seed: int = 0) -> float:
    """CD-L2 of two meshes, each with points of its own."""
    return chamfer(sample_points(predicted, points, 2 * seed), sample_points(true, points, 2 * seed + 1))


def predicted_betas(run: str | Path, images: Sequence[str], batch_statistics: bool = False, batch: int = 50) -> Tensor:
    """Shape coefficients of the neutral body [B, K] that a run predicts.

    Args:
        batch_statistics: batch norms use the statistics of these images, which a run with
            ``MODEL.SYNTHETIC_STATISTICS separate`` did for its synthetic half; otherwise the running ones.

    Raises:
        ClearError: no such run, or one without BodyShapeLoss.
    """
    from fastreid_clip3d.inference.model import find_run_files, load_model
    from fastreid_clip3d.modeling.weights import read_weights
    from fastreid_clip3d.visualization.bodies import phi_of, predict_betas

    phi = phi_of(read_weights(find_run_files(Path(run))[0]))
    return predict_betas(load_model(run), phi, list(images), batch_statistics, batch)


@dataclass(frozen=True)
class Truth:
    """Images with their true bodies; `gender` (0 female, 1 male, -1 not known)."""

    images: list[str]
    meshes: list[Mesh]
    gender: list[int]
    source: str


def fresh_bodies(folder: Path, image_size: tuple[int, int], count: int = FRESH_BODIES, body_model: str = "") -> Truth:
    """Bodies that no training has seen, one picture each, rendered into `folder` where they are not there yet."""
    from fastreid_clip3d.body import load_body_model
    from fastreid_clip3d.body.constants import GENDERS
    from fastreid_clip3d.body.synthetic_writer import SyntheticSet, SyntheticSettings

    settings = SyntheticSettings(count, 1, image_size, seed=FRESH_SEED, body_model=body_model)
    index = SyntheticSet(folder, settings).make()
    models = [load_body_model(body_model, gender) for gender in GENDERS]
    betas = torch.from_numpy(index.betas)
    meshes = [
        Mesh(models[int(gender)].shape(one[None])[0], models[int(gender)].faces)
        for gender, one in zip(index.gender, betas)
    ]
    return Truth(list(index.paths), meshes, index.gender.astype(int).tolist(), f"{count} held-out synthetic bodies")


def read_pairs(path: Path) -> Truth:
    """HBW, or any photographs with scans, as a csv file with the columns ``image`` and ``mesh`` and perhaps ``gender``.

    Paths are absolute or relative to the csv file. A mesh is a T-posed body in metres, y up, in a format that trimesh
    reads (.obj, .ply, .off, .stl). ``gender`` is female, male or empty. `path` is the csv file or a folder with
    ``hbw.csv``.

    Raises:
        ClearError: the file, a column, a picture or a mesh is missing or unreadable; names the line.
    """
    import trimesh

    file = path / "hbw.csv" if path.is_dir() else path
    if not file.is_file():
        raise ClearError(
            f"--hbw {path}: no {file.name} there. HBW comes in more than one layout, so write a csv file with the "
            "columns image,mesh (and gender, if known): a photograph and its body in the T-pose, in metres, as .obj or "
            ".ply."
        )
    images, meshes, genders, loaded = [], [], [], {}
    with open(file, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if not {"image", "mesh"} <= set(reader.fieldnames or ()):
            found = ", ".join(reader.fieldnames or ()) or "none"
            raise ClearError(f"{file}: needs the columns image and mesh, has {found}.")
        for row in reader:
            where = f"{file}, line {reader.line_num}"
            image, mesh = (file.parent / (row[key] or "") for key in ("image", "mesh"))
            gender = (row.get("gender") or "").strip().lower()
            if gender not in ("", "female", "male"):
                raise ClearError(f"{where}: gender is {gender!r}; it must be female, male or empty.")
            if not image.is_file():
                raise ClearError(f"{where}: there is no image {image}.")
            if mesh not in loaded:
                try:
                    read = trimesh.load(mesh, force="mesh", process=False)
                    faces = torch.tensor(np.asarray(read.faces), dtype=torch.int64)
                    loaded[mesh] = Mesh(torch.tensor(np.asarray(read.vertices), dtype=torch.float32), faces)
                except Exception as error:  # trimesh's readers raise whatever their formats make them raise
                    raise ClearError(f"{where}: {mesh} cannot be read as a mesh: {error}") from error
                _check_mesh(loaded[mesh], f"{where}: {mesh}")
            images.append(str(image))
            meshes.append(loaded[mesh])
            genders.append({"female": 0, "male": 1}.get(gender, -1))
    if not images:
        raise ClearError(f"{file} has no lines below its heading.")
    return Truth(images, meshes, genders, f"{len(images)} photographs of {len(loaded)} bodies from {file.name}")


def _check_mesh(mesh: Mesh, name: str) -> None:
    if not len(mesh.faces) or not torch.isfinite(mesh.vertices).all():
        raise ClearError(f"{name} has no faces, or vertices that are not finite.")
    height = float(mesh.vertices[:, 1].max() - mesh.vertices[:, 1].min())
    if not 0.8 < height < 2.6:
        raise ClearError(f"{name} is {height:.3g} high along y; a person in metres with y up is expected.")


def distances(
    truth: Truth, predictions: dict[str, Tensor], body_model: str = "", points: int = POINTS
) -> dict[str, list[float]]:
    """CD-L2 in square metres by row of the table, one number an image.

    Args:
        predictions: shape coefficients of the neutral body [B, K] by row.
    """
    from fastreid_clip3d.body import load_body_model

    num_betas = next(iter(predictions.values())).shape[1] if predictions else 10
    neutral = load_body_model(body_model, "neutral", num_betas)
    means = [load_body_model(body_model, gender, num_betas) for gender in ("female", "male")]
    mean_points = sample_points(Mesh(neutral.v_template, neutral.faces), points, 1)
    gendered_points = [sample_points(Mesh(body.v_template, body.faces), points, 1) for body in means]
    found: dict[str, list[float]] = {name: [] for name in (*predictions, NEUTRAL, GENDERED, FLOOR)}
    for row, (mesh, gender) in enumerate(tqdm(list(zip(truth.meshes, truth.gender)), desc="bodies", unit="body")):
        true = sample_points(mesh, points, 2 * row)
        for name, betas in predictions.items():
            shaped = Mesh(neutral.shape(betas[row : row + 1])[0], neutral.faces)
            found[name].append(chamfer(sample_points(shaped, points, 2 * row + 1), true))
        found[NEUTRAL].append(chamfer(mean_points, true))
        if gender >= 0:
            found[GENDERED].append(chamfer(gendered_points[gender], true))
        if row < FLOOR_BODIES:
            found[FLOOR].append(chamfer(sample_points(mesh, points, 2 * row + 1), true))
    return {name: values for name, values in found.items() if values}


def table_9(
    runs: Sequence[Path], folder: Path, hbw: Path | None, command: str, bodies: int = FRESH_BODIES, points: int = POINTS
) -> str:
    """What ``--table 9`` does: writes ``results.csv`` and ``results.md`` to `folder` and returns the markdown.

    Args:
        runs: run folders trained with BodyShapeLoss. hbw: photographs with scans, see :func:`read_pairs`; None: fresh
            synthetic bodies.
    """
    from fastreid_clip3d.config_loading import load_config
    from fastreid_clip3d.inference.model import find_run_files

    cfg = load_config(str(find_run_files(Path(runs[0]))[1]))
    model = cfg.MODEL.BODY.PATH
    truth = read_pairs(hbw) if hbw else fresh_bodies(folder / "bodies", _picture_size(cfg), bodies, model)
    predictions = {}
    for run in runs:
        ending = f" ({run})" if len(runs) > 1 else ""
        predictions[RUNNING + ending] = predicted_betas(run, truth.images)
        if not hbw:
            predictions[BATCH + ending] = predicted_betas(run, truth.images, batch_statistics=True)
    found = distances(truth, predictions, model, points)
    lines = [["image", *found]]
    for row, image in enumerate(truth.images):
        lines.append([image, *(f"{values[row]:.9g}" if row < len(values) else "" for values in found.values())])
    _write_csv(folder / "results.csv", lines)
    printed = {name: PRINTED_UNIT * np.array(values) for name, values in found.items()}
    rows = [[name, f"{values.mean():.3f} ± {values.std():.3f}"] for name, values in printed.items()]
    of_paper = ", ".join(f"{name} {value:.3f}" for name, value in paper.CHAMFER_ON_HBW.items())
    parts = [
        f"# Table 9: Chamfer distance of predicted bodies, {truth.source}", "",
        tabulate(rows, ["", "CD-L2, 10^-3 m^2"], tablefmt="pipe", disable_numparse=True), "",
        f"Mean ± standard deviation over {len(truth.images)} images; {points:,} points a mesh, T-pose, means of the "
        "points at one place. Squared distances to the nearest point, both directions added.", "",
        f"The paper, on HBW, without a unit: {of_paper}.", "",
        f"- runs: {', '.join(map(str, runs))}", f"- command: `{command}`", f"- machine: {machine()}", "",
    ]  # fmt: skip
    markdown = "\n".join(parts)
    write_atomically(folder / "results.md", markdown.encode())
    return markdown


def _picture_size(cfg: Any) -> tuple[int, int]:
    """Of the pictures that the run was trained on, where they are; else its input size."""
    from fastreid_clip3d.body.synthetic_index import read_index
    from fastreid_clip3d.data.synthetic_bodies import synthetic_folder

    try:
        return read_index(synthetic_folder(cfg.DATASETS.SYNTHETIC)).image_size
    except ClearError:
        return tuple(cfg.INPUT.SIZE_TEST)


def _write_csv(path: Path, lines: Sequence[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(lines)
    write_atomically(path, text.getvalue().encode())


def default_runs(study_folder: Path) -> list[Path]:
    """The finished runs of Table 10's full method.

    Raises:
        ClearError: there are none.
    """
    runs = sorted(path.parent for path in Path(study_folder).glob("table10/full/seed*/model_final.pth"))
    if not runs:
        raise ClearError(
            f"there is no trained CLIP3DReID below {Path(study_folder) / 'table10' / 'full'}: make Table 10 first, or "
            "name run folders with --runs."
        )
    return runs
