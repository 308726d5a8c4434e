"""Table 9: the Chamfer distance CD-L2 between the bodies that phi predicts from f_id and the true bodies.

Both meshes are in the T-pose and in metres. Each is moved so that the mean of its sampled points is the origin, since
a scan and a body model have different origins. CD-L2 is that of PyTorch3D: the mean squared distance to the nearest
point of the other mesh, summed over both directions, in square metres. We print it in 10^-3 m^2; the paper gives no
unit. Two samplings of the same body have a distance above zero; the table has a row for it.

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
"""Factor from square metres to the printed unit, 10^-3 m^2."""
RUNNING, BATCH = "predicted, as at test time", "predicted, batch statistics of the bodies (as in training)"
NEUTRAL, GENDERED, FLOOR = "mean body", "mean body of the person's sex", "the true body itself, sampled again"


@dataclass(frozen=True)
class Mesh:
    """vertices float32 [V, 3], metres; faces int64 [F, 3]."""

    vertices: Tensor
    faces: Tensor


def sample_points(mesh: Mesh, count: int, seed: int) -> Tensor:
    """Points drawn uniformly from the surface, [count, 3], metres; their mean is the origin."""
    from pytorch3d.ops import sample_points_from_meshes
    from pytorch3d.structures import Meshes

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        points = sample_points_from_meshes(Meshes([mesh.vertices], [mesh.faces]), count)[0]
    return points - points.mean(0)


def chamfer(first: Tensor, second: Tensor) -> float:
    """CD-L2 in square metres of two sets of points [n, 3] in metres."""
    from pytorch3d.loss import chamfer_distance

    return float(chamfer_distance(first[None], second[None])[0])


def mesh_distance(predicted: Mesh, true: Mesh, points: int = POINTS, seed: int = 0) -> float:
    """CD-L2 in square metres of two meshes, from `points` points of each."""
    return chamfer(sample_points(predicted, points, 2 * seed), sample_points(true, points, 2 * seed + 1))


def predicted_betas(run: str | Path, images: Sequence[str], batch_statistics: bool = False, batch: int = 50) -> Tensor:
    """Shape coefficients of the neutral body [B, K] that a run predicts.

    Args:
        batch_statistics: the batch norms use the statistics of these images, as the synthetic half of a training with
            ``MODEL.SYNTHETIC_STATISTICS separate`` does. Without it they use the running statistics.

    Raises:
        ClearError: there is no such run, or it trained without BodyShapeLoss.
    """
    from fastreid_clip3d.inference.load import load_model
    from fastreid_clip3d.inference.model import find_run_files
    from fastreid_clip3d.modeling.weights import read_weights
    from fastreid_clip3d.visualization.bodies import phi_of, predict_betas

    phi = phi_of(read_weights(find_run_files(run)[0]))
    return predict_betas(load_model(run), phi, list(images), batch_statistics, batch)


@dataclass(frozen=True)
class Truth:
    """Images and their true bodies. gender: 0 female, 1 male, -1 unknown; source: a phrase for the title."""

    images: list[str]
    meshes: list[Mesh]
    gender: list[int]
    source: str


def fresh_bodies(folder: Path, image_size: tuple[int, int], count: int = FRESH_BODIES, body_model: str = "") -> Truth:
    """Bodies that no training uses, one picture each. What is missing in `folder` is rendered."""
    from fastreid_clip3d.body import load_body_model
    from fastreid_clip3d.body.constants import GENDERS
    from fastreid_clip3d.body.synthetic_settings import SyntheticSettings
    from fastreid_clip3d.body.synthetic_writer import SyntheticSet

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
    """Reads photographs with scans (HBW or others) from a CSV file with the columns image, mesh and perhaps gender.

    Paths are absolute or relative to the CSV file. A mesh is a body in the T-pose, in metres, y up, in a format that
    trimesh reads (.obj, .ply, .off, .stl). ``gender`` is female, male or empty.

    Args:
        path: the CSV file, or a folder with ``hbw.csv``.

    Raises:
        ClearError: the file, a column, a picture or a mesh is missing or cannot be read; the message names the line.
    """
    import trimesh

    file = path / "hbw.csv" if path.is_dir() else path
    if not file.is_file():
        raise ClearError(
            f"--hbw {path}: there is no file {file.name}. HBW has several layouts. Write a CSV file with the columns "
            "image,mesh (and gender, if known): a photograph and its body in the T-pose, in metres, as .obj or .ply."
        )
    images, meshes, genders, loaded = [], [], [], {}
    with open(file, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if not {"image", "mesh"} <= set(reader.fieldnames or ()):
            found = ", ".join(reader.fieldnames or ()) or "none"
            raise ClearError(f"{file} needs the columns image and mesh; it has {found}.")
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
                except Exception as error:  # trimesh's readers raise errors of many types
                    raise ClearError(f"{where}: {mesh} cannot be read as a mesh: {error}") from error
                _check_mesh(loaded[mesh], f"{where}: {mesh}")
            images.append(str(image))
            meshes.append(loaded[mesh])
            genders.append({"female": 0, "male": 1}.get(gender, -1))
    if not images:
        raise ClearError(f"{file} has no rows below its heading.")
    return Truth(images, meshes, genders, f"{len(images)} photographs of {len(loaded)} bodies from {file.name}")


def _check_mesh(mesh: Mesh, name: str) -> None:
    if not len(mesh.faces) or not torch.isfinite(mesh.vertices).all():
        raise ClearError(f"{name} has no faces, or vertices that are not finite. Give another mesh.")
    height = float(mesh.vertices[:, 1].max() - mesh.vertices[:, 1].min())
    if not 0.8 < height < 2.6:
        raise ClearError(f"{name} is {height:.3g} high along y. Give a person in metres with y up.")


def distances(
    truth: Truth, predictions: dict[str, Tensor], body_model: str = "", points: int = POINTS
) -> dict[str, list[float]]:
    """CD-L2 in square metres per image, by row of the table.

    Args:
        truth: images and their bodies.
        predictions: by row of the table, shape coefficients of the neutral body [B, K].
        body_model: ``MODEL.BODY.PATH``.
        points: points per mesh.
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
    """Does the work of ``--table 9``: writes ``results.csv`` and ``results.md`` to `folder`; returns the markdown.

    Args:
        runs: run folders trained with BodyShapeLoss.
        hbw: photographs with scans, see :func:`read_pairs`; None: new synthetic bodies.
        command: the command that the user typed.
        bodies: number of new synthetic bodies.
        points: points per mesh.
    """
    from fastreid_clip3d.config_loading import load_config
    from fastreid_clip3d.inference.model import find_run_files

    cfg = load_config(str(find_run_files(runs[0])[1]))
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
        f"Mean ± standard deviation over {len(truth.images)} images; {points:,} points per mesh, T-pose, mean of the "
        "points at the origin. Squared distances to the nearest point, summed over both directions.", "",
        f"The paper's numbers on HBW, printed without a unit: {of_paper}.", "",
        f"- runs: {', '.join(map(str, runs))}", f"- command: `{command}`", f"- machine: {machine()}", "",
    ]  # fmt: skip
    markdown = "\n".join(parts)
    write_atomically(folder / "results.md", markdown.encode())
    return markdown


def _picture_size(cfg: Any) -> tuple[int, int]:
    """Size of the synthetic pictures that the run trained on; if these are gone, its input size."""
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
        ClearError: there is none.
    """
    runs = sorted(path.parent for path in Path(study_folder).glob("table10/full/seed*/model_final.pth"))
    if not runs:
        raise ClearError(
            f"There is no trained CLIP3DReID below {Path(study_folder) / 'table10' / 'full'}. Make Table 10 first, or "
            "give run folders with --runs."
        )
    return runs
