"""The pictures of a report; a picture that cannot be drawn has the reason in its place."""

from __future__ import annotations

import base64
import functools
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastreid_clip3d.body.synthetic_index import read_index
from fastreid_clip3d.data.synthetic_bodies import synthetic_folder
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import CC, GENERAL
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, evaluate
from fastreid_clip3d.inference.model import TorchModel, find_run_files, load_torch_model
from fastreid_clip3d.modeling.weights import read_weights
from fastreid_clip3d.visualization.bodies import bodies_sheet, choose_bodies, known_bodies, phi_of
from fastreid_clip3d.visualization.commands import pictures_of
from fastreid_clip3d.visualization.embedding import embed, embedding_sheet
from fastreid_clip3d.visualization.ranking import RankedModel, check_comparable, choose_queries, ranking_sheet
from fastreid_clip3d.visualization.report.record import RunRecord
from fastreid_clip3d.visualization.run_files import run_features
from fastreid_clip3d.visualization.transport import phrase_table, transport_maps, transport_sheet

PHRASES = ("Tall", "Broad-Shouldered", "Long Legs", "Heavyset", "Muscular")
PEOPLE = 3


@dataclass(frozen=True)
class Picture:
    """A picture's data URI and caption; where it could not be drawn, `data` is "" and the caption is the reason."""

    title: str
    caption: str
    data: str = ""


class Pictures:
    """Draws the pictures of a run.

    Args:
        record: the run. other: a run to compare rankings with.
        bodies: folder of synthetic bodies; "": those of the training.
        images: people for the transport plans; (): queries of the test set.
        data: the test set, where the run has several. device: as in ``load_model``.
    """

    def __init__(
        self,
        record: RunRecord,
        other: RunRecord | None = None,
        bodies: str = "",
        images: Sequence[str] = (),
        data: str = "",
        device: str = "",
    ) -> None:
        self.record, self.other, self.bodies, self.data = record, other, bodies, data
        self.images, self.device = list(images), device

    def all(self) -> list[Picture]:
        """Ranking, embedding, transport plans and bodies, in this order."""
        return [
            self._made("Ranking", self._ranking),
            self._made("Embedding", self._embedding),
            self._made("Transport plans", self._transport),
            self._made("Bodies", self._bodies),
        ]

    def _made(self, title: str, draw: Callable[[Path], str]) -> Picture:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture.png"
            try:
                return Picture(title, draw(path), data_uri(path))
            except (ClearError, OSError) as error:
                return Picture(title, str(error))

    @functools.cached_property
    def _features(self) -> tuple[LabelledFeatures, LabelledFeatures]:
        return run_features(self.record.folder, self.data)

    @functools.cached_property
    def _model(self) -> TorchModel:
        return load_torch_model(self.record.folder, self.device)

    def _ranking(self, path: Path) -> str:
        query, gallery = self._features
        models = [RankedModel(self.record.title, query, gallery)]
        if self.other is not None:
            models.insert(0, RankedModel(self.other.title, *run_features(self.other.folder, self.data)))
        check_comparable(models)
        protocol = GENERAL if query.clothes_ids is None else CC
        valid = evaluate(query, gallery, [protocol])[protocol.name].queries
        queries = choose_queries(valid, query.pids, PEOPLE)
        ranking_sheet(models, protocol, queries, path)
        return (
            f"The closest gallery images under protocol {protocol.name}, for {len(queries)} queries drawn at random. "
            "Green: the same person; red: another. c is the camera, o the outfit."
        )

    def _embedding(self, path: Path) -> str:
        found = embed(*self._features)
        embedding_sheet(found, path)
        return f"{found.caption()}. Distances across the plane mean little; neighbourhoods do."

    def _transport(self, path: Path) -> str:
        phrase_table(self._model)
        images = pictures_of(self.images, PEOPLE) if self.images else self._some_queries()
        found = transport_maps(self._model, images, PHRASES)
        transport_sheet(images, found, path, self._model.size)
        return (
            "The share of a phrase that the plan sends to each patch: blue less, red more than a uniform plan, which "
            "is 1. A phrase has one scale for all people. These plans lie between "
            f"{float(found.maps.min()):.4f} and {float(found.maps.max()):.4f}. In brackets: the teacher's label is the "
            "opposite phrase, and the map shows the plan with the two exchanged."
        )

    def _some_queries(self) -> list[str]:
        query, _ = self._features
        if not query.names:
            raise ClearError("The features have no image paths; name images with --images.")
        return [query.names[row] for row in choose_queries(np.arange(len(query)), query.pids, PEOPLE)]

    def _bodies(self, path: Path) -> str:
        weights = read_weights(find_run_files(self.record.folder)[0])
        phi_of(weights)
        trained_with = synthetic_folder(str(self.record.setting("DATASETS.SYNTHETIC") or "SyntheticBodies"))
        index = read_index(self.bodies or trained_with)
        seen = known_bodies(self._model, weights, index, choose_bodies(index, 8))
        bodies_sheet(seen, path)
        seen_before = "" if self.bodies else " These bodies are of the training set."
        return f"{seen.caption()}{seen_before} Predicted and true bodies stand in the image's pose, camera and light."


def data_uri(path: Path) -> str:
    """A picture file as a data URI, as JPEG where that is smaller."""
    with Image.open(path) as picture:
        stream = io.BytesIO()
        picture.convert("RGB").save(stream, format="JPEG", quality=86, optimize=True)
    png, jpeg = path.read_bytes(), stream.getvalue()
    kind, smaller = ("png", png) if len(png) <= len(jpeg) else ("jpeg", jpeg)
    return f"data:image/{kind};base64,{base64.b64encode(smaller).decode()}"
