"""The evaluator beside fast-reid's, in its loop and hook, and on two processes."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from fastreid.engine.hooks import EvalHook
from fastreid.evaluation.evaluator import inference_on_dataset
from fastreid.evaluation.reid_evaluation import ReidEvaluator
from fastreid.evaluation.testing import print_csv_format
from fastreid.utils import comm
from fastreid.utils.events import EventStorage, JSONWriter

import fastreid_clip3d
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation import CC, GENERAL, ClothesEvaluator, Protocol
from fastreid_clip3d.evaluation.features_file import read_features
from fastreid_clip3d.evaluation.ranking import LabelledFeatures, evaluate
from fastreid_clip3d.evaluation.tracklets import clips_of
from tests.references.centralisation import centralised

HEADLINE = ["Rank-1", "Rank-5", "Rank-10", "mAP", "mINP", "metric"]


class Item(tuple):
    """A (path, pid, camid) tuple with clothes and frames."""

    def __new__(cls, path, pid, camid, clothes_id=-1, frames=()):
        item = super().__new__(cls, (path, pid, camid))
        item.path, item.pid, item.camid, item.clothes_id, item.frames = path, pid, camid, clothes_id, frames
        return item


class Pictures:
    """A dataset whose images are features: 24 queries and 90 gallery items."""

    protocols = (GENERAL, CC)

    def __init__(self, num_query: int = 24, num_gallery: int = 90) -> None:
        generator = np.random.default_rng(0)
        rows = [(int(pid), int(camid)) for pid, camid in generator.integers(0, (8, 3), (num_query + num_gallery, 2))]
        records = [
            Item(f"{number:03d}.jpg", pid, camid, 10 * pid + int(generator.integers(3)))
            for number, (pid, camid) in enumerate(rows)
        ]
        self.query, self.gallery = records[:num_query], records[num_query:]
        self.images = torch.randn((len(records), 3, 4, 2), generator=torch.Generator().manual_seed(1))

    def batches(self, clothes: bool = True, size: int = 10) -> list[dict]:
        records = self.query + self.gallery
        made = []
        for start in range(0, len(records), size):
            part = records[start : start + size]
            batch = {
                "images": self.images[start : start + size].clone(),
                "targets": torch.tensor([record.pid for record in part]),
                "camids": torch.tensor([record.camid for record in part]),
                "img_paths": [record.path for record in part],
            }
            made.append({**batch, "clothes_ids": torch.tensor([r.clothes_id for r in part])} if clothes else batch)
        return made


class Flatten(torch.nn.Module):
    """A model whose features of an image and of its mirror image differ."""

    def forward(self, batch: dict) -> torch.Tensor:
        return batch["images"].flatten(1) * torch.linspace(0.5, 2.0, 24)


class Loader(list):
    dataset = range(114)


def config(**changes):
    cfg = fastreid_clip3d.get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    for key, value in changes.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"TEST__METRIC": "euclidean"},
        {"TEST__FLIP__ENABLED": True},
        {"TEST__AQE__ENABLED": True},
        {"TEST__ROC__ENABLED": True},
    ],
    ids=lambda changes: "-".join(map(str, changes)) or "default",
)
def test_headline_numbers_are_those_of_fast_reid(changes: dict) -> None:
    cfg, dataset = config(**changes), Pictures()
    found, expected = (
        inference_on_dataset(Flatten(), Loader(dataset.batches()), evaluator, flip_test=cfg.TEST.FLIP.ENABLED)
        for evaluator in (ClothesEvaluator(cfg, dataset), ReidEvaluator(cfg, len(dataset.query)))
    )
    assert isinstance(found, OrderedDict)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-5), name
    assert list(found)[: len(HEADLINE)] == HEADLINE
    assert found["Pictures/general/mAP"] == found["mAP"] != found["Pictures/CC/mAP"]
    assert found["Pictures/CC/valid_queries"] + found["Pictures/CC/queries_without_match"] == 24
    assert all(type(value) is float for value in found.values())


def test_neighbours_centralise_features_before_scoring() -> None:
    cfg, dataset = config(TEST__NFC__ENABLED=True, TEST__NFC__K1=3), Pictures()
    found = inference_on_dataset(Flatten(), Loader(dataset.batches()), ClothesEvaluator(cfg, dataset))
    features = Flatten()({"images": dataset.images}).tolist()
    moved = [torch.tensor(centralised(part, 3, 2)) for part in (features[:24], features[24:])]
    ids = [np.array([record[place] for record in dataset.query + dataset.gallery]) for place in (1, 2)]
    sides = [
        LabelledFeatures(own, *(values[part] for values in ids))
        for own, part in zip(moved, (slice(0, 24), slice(24, None)))
    ]
    expected = evaluate(*sides, [GENERAL])["general"].mean_average_precision
    assert found["mAP"] == pytest.approx(100 * expected, abs=1e-3)


def test_re_ranking_is_that_of_fast_reid() -> None:
    from fastreid.evaluation.rank import evaluate_rank
    from fastreid.utils.compute_dist import build_dist, compute_jaccard_distance

    cfg, dataset = config(TEST__RERANK__ENABLED=True, TEST__RERANK__K1=10, TEST__RERANK__K2=3), Pictures()
    found = inference_on_dataset(Flatten(), Loader(dataset.batches()), ClothesEvaluator(cfg, dataset))
    features = Flatten()({"images": dataset.images})
    plain = build_dist(features[:24], features[24:], "cosine")
    normalised = torch.nn.functional.normalize(features)
    jaccard = compute_jaccard_distance(normalised, k1=10, k2=3, search_option=3)[:24, 24:]
    pids, camids = (np.array([record[place] for record in dataset.query + dataset.gallery]) for place in (1, 2))
    distances = 0.7 * jaccard + 0.3 * plain
    cmc, average_precisions, _ = evaluate_rank(
        distances, pids[:24], pids[24:], camids[:24], camids[24:], use_cython=False
    )
    assert found["mAP"] == pytest.approx(100 * np.mean(average_precisions), abs=1e-3)
    assert found["Rank-1"] == pytest.approx(100 * cmc[0], abs=1e-3)


def test_a_plain_fast_reid_dataset_is_general_only() -> None:
    dataset = Pictures()
    dataset.protocols = ()
    evaluator = ClothesEvaluator(config(), dataset, "Market1501")
    found = inference_on_dataset(Flatten(), Loader(dataset.batches(clothes=False)), evaluator)
    assert {name.rsplit("/", 1)[0] for name in found if "/" in name} == {"Market1501/general"}


def test_protocols_can_be_chosen_and_need_clothes_ids() -> None:
    dataset = Pictures()
    found = inference_on_dataset(
        Flatten(),
        Loader(dataset.batches()),
        ClothesEvaluator(config(TEST__EVALUATION__PROTOCOLS=("SC", "CC")), dataset),
    )
    assert found["mAP"] == found["Pictures/SC/mAP"] and "Pictures/general/mAP" not in found
    with pytest.raises(ClearError, match="'sc' is unknown. Did you mean SC"):
        ClothesEvaluator(config(TEST__EVALUATION__PROTOCOLS=("sc",)), dataset)
    batches = dataset.batches()
    batches[3]["clothes_ids"][2] = -1
    for given, count in ((batches, 1), (dataset.batches(clothes=False), 114)):
        with pytest.raises(
            ClearError, match=f"Pictures: {count} of 114 items have no clothes id, which protocol CC needs"
        ):
            inference_on_dataset(Flatten(), Loader(given), ClothesEvaluator(config(), dataset))


def test_no_match_anywhere_neither_stops_hook_nor_writers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = Pictures()
    batches = dataset.batches()
    for batch in batches:
        batch["camids"].fill_(-1)  # one camera: every match is removed
    dataset.protocols = (GENERAL, Protocol("nothing", "nothing"))

    def test() -> dict:
        found = inference_on_dataset(Flatten(), Loader(batches), ClothesEvaluator(config(), dataset))
        print_csv_format(OrderedDict(found, dataset="Pictures"))
        return found

    class Trainer:
        epoch, max_epoch = 0, 1

    with EventStorage() as storage:
        Trainer.storage = storage
        hook = EvalHook(1, test)
        hook.trainer = Trainer
        hook.after_epoch()
        writer = JSONWriter(str(tmp_path / "metrics.json"))
        writer.write()
        writer.close()
    written = json.loads((tmp_path / "metrics.json").read_text().splitlines()[0])
    assert written["Pictures/general/valid_queries"] == 0 and written["Pictures/nothing/valid_queries"] == 24
    assert written["Pictures/general/queries_without_match"] == 24
    assert not {"mAP", "metric", "Pictures/general/mAP"} & set(written) and "Pictures/nothing/mAP" in written
    assert "Pictures/general: none of 24 queries has a match" in caplog.text
    assert "All images are from one camera" in caplog.text and "Protocol nothing removes no image" in caplog.text


def test_features_and_single_queries_are_saved(tmp_path: Path) -> None:
    dataset = Pictures()
    cfg = config(OUTPUT_DIR=str(tmp_path), TEST__EVALUATION__SAVE_FEATURES=True, TEST__EVALUATION__PER_QUERY="csv")
    found = inference_on_dataset(Flatten(), Loader(dataset.batches()), ClothesEvaluator(cfg, dataset))
    assert sorted(os.listdir(tmp_path / "evaluation")) == ["Pictures_features.npz", "Pictures_queries.csv"]
    query, gallery = read_features(tmp_path / "evaluation" / "Pictures_features.npz")
    assert (len(query), len(gallery)) == (24, 90)
    assert query.names == tuple(record.path for record in dataset.query)
    from fastreid_clip3d.evaluation.ranking import evaluate

    for name, result in evaluate(query, gallery, dataset.protocols).items():
        assert result.mean_average_precision * 100 == found[f"Pictures/{name}/mAP"]
    with pytest.raises(ClearError, match="written as .csv or .parquet"):
        ClothesEvaluator(config(TEST__EVALUATION__PER_QUERY="xlsx"), dataset)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"TEST__METRIC": "cosin"}, "TEST.METRIC is 'cosin'"),
        ({"TEST__RERANK__ENABLED": True, "TEST__RERANK__LAMBDA": 2.0}, "LAMBDA 2.0"),
        ({"TEST__RERANK__ENABLED": True, "TEST__RERANK__K1": 0}, "TEST.RERANK: K1 0"),
        ({"TEST__NFC__ENABLED": True, "TEST__NFC__K2": 0}, "TEST.NFC: K1 2 and K2 0"),
        ({"TEST__AQE__ENABLED": True, "TEST__AQE__QE_TIME": 0}, "QE_TIME 0"),
        ({"TEST__AQE__ENABLED": True, "TEST__AQE__QE_K": 0}, "QE_K 0"),
    ],
)
def test_wrong_settings_are_named_before_the_work(settings: dict, message: str) -> None:
    """A training makes the evaluator at its start, and the first scores come hours later."""
    with pytest.raises(ClearError, match=message):
        ClothesEvaluator(config(**settings), Pictures())
    switched_off = {key: False if key.endswith("ENABLED") else value for key, value in settings.items()}
    if switched_off != settings:
        ClothesEvaluator(config(**switched_off), Pictures())


def test_items_may_come_in_any_order_and_twice_with_their_place() -> None:
    dataset = Pictures()
    expected = inference_on_dataset(Flatten(), Loader(dataset.batches()), ClothesEvaluator(config(), dataset))
    batches = dataset.batches()
    for number, batch in enumerate(batches):
        batch["item_ids"] = torch.arange(10 * number, 10 * number + len(batch["targets"]))
    mixed = [batches[place] for place in (5, 0, 11, 3, 3, 1, 2, 4, 6, 7, 8, 9, 10, 0)]
    assert inference_on_dataset(Flatten(), Loader(mixed), ClothesEvaluator(config(), dataset)) == expected
    with pytest.raises(
        ClearError, match="104 different items were evaluated, expected 114; missing: 30, 31, 32, 33, 34"
    ):
        inference_on_dataset(Flatten(), Loader(batches[:3] + batches[4:]), ClothesEvaluator(config(), dataset))
    with pytest.raises(ClearError, match="124 items were evaluated, expected 114"):
        repeated = dataset.batches() + dataset.batches()[:1]
        inference_on_dataset(Flatten(), Loader(repeated), ClothesEvaluator(config(), dataset))


def test_a_diverged_model_is_named() -> None:
    dataset = Pictures()
    dataset.images[30, 0, 0, 0] = float("nan")
    with pytest.raises(ClearError, match=r"Pictures: the features of gallery item 6 \(030.jpg\) are not finite"):
        inference_on_dataset(Flatten(), Loader(dataset.batches()), ClothesEvaluator(config(), dataset))


class Tracklets(Pictures):
    """The same people as tracklets of 1 to 20 frames."""

    protocols = (
        Protocol("CC", "CC", tracklet_pooling="clips"), Protocol("CC-mean-of-frames", "CC", tracklet_pooling="frames"),
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.frames, self.frames_of = {}, []
        for number, record in enumerate(self.query + self.gallery):
            record.frames = tuple(f"{number}-{frame}" for frame in range(number * 7 % 20 + 1))
            base = self.images[number]
            self.frames_of.append(record.frames)
            self.frames.update({name: base + 3 * torch.randn(base.shape) for name in record.frames})

    def loader(self, indices=None) -> list[dict]:
        """Batches as the test loader makes them: each item one frame."""
        rows = []
        for number, record in enumerate(self.query + self.gallery):
            ids = {
                "targets": record.pid,
                "camids": record.camid,
                "clothes_ids": record.clothes_id,
                "tracklet_ids": number,
            }
            for frame, name in enumerate(record.frames):
                place = {"frame_ids": frame, "tracklet_lengths": len(record.frames), "img_paths": name}
                rows.append({"images": self.frames[name], **ids, **place})
        rows = rows if indices is None else [rows[index] for index in indices]
        return list(torch.utils.data.DataLoader(rows, batch_size=32))


def test_tracklets_by_both_poolings() -> None:
    torch.manual_seed(0)
    dataset = Tracklets()
    found = inference_on_dataset(Flatten(), Loader(dataset.loader()), ClothesEvaluator(config(), dataset, "Videos"))
    features = [
        Flatten()({"images": torch.stack([dataset.frames[name] for name in names])}) for names in dataset.frames_of
    ]
    pooled = {
        "CC": torch.stack([torch.stack([f[clip].mean(0) for clip in clips_of(len(f))]).mean(0) for f in features]),
        "CC-mean-of-frames": torch.stack([f.mean(0) for f in features]),
    }
    dataset.protocols = (CC,)
    for name, values in pooled.items():
        evaluator = ClothesEvaluator(config(), dataset)
        for batch, part in zip(dataset.batches(), values.split(10)):
            evaluator.process(batch, part)
        assert found[f"Videos/{name}/mAP"] == pytest.approx(evaluator.evaluate()["mAP"], abs=1e-9), name
    assert found["mAP"] == found["Videos/CC/mAP"] != found["Videos/CC-mean-of-frames/mAP"]


def _on_one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    comm._LOCAL_PROCESS_GROUP = torch.distributed.group.WORLD
    results = []
    dataset = Pictures()
    whole = dataset.batches(size=1)
    # as fast-reid's sampler shares: contiguous, the first process one item more if the number is odd
    share = whole[:57] if rank == 0 else whole[57:]
    results.append(inference_on_dataset(Flatten(), Loader(share), ClothesEvaluator(config(), dataset)))
    torch.manual_seed(0)
    videos = Tracklets()
    count = sum(map(len, videos.frames_of))
    share = videos.loader(range(0, count // 2 + 3) if rank == 0 else range(count // 2 + 3, count))
    results.append(inference_on_dataset(Flatten(), Loader(share), ClothesEvaluator(config(), videos)))
    # a process without any item
    share = whole if rank == 0 else []
    results.append(inference_on_dataset(Flatten(), Loader(share), ClothesEvaluator(config(), dataset)))
    Path(folder, f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    dataset = Pictures()
    expected = [inference_on_dataset(Flatten(), Loader(dataset.batches()), ClothesEvaluator(config(), dataset))]
    torch.manual_seed(0)
    videos = Tracklets()
    expected.append(inference_on_dataset(Flatten(), Loader(videos.loader()), ClothesEvaluator(config(), videos)))
    expected.append(expected[0])
    # forked: starting Python anew twice would take longer than all other tests here
    torch.multiprocessing.start_processes(_on_one_of_two, (str(tmp_path),), nprocs=2, start_method="fork")
    assert json.loads((tmp_path / "0.json").read_text()) == [dict(result) for result in expected]
    assert json.loads((tmp_path / "1.json").read_text()) == [{}, {}, {}]


def test_single_queries_are_the_same_in_both_formats(tmp_path: Path) -> None:
    dataset, tables = Pictures(), {}
    for kind in ("csv", "parquet"):
        cfg = config(OUTPUT_DIR=str(tmp_path / kind), TEST__EVALUATION__PER_QUERY=kind)
        inference_on_dataset(Flatten(), Loader(dataset.batches()), ClothesEvaluator(cfg, dataset))
        path = tmp_path / kind / "evaluation" / f"Pictures_queries.{kind}"
        tables[kind] = pandas.read_csv(path) if kind == "csv" else pandas.read_parquet(path)
    assert list(tables["csv"]) == list(tables["parquet"])
    for column in ("protocol", "query", "matches", "first_match_rank"):
        pandas.testing.assert_series_equal(tables["csv"][column], tables["parquet"][column], check_dtype=False)
    np.testing.assert_allclose(tables["csv"]["AP"], tables["parquet"]["AP"].astype(float))
