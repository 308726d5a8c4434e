"""The sub-commands of ``clip3d visualize``; each returns the file that it wrote and a line to print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fastreid_clip3d.body.synthetic_index import read_index
from fastreid_clip3d.common.figures import FIGURE_ENDINGS
from fastreid_clip3d.common.files import check_writable
from fastreid_clip3d.common.images import IMAGE_ENDINGS
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import find_protocols
from fastreid_clip3d.evaluation.ranking import evaluate
from fastreid_clip3d.inference.load import ModelSource, as_source, open_model
from fastreid_clip3d.inference.model import find_run_files
from fastreid_clip3d.inference.pictures import list_images
from fastreid_clip3d.modeling.weights import read_weights
from fastreid_clip3d.visualization.alike import alike_sheet, find_alike
from fastreid_clip3d.visualization.bodies import bodies_sheet, choose_bodies, known_bodies, phi_of, unknown_bodies
from fastreid_clip3d.visualization.embedding import embed, embedding_sheet
from fastreid_clip3d.visualization.ranking import RankedModel, check_comparable, ranking_sheet, sorted_queries
from fastreid_clip3d.visualization.run_files import run_features, run_title, run_titles
from fastreid_clip3d.visualization.transport import transport_maps, transport_sheet


def transport(
    *,
    model: str | ModelSource,
    images: Sequence[str],
    phrases: Sequence[str],
    output: str = "transport.png",
    most: int = 6,
    device: str = "",
) -> tuple[Path, str]:
    """Transport plans of phrases over images (Figure 3).

    Args:
        model: a run folder, a checkpoint, or a checkpoint with its config.
        images: files, folders, globs, lists. phrases: some of the paper's 32.
        most: images drawn at most, 1 or more. device: as in ``load_model``.
    """
    check_writable(output, FIGURE_ENDINGS)
    paths = pictures_of(images, most)
    student = as_source(model).load_torch(device)
    found = transport_maps(student, paths, phrases)
    path = transport_sheet(paths, found, output, student.size)
    low, high = float(found.maps.min()), float(found.maps.max())
    return path, f"{len(paths)} images, {len(phrases)} phrases; {low:.4f} to {high:.4f} times a uniform plan"


def bodies(
    *,
    model: str | ModelSource,
    bodies: str = "",
    images: Sequence[str] = (),
    output: str = "bodies.png",
    most: int = 8,
    seed: int = 0,
    device: str = "",
) -> tuple[Path, str]:
    """Predicted beside true bodies (Figure 5).

    Args:
        model: as in :func:`transport`. bodies: folder of synthetic bodies. images: or images with unknown bodies.
        most: bodies drawn at most, 1 or more. seed: of the choice of bodies. device: as in ``load_model``.
    """
    if bool(images) == bool(bodies):
        raise ClearError("Give either --bodies FOLDER (from `clip3d render-bodies`) or --images.")
    check_writable(output, FIGURE_ENDINGS)
    source = as_source(model)
    checkpoint, _ = find_run_files(source.source, source.config)
    weights = read_weights(checkpoint)
    phi_of(weights)
    student = source.load_torch(device)
    if bodies:
        index = read_index(bodies)
        seen = known_bodies(student, weights, index, choose_bodies(index, most, seed))
    else:
        seen = unknown_bodies(student, weights, pictures_of(images, most))
    return bodies_sheet(seen, output), seen.caption()


def ranking(
    *,
    models: Sequence[str],
    protocol: str = "general",
    data: str = "",
    queries: int = 4,
    sort: Sequence[str] = ("random",),
    top: int = 8,
    seed: int = 0,
    output: str = "ranking.png",
) -> tuple[Path, str]:
    """Queries with the top matches of one or more models.

    Args:
        models: run folders or features files. data: the test set, where a run has several.
        queries: number of people drawn, 1 or more.
        sort: worst, best (by the first model's average precision), random, or names of query pictures.
        top: matches per query, 1 or more. seed: of the choice of queries.
    """
    check_writable(output, IMAGE_ENDINGS)
    rules = find_protocols([protocol])[0]
    ranked = [RankedModel(title, *run_features(run, data)) for title, run in zip(run_titles(models), models)]
    check_comparable(ranked)
    results = {model.title: evaluate(model.query, model.gallery, [rules])[rules.name] for model in ranked}
    chosen, order = sorted_queries(next(iter(results.values())), ranked[0].query, sort, queries, seed)
    if not chosen:
        raise ClearError(f"No query has a match under protocol {rules.name}.")
    path = ranking_sheet(ranked, rules, chosen, output, top)
    scores = [f"{name} mAP {result.mean_average_precision:.1%}" for name, result in results.items()]
    return path, f"{len(chosen)} queries, {order}; {', '.join(scores)}"


def alike(
    *, model: str | ModelSource, images: tuple[str, str], output: str = "alike.png", device: str = ""
) -> tuple[Path, str]:
    """Which patches make two pictures alike.

    Args:
        model: any source of ``load_model`` that has a feature map. images: two files. device: as in ``load_model``.
    """
    check_writable(output, FIGURE_ENDINGS)
    loaded = open_model(model, device)
    found = find_alike(loaded, *images)
    path = alike_sheet(images, found, output, loaded.size)
    return path, f"similarity {found.similarity:.3f}; the shares of the patches add up to {found.explained:.3f}"


def embedding(
    *,
    model: str,
    data: str = "",
    method: Literal["tsne", "pca"] = "tsne",
    people: int = 12,
    seed: int = 0,
    output: str = "embedding.png",
) -> tuple[Path, str]:
    """Features on a plane, by person and by clothes.

    Args:
        model: run folder or features file. data: the test set, where the run has several.
        people: number of people drawn at random, 1 or more. seed: of the people and of t-SNE.
    """
    check_writable(output, FIGURE_ENDINGS)
    found = embed(*run_features(model, data), people, method, seed)
    return embedding_sheet(found, output, run_title(model)), found.caption()


def pictures_of(sources: Sequence[str], most: int) -> list[str]:
    """The first `most` image files of files, folders, globs and lists.

    Raises:
        ClearError: none of them is an image.
    """
    images = [str(entry.frames[0]) for entry in list_images(sources)]
    if not images:
        raise ClearError(f"No images at {', '.join(sources)}.")
    return images[:most]
