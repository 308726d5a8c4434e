"""The pictures of a report: each one is drawn, or named with the reason why not."""

from __future__ import annotations

import base64
import functools
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastreid_clip3d.body.synthetic_index import read_index
from fastreid_clip3d.data.synthetic_bodies import synthetic_folder
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import CC, GENERAL
from fastreid_clip3d.evaluation.ranking import evaluate
from fastreid_clip3d.inference import load_model
from fastreid_clip3d.inference.model import find_run_files
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
    """A picture's data URI and caption, or with an empty `data` the reason why it could not be made."""

    title: str
    caption: str
    data: str = ""


class Pictures:
    """Draws what applies to a run.

    Args:
        record: the run. other: a run to compare rankings with.
        data: folder of synthetic bodies; "" for the ones that the run was trained with.
        images: of the people for transport plans; () for queries of the test set.
        dataset: which test set, where the run has several.
    """

    def __init__(
        self,
        record: RunRecord,
        other: RunRecord | None = None,
        data: str = "",
        images: Sequence[str] = (),
        dataset: str = "",
    ) -> None:
        self.record, self.other, self.data, self.dataset = record, other, data, dataset
        self.images = list(images)

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
                caption = draw(path)
                return Picture(title, caption, data_uri(path))
            except (ClearError, OSError) as error:
                return Picture(title, str(error))

    @functools.cached_property
    def _features(self) -> tuple[Any, Any]:
        return run_features(self.record.folder, self.dataset)

    @functools.cached_property
    def _model(self) -> Any:
        return load_model(self.record.folder)

    def _ranking(self, path: Path) -> str:
        query, gallery = self._features
        models = [RankedModel(self.record.title, query, gallery)]
        if self.other is not None:
            models.insert(0, RankedModel(self.other.title, *run_features(self.other.folder, self.dataset)))
        check_comparable(models)
        protocol = GENERAL if query.clothes_ids is None else CC
        valid = evaluate(query, gallery, [protocol])[protocol.name].queries
        queries = choose_queries(valid, query.pids, PEOPLE)
        ranking_sheet(models, protocol, queries, path)
        return (
            f"The closest gallery images under protocol {protocol.name}, for {len(queries)} queries drawn at random. Green: the "
            "same person; red: another. c is the camera, o the outfit."
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
            "Where the transport plan sends a phrase: blue less, red more than a uniform plan, which is 1; a phrase has one scale "
            f"for all people, and these plans lie between {float(found.maps.min()):.4f} and {float(found.maps.max()):.4f}. In "
            "brackets: the teacher's label is the opposite phrase, and the map shows the plan with the two exchanged."
        )

    def _some_queries(self) -> list[str]:
        query, _ = self._features
        if not query.names:
            raise ClearError("the features carry no image paths; name images with --images.")
        return [query.names[row] for row in choose_queries(np.arange(len(query)), query.pids, PEOPLE)]

    def _bodies(self, path: Path) -> str:
        weights = read_weights(find_run_files(self.record.folder)[0])
        phi_of(weights)
        trained_with = synthetic_folder(str(self.record.setting("DATASETS.SYNTHETIC") or "SyntheticBodies"))
        index = read_index(self.data or trained_with)
        seen = known_bodies(self._model, weights, index, choose_bodies(index, 8))
        bodies_sheet(seen, path)
        seen_before = "" if self.data else " These bodies are of the training set."
        return f"{seen.caption()}{seen_before} Predicted and true bodies stand in the image's pose, camera and light."


def data_uri(path: Path) -> str:
    """A picture file as a data URI, as JPEG where that is smaller."""
    with Image.open(path) as picture:
        stream = io.BytesIO()
        picture.convert("RGB").save(stream, format="JPEG", quality=86, optimize=True)
    png, jpeg = path.read_bytes(), stream.getvalue()
    kind, smaller = ("png", png) if len(png) <= len(jpeg) else ("jpeg", jpeg)
    return f"data:image/{kind};base64,{base64.b64encode(smaller).decode()}"
