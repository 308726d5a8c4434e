"""What the sub-commands of ``tools/visualize.py`` do; each returns the file it wrote and a line to print."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastreid_clip3d.errors import ClearError


def transport(options: argparse.Namespace) -> tuple[Path, str]:
    """Transport plans of phrases over images (Figure 3)."""
    from fastreid_clip3d.inference import load_model
    from fastreid_clip3d.visualization.transport import transport_maps, transport_sheet

    images = pictures_of(options.images, options.most)
    model = load_model(options.model, options.device)
    check_torch_run(model, options.model)
    found = transport_maps(model, images, options.phrases)
    path = transport_sheet(images, found, options.output, model.size)
    low, high = float(found.maps.min()), float(found.maps.max())
    return path, f"{len(images)} images, {len(options.phrases)} phrases; {low:.4f} to {high:.4f} times a uniform plan"


def bodies(options: argparse.Namespace) -> tuple[Path, str]:
    """Predicted beside true bodies (Figure 5)."""
    from fastreid_clip3d.body.synthetic_set import read_index
    from fastreid_clip3d.inference import load_model
    from fastreid_clip3d.inference.model import find_run_files, read_checkpoint
    from fastreid_clip3d.visualization.bodies import bodies_sheet, choose_bodies, known_bodies, phi_of, unknown_bodies

    if bool(options.images) == bool(options.data):
        raise ClearError("bodies: give either --data FOLDER_OF_SYNTHETIC_BODIES or --images.")
    checkpoint, _ = find_run_files(Path(options.model))
    weights = read_checkpoint(checkpoint)
    phi_of(weights)
    model = load_model(options.model, options.device)
    if options.data:
        index = read_index(options.data)
        seen = known_bodies(model, weights, index, choose_bodies(index, options.most, options.seed))
    else:
        seen = unknown_bodies(model, weights, pictures_of(options.images, options.most))
    return bodies_sheet(seen, options.output), seen.caption()


def ranking(options: argparse.Namespace) -> tuple[Path, str]:
    """Queries with the top matches of one or more models."""
    from fastreid_clip3d.evaluation.protocols import find_protocols
    from fastreid_clip3d.evaluation.ranking import evaluate
    from fastreid_clip3d.visualization.ranking import RankedModel, check_comparable, choose_queries, ranking_sheet
    from fastreid_clip3d.visualization.run_files import run_features, run_title

    protocol = find_protocols([options.protocol])[0]
    models = [RankedModel(run_title(run), *run_features(run, options.dataset)) for run in options.models]
    check_comparable(models)
    results = {model.title: evaluate(model.query, model.gallery, [protocol])[protocol.name] for model in models}
    first = models[0]
    queries = choose_queries(next(iter(results.values())).queries, first.query.pids, options.queries, options.seed)
    if not queries:
        raise ClearError(f"No query has a match under protocol {protocol.name}.")
    path = ranking_sheet(models, protocol, queries, options.output, options.top)
    scores = [f"{name} mAP {result.mean_average_precision:.1%}" for name, result in results.items()]
    return path, f"{len(queries)} queries drawn at random (seed {options.seed}); {', '.join(scores)}"


def embedding(options: argparse.Namespace) -> tuple[Path, str]:
    """Features on a plane, by person and by clothes."""
    from fastreid_clip3d.visualization.embedding import embed, embedding_sheet
    from fastreid_clip3d.visualization.run_files import run_features, run_title

    found = embed(*run_features(options.model, options.dataset), options.people, options.method, options.seed)
    return embedding_sheet(found, options.output, run_title(options.model)), found.caption()


def pictures_of(sources: list[str], most: int) -> list[str]:
    """The first `most` image files of files, folders, globs and lists.

    Raises:
        ClearError: none of them is an image.
    """
    from fastreid_clip3d.inference.pictures import list_images

    images = [str(entry.frames[0]) for entry in list_images(sources)]
    if not images:
        raise ClearError(f"No images at {', '.join(sources)}.")
    return images[:most]


def check_torch_run(model: object, run: str) -> None:
    """Refuses models that give features only."""
    if not hasattr(model, "local_features"):
        raise ClearError(f"{run}: an ONNX file has no patches; give the run folder or its checkpoint.")
