"""A fast-reid evaluator that scores every protocol of a dataset.

It replaces fast-reid's ``ReidEvaluator``. It returns one flat dict of floats: fast-reid's headline keys for the
dataset's first protocol, and ``<dataset>/<protocol>/...`` for each protocol.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from fastreid.config import CfgNode
from fastreid.evaluation.evaluator import DatasetEvaluator
from fastreid.utils import comm

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.distances import METRICS, first_non_finite_row
from fastreid_clip3d.evaluation.features_file import write_features
from fastreid_clip3d.evaluation.per_query import check_format, write_per_query
from fastreid_clip3d.evaluation.protocols import GENERAL, Pooling, Protocol, find_protocols, why_no_match
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, ProtocolResult, evaluate, pair_distances, taking_part
from fastreid_clip3d.evaluation.refinement import Refinement
from fastreid_clip3d.evaluation.roc import true_positive_rates
from fastreid_clip3d.evaluation.tracklets import TrackletPool

logger = logging.getLogger(__name__)

OnScored = Callable[[str, LabelledFeatures, LabelledFeatures, dict[str, ProtocolResult]], None]
_ID_KEYS = {"pids": "targets", "camids": "camids", "clothes_ids": "clothes_ids"}


class ClothesEvaluator(DatasetEvaluator):
    """Collects the features of a test set and scores them.

    A test batch holds ``targets``, ``camids`` and, where known, ``clothes_ids`` (int64 [B]; -1: not known) and
    ``img_paths`` (texts). Query items come first, then the gallery, and each rank has a contiguous share. With
    ``item_ids`` (int64 [B], place in query + gallery) items may have any order and be repeated. A tracklet comes as its
    frames: ``tracklet_ids`` (int64 [B], place in query + gallery), ``frame_ids`` (place in the tracklet) and
    ``tracklet_lengths`` (its number of frames).

    Args:
        cfg: we read ``TEST.METRIC``, ``NFC``, ``AQE``, ``RERANK``, ``ROC`` and ``EVALUATION``.
        dataset: has ``query`` and ``gallery`` and may have ``protocols``; without them the protocol is general.
        dataset_name: prefix of the result keys; "": the name of the dataset's class.
        output_dir: folder of features and per-query results, if the config wants them; "": ``OUTPUT_DIR``.

    Attributes:
        on_scored: if set, we call it on the main process with the dataset's name, query, gallery and their results.

    Raises:
        ClearError: at construction, a value out of range in those keys; in :meth:`evaluate`, features that are not
            finite, missing items, or a protocol that needs clothes ids where some are not known.
    """

    def __init__(self, cfg: CfgNode, dataset: Any, dataset_name: str = "", output_dir: str | None = None) -> None:
        self.cfg = cfg
        self.num_query, self.num_items = len(dataset.query), len(dataset.query) + len(dataset.gallery)
        self.dataset_name = dataset_name or type(dataset).__name__
        self.output_dir = output_dir or cfg.OUTPUT_DIR
        declared = tuple(getattr(dataset, "protocols", ())) or (GENERAL,)
        names = cfg.TEST.EVALUATION.PROTOCOLS
        self.protocols: tuple[Protocol, ...] = find_protocols(names, declared) if names else declared
        if cfg.TEST.METRIC not in METRICS:
            raise ClearError(f"TEST.METRIC is {cfg.TEST.METRIC!r}; it must be {' or '.join(METRICS)}.")
        self.refinement = Refinement.from_config(cfg)
        if cfg.TEST.EVALUATION.PER_QUERY:
            check_format("TEST.EVALUATION.PER_QUERY." + cfg.TEST.EVALUATION.PER_QUERY)
        self.results: dict[str, ProtocolResult] = {}
        self._why_no_match: dict[str, str] = {}
        self.on_scored: OnScored | None = None
        self.reset()

    # -- collecting ---------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Removes all items."""
        self._features: list[torch.Tensor] = []
        self._ids: dict[str, list[torch.Tensor]] = {}
        self._names: list[str] = []
        self._pool: TrackletPool | None = None

    def process(self, inputs: dict[str, Any], outputs: torch.Tensor) -> None:
        """Takes a batch and its features [B, D]."""
        if "tracklet_ids" in inputs:
            if self._pool is None:
                self._pool = TrackletPool(_pooling(protocol) for protocol in self.protocols)
            self._pool.add(outputs, inputs["tracklet_ids"], inputs["frame_ids"], inputs["tracklet_lengths"])
        else:
            self._features.append(outputs.detach().to("cpu", torch.float32))
        for name, key in {**_ID_KEYS, "item_ids": "tracklet_ids" if "tracklet_ids" in inputs else "item_ids"}.items():
            if inputs.get(key) is not None:
                self._ids.setdefault(name, []).append(torch.as_tensor(inputs[key]).to("cpu", torch.int64))
        self._names += list(inputs.get("img_paths") or [])

    def _gathered(self) -> tuple[dict[str, Any], TrackletPool | None] | None:
        """All items of all processes, in order, on the main process; None elsewhere."""
        own: dict[str, Any] = {name: torch.cat(parts) for name, parts in self._ids.items()}
        if self._features:
            own["features"] = torch.cat(self._features)
        self._features.clear()
        own["names"] = self._names
        pool = self._pool
        shares = [own]
        if comm.get_world_size() > 1:
            comm.synchronize()
            gathered = comm.gather((own, pool.state() if pool else None), dst=0)
            if not comm.is_main_process():
                return None
            shares = [share for share, _ in gathered]
            states = [state for _, state in gathered if state is not None]
            pool = None
            if states:
                pool = TrackletPool(states[0]["sums"])
                for state in states:
                    pool.merge(state)
        filled = [share for share in shares if "pids" in share]  # a rank may have no item
        items: dict[str, Any] = {
            name: filled[0][name] if len(filled) == 1 else torch.cat([share[name] for share in filled])
            for name in (filled[0] if filled else {})
            if name != "names" and all(name in share for share in filled)
        }
        items["names"] = [name for share in filled for name in share["names"]]
        return self._in_order(items), pool

    def _in_order(self, items: dict[str, Any]) -> dict[str, Any]:
        """The items in the order of query + gallery, each once; checks that none is missing."""
        count, features = len(items.get("pids", ())), items.get("features")
        if "item_ids" in items:
            places, first = np.unique(items["item_ids"].numpy(), return_index=True)
            missing = np.setdiff1d(np.arange(self.num_items), places)
            if len(missing) or len(places) != self.num_items:
                raise ClearError(
                    f"{self.dataset_name}: {len(places)} different items were evaluated, expected {self.num_items}; "
                    f"missing: {', '.join(map(str, missing[:5].tolist())) or 'none'}"
                )
            names = [items["names"][place] for place in first] if len(items["names"]) == count else []
            chosen = torch.from_numpy(first)
            items = {name: value[chosen] for name, value in items.items() if name not in ("names", "features")}
            if features is not None:
                items["features"] = features[chosen]
            items["names"] = names
        elif count != self.num_items:
            raise ClearError(
                f"{self.dataset_name}: {count} items were evaluated, expected {self.num_items} (query and gallery); a "
                "sampler that repeats items must give item_ids"
            )
        if len(items["names"]) != self.num_items:
            items["names"] = []
        return items

    # -- scoring ------------------------------------------------------------------------------------------------------

    def evaluate(self) -> OrderedDict[str, float]:
        """The numbers of all protocols, on the main process; an empty dict elsewhere.

        fast-reid's hook and writers take numbers only, so where no query has a match we leave the metrics out and log a
        warning.
        """
        gathered = self._gathered()
        if gathered is None:
            return OrderedDict()
        items, pool = gathered
        self.results = {}
        if pool is None:
            roc = self._score(*self._split(items["features"], items), self.protocols, "")
        else:
            roc = {}
            for pooling in dict.fromkeys(_pooling(protocol) for protocol in self.protocols):
                query, gallery = self._split(pool.features(pooling, self.num_items), items)
                chosen = [protocol for protocol in self.protocols if _pooling(protocol) == pooling]
                roc |= self._score(query, gallery, chosen, f"_{pooling}")
        self.results = {protocol.name: self.results[protocol.name] for protocol in self.protocols}
        return self._flat(roc)

    def _split(self, features: torch.Tensor, items: dict[str, Any]) -> tuple[LabelledFeatures, LabelledFeatures]:
        row = first_non_finite_row(features)
        if row is not None:
            item = f"query item {row}" if row < self.num_query else f"gallery item {row - self.num_query}"
            name = f" ({items['names'][row]})" if items["names"] else ""
            raise ClearError(
                f"{self.dataset_name}: the features of {item}{name} are not finite; the model has diverged"
            )
        clothes = items.get("clothes_ids")
        needing = [protocol.name for protocol in self.protocols if protocol.needs_clothes]
        unknown = self.num_items if clothes is None else int((clothes < 0).sum())
        if unknown and needing:
            raise ClearError(
                f"{self.dataset_name}: {unknown} of {self.num_items} items have no clothes id, which protocol "
                f"{', '.join(needing)} needs; choose others with TEST.EVALUATION.PROTOCOLS"
            )

        def side(part: slice) -> LabelledFeatures:
            pids, camids = items["pids"][part].numpy(), items["camids"][part].numpy()
            own_clothes = None if unknown or clothes is None else clothes[part].numpy()
            return LabelledFeatures(features[part], pids, camids, own_clothes, tuple(items["names"][part]))

        return side(slice(0, self.num_query)), side(slice(self.num_query, self.num_items))

    def _score(
        self, query: LabelledFeatures, gallery: LabelledFeatures, protocols: Sequence[Protocol], suffix: str
    ) -> dict[str, float]:
        """Scores protocols that use the same features; returns ROC values if the headline protocol is among them."""
        cfg, options = self.cfg, self.cfg.TEST.EVALUATION
        base = os.path.join(self.output_dir, "evaluation", self.dataset_name + suffix)
        if options.SAVE_FEATURES:
            write_features(base + "_features.npz", query, gallery)
            logger.info(f"Features written to {base}_features.npz")
        distances = None
        if self.refinement:
            logger.info(f"Test with {self.refinement}")
            features = self.refinement.features(query.features, gallery.features)
            query, gallery = replace(query, features=features[0]), replace(gallery, features=features[1])
            distances = self.refinement.distances(*features, cfg.TEST.METRIC, options.MAX_MEMORY)
        device = options.DEVICE or cfg.MODEL.DEVICE
        results = evaluate(
            query,
            gallery,
            protocols,
            cfg.TEST.METRIC,
            distances=distances,
            max_memory=options.MAX_MEMORY,
            device=device,
            top_matches=options.TOP_MATCHES if options.PER_QUERY else 0,
        )
        self.results.update(results)
        for protocol in protocols:
            if not results[protocol.name].valid_queries:
                asked, shown = taking_part(protocol, query, gallery)
                self._why_no_match[protocol.name] = why_no_match(
                    protocol, query.pids[asked], query.camids[asked], gallery.pids[shown], gallery.camids[shown]
                )
        if self.on_scored is not None:
            self.on_scored(self.dataset_name, query, gallery, results)
        if options.PER_QUERY:
            write_per_query(f"{base}_queries.{options.PER_QUERY}", results, query, gallery)
            logger.info(f"Results of single queries written to {base}_queries.{options.PER_QUERY}")
        if not cfg.TEST.ROC.ENABLED or self.protocols[0] not in protocols:
            return {}
        same, different = pair_distances(
            query, gallery, self.protocols[0], cfg.TEST.METRIC, distances=distances, device=device
        )
        return true_positive_rates(same, different)

    def _flat(self, roc: dict[str, float]) -> OrderedDict[str, float]:
        numbers: OrderedDict[str, float] = OrderedDict()
        headline = self.results[self.protocols[0].name]
        if headline.valid_queries:
            percent = {name: float(value) for name, value in headline.percentages().items() if value is not None}
            for name in ("Rank-1", "Rank-5", "Rank-10", "mAP", "mINP"):
                numbers[name] = percent[name]
            numbers["metric"] = (percent["mAP"] + percent["Rank-1"]) / 2
        numbers.update(roc)
        for name, result in self.results.items():
            prefix = f"{self.dataset_name}/{name}"
            for metric, value in result.percentages().items():
                if value is not None:
                    numbers[f"{prefix}/{metric}"] = float(value)
            numbers[f"{prefix}/queries_without_match"] = float(result.queries_without_match)
            if not result.valid_queries:
                logger.warning(
                    f"{prefix}: none of {result.num_queries} queries has a match; there is no mAP and no rank. "
                    f"{self._why_no_match[name]}"
                )
            elif result.queries_without_match:
                logger.info(f"{prefix}: {result.queries_without_match} of {result.num_queries} queries have no match")
        return numbers


def _pooling(protocol: Protocol) -> Pooling:
    return protocol.tracklet_pooling or "clips"
