"""A test set's loader and evaluator, for fast-reid's trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastreid.config import CfgNode
from fastreid.data.transforms import build_transforms
from fastreid.utils import comm
from tabulate import tabulate
from torch import Tensor, nn

from fastreid_clip3d.compat.loader import DeviceLoader
from fastreid_clip3d.data.build import TestImages, build_test_loader
from fastreid_clip3d.data.datasets.from_config import dataset_of
from fastreid_clip3d.engine.tensorboard import show_matches
from fastreid_clip3d.evaluation.evaluator import ClothesEvaluator
from fastreid_clip3d.evaluation.ranking import ProtocolResult


class ImagesKept(nn.Module):
    """A model that leaves a batch's images as they are.

    fast-reid's models normalise in place, and its flip test gives them the same images a second time, mirrored: without
    this the mirrored ones would be normalised twice.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Any]) -> Tensor:
        return self.model({**batch, "images": batch["images"].clone()})


METRICS = ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP")


def results_table(results: Mapping[str, ProtocolResult]) -> str:
    """One line a protocol: mAP, ranks, mINP in percent, and how many queries had a match."""
    rows = []
    for name, result in results.items():
        values = result.percentages()
        scores = ["-" if values[metric] is None else f"{values[metric]:.2f}" for metric in METRICS]
        rows.append([name, *scores, f"{values['valid_queries']} of {result.num_queries}"])
    return tabulate(
        rows, headers=["protocol", *METRICS, "queries with a match"], tablefmt="pipe", disable_numparse=True
    )


def check_test_sets(cfg: CfgNode) -> None:
    """Finds every dataset of ``DATASETS.TESTS`` and its protocols, so that a training does not end in an error.

    Raises:
        ClearError: a dataset or protocol that is unknown, or files that are not there.
    """
    for name in cfg.DATASETS.TESTS:
        ClothesEvaluator(cfg, dataset_of(cfg, name), name)


def build_evaluator(cfg: CfgNode, dataset_name: str) -> tuple[DeviceLoader, Any]:
    """Query and gallery of a dataset as batches, and the evaluator that knows the dataset's protocols."""
    dataset = dataset_of(cfg, dataset_name)
    if comm.is_main_process():
        dataset.show_test()
    test_set = TestImages(dataset.query + dataset.gallery, build_transforms(cfg, is_train=False))
    evaluator = ClothesEvaluator(cfg, dataset, dataset_name)
    evaluator.on_scored = show_matches
    return build_test_loader(cfg, test_set), evaluator
