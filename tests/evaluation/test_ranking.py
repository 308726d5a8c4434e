"""Protocols on features: by hand, against the slow reference, against fast-reid, in any order of the gallery."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import CC, GENERAL, NOTHING_REMOVED, SC, Protocol
from fastreid_clip3d.evaluation.ranking import (
    LabelledFeatures,
    ProtocolResult,
    evaluate,
    pair_distances,
    single_shot_draw,
)
from tests.references.evaluation import score

RULES = (GENERAL, CC, SC, NOTHING_REMOVED)


def items(features, pids, camids, clothes=None, dtype=np.float32) -> LabelledFeatures:
    features = torch.from_numpy(np.asarray(features, dtype=dtype))
    return LabelledFeatures(
        features, np.asarray(pids), np.asarray(camids), None if clothes is None else np.asarray(clothes)
    )


def random_items(generator: np.random.Generator, count: int, dims: int = 8, people: int = 5) -> LabelledFeatures:
    pids = generator.integers(0, people, count)
    clothes = pids * 10 + generator.integers(0, 3, count)
    return items(generator.standard_normal((count, dims)), pids, generator.integers(-1, 3, count), clothes)


def permuted(gallery: LabelledFeatures, order: np.ndarray) -> LabelledFeatures:
    return LabelledFeatures(
        gallery.features[torch.from_numpy(order)], gallery.pids[order], gallery.camids[order],
        gallery.clothes_ids[order],
        tuple(gallery.names[place] for place in order) if gallery.names else (),
    )  # fmt: skip


def numbers(results: dict[str, ProtocolResult]) -> dict[str, dict]:
    return {name: result.percentages() for name, result in results.items()}


# One-dimensional features, so that distances can be read off; the query stands at 0: person 1, camera 0, outfit 10.
HAND_GALLERY = [
    # feature, pid, camid, clothes
    (1.0, 1, 0, 10),  # same camera: removed, but for "nothing"
    (2.0, 2, 0, 10),  # distractor
    (3.0, 1, 1, 10),  # same clothes, other camera
    (4.0, 3, 1, 30),  # distractor
    (5.0, 1, 2, 11),  # other clothes, other camera
    (6.0, 1, 0, 11),  # other clothes, same camera: removed
]
HAND_EXPECTED = {
    # kept, closest first: other, match, other, match
    "general": {"mAP": (1 / 2 + 2 / 4) / 2, "Rank-1": 0.0, "Rank-5": 1.0, "mINP": 2 / 4},
    # kept: other, other, match
    "CC": {"mAP": 1 / 3, "Rank-1": 0.0, "Rank-5": 1.0, "mINP": 1 / 3},
    # kept: other, match, other
    "SC": {"mAP": 1 / 2, "Rank-1": 0.0, "Rank-5": 1.0, "mINP": 1 / 2},
    # kept: match, other, match, other, match, match
    "nothing": {"mAP": (1 + 2 / 3 + 3 / 5 + 4 / 6) / 4, "Rank-1": 1.0, "Rank-5": 1.0, "mINP": 4 / 6},
}


@pytest.mark.parametrize("protocol", RULES, ids=lambda protocol: protocol.name)
def test_each_protocol_by_hand(protocol: Protocol) -> None:
    features, pids, camids, clothes = zip(*HAND_GALLERY)
    # a second query has no match at all and is not counted
    query = items([[0.0], [0.0]], [1, 9], [0, 0], [10, 90])
    result = evaluate(query, items(np.array(features)[:, None], pids, camids, clothes), [protocol], "euclidean")
    found = result[protocol.name].percentages()
    assert found.pop("valid_queries") == 1
    assert result[protocol.name].queries_without_match == 1
    for name, value in HAND_EXPECTED[protocol.name].items():
        assert found[name] == pytest.approx(100 * value), name


def test_prcc_by_hand() -> None:
    # gallery of cameras 0, 1 and 2, of which A (0) is searched; query C (2) and B (1)
    query = items([[0.0], [0.0]], [1, 1], [2, 1], [12, 11])
    gallery = items([[1.0], [2.0], [3.0], [0.5], [4.0]], [2, 1, 1, 1, 2], [0, 0, 0, 1, 0], [20, 11, 11, 11, 20])
    multi = Protocol("CC", "general", query_cameras={2}, gallery_cameras={0})
    single = Protocol("single", "general", query_cameras={1}, gallery_cameras={0}, single_shot_draws=4, seed=1)
    result = evaluate(query, gallery, [multi, single], "euclidean")
    # other (1), match (2), match (3), other (4): AP (1/2 + 2/3) / 2
    assert result["CC"].mean_average_precision == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert result["CC"].queries.tolist() == [0] and result["single"].queries.tolist() == [1]
    # a draw keeps one of {1, 4} and one of {2, 3}: the match is first (AP 1) or second (AP 1/2)
    pids = np.array([1, 1, 2, 2])
    expected = []
    for draw in range(4):
        ordered = sorted([1, 2, 0, 4], key=lambda column: (gallery.pids[column], _content(gallery, column)))
        chosen = single_shot_draw(pids, np.array(ordered), 1, draw)
        assert sorted(gallery.pids[chosen].tolist()) == [1, 2]
        distance = {int(gallery.pids[column]): float(gallery.features[column]) for column in chosen}
        expected.append(1.0 if distance[1] < distance[2] else 0.5)
    assert result["single"].mean_average_precision == pytest.approx(np.mean(expected))
    assert len({tuple(single_shot_draw(pids, np.arange(4), 1, draw)) for draw in range(30)}) == 4


def _content(gallery: LabelledFeatures, column: int) -> str:
    import hashlib

    return hashlib.sha1(gallery.features[column].numpy().tobytes()).hexdigest()


def test_single_shot_draws_do_not_depend_on_the_order_of_the_files() -> None:
    generator = np.random.default_rng(0)
    query, gallery = random_items(generator, 12), random_items(generator, 60)
    protocol = Protocol("single", "general", single_shot_draws=10)
    names = tuple(f"{number:03d}.jpg" for number in range(60))
    for named in ((), names):
        gallery.names = named
        expected = evaluate(query, gallery, [protocol])["single"]
        again = evaluate(query, permuted(gallery, generator.permutation(60)), [protocol])["single"]
        assert again.percentages() == expected.percentages()
        other_seed = Protocol("single", "general", single_shot_draws=10, seed=1)
        assert evaluate(query, gallery, [other_seed])["single"].percentages() != expected.percentages()


def test_200_random_cases_against_the_reference() -> None:
    generator = np.random.default_rng(1)
    counted = with_ties = 0
    for case in range(200):
        people, num_gallery = int(generator.integers(1, 5)), int(generator.integers(1, 11))
        grids = [generator.integers(0, 3, (count, 2)) for count in (3, num_gallery)]
        labels = []
        for grid in grids:
            pids = generator.integers(0, people, len(grid))
            clothes = pids * 5 + generator.integers(0, 3, len(grid))
            labels.append((pids, generator.integers(-1, 2, len(grid)), clothes))
        query, gallery = (items(grid, *ids) for grid, ids in zip(grids, labels))
        results = evaluate(query, gallery, RULES, "euclidean", block_queries=int(generator.integers(1, 5)))
        rows = [[dict(zip(("pid", "camid", "clothes"), map(int, row))) for row in zip(*ids)] for ids in labels]
        distances = ((grids[0][:, None] - grids[1][None]) ** 2).sum(-1).tolist()
        for rule in RULES:
            expected, found = score(rule.rule, *rows, distances), results[rule.name]
            assert found.valid_queries == expected["valid_queries"], (case, rule)
            if not expected["valid_queries"]:
                assert all(value is None for name, value in found.percentages().items() if name != "valid_queries")
                continue
            counted += 1
            assert found.mean_average_precision == pytest.approx(float(expected["mAP"]), abs=1e-10), (case, rule)
            assert found.mean_inverse_negative_penalty == pytest.approx(float(expected["mINP"]), abs=1e-10)
            for rank in (1, 5, 10):
                assert found.rank(rank) == pytest.approx(float(expected["cmc"][rank - 1]), abs=1e-10)
            if expected["worst"] < expected["best"]:
                with_ties += 1
                assert expected["worst"] < found.mean_average_precision < expected["best"]
    assert counted > 400 and with_ties > 200


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_numbers_of_fast_reid(metric: str) -> None:
    from fastreid.evaluation.rank import evaluate_rank
    from fastreid.utils.compute_dist import build_dist

    import fastreid_clip3d  # noqa: F401  (makes fast-reid importable)

    generator = np.random.default_rng(2)
    query, gallery = random_items(generator, 200, 32, 20), random_items(generator, 300, 32, 22)
    distances = build_dist(query.features, gallery.features, metric)
    ordered = np.sort(distances, axis=1)
    distinct = (np.diff(ordered, axis=1) > 1e-6).all(axis=1)
    assert distinct.sum() > 100
    query = LabelledFeatures(query.features[torch.from_numpy(distinct)], query.pids[distinct], query.camids[distinct])
    arguments = query.pids, gallery.pids, query.camids, gallery.camids
    cmc, average_precisions, penalties = evaluate_rank(distances[distinct], *arguments, use_cython=False)
    result = evaluate(query, gallery, [GENERAL], metric)["general"]
    np.testing.assert_allclose(result.average_precisions, average_precisions, atol=1e-6)
    np.testing.assert_allclose(result.inverse_negative_penalties, penalties, atol=1e-6)
    np.testing.assert_allclose(result.cmc.mean(0), cmc, atol=1e-6)
    # ready-made distances take the same way; in float32, ties are what differs in the last two bits
    ready = evaluate(query, gallery, [GENERAL], distances=distances[distinct].astype(np.float64))["general"]
    np.testing.assert_allclose(ready.average_precisions, average_precisions, atol=1e-6)
    ready = evaluate(query, gallery, [GENERAL], distances=distances[distinct])["general"]
    np.testing.assert_allclose(ready.average_precisions, average_precisions, atol=1e-4)


def gallery_of_copies(generator: np.random.Generator, noise: float) -> tuple[LabelledFeatures, LabelledFeatures]:
    """A gallery where each image is there three times, under different people, up to the last bits of its features."""
    query, gallery = random_items(generator, 25, 64), random_items(generator, 150, 64)
    features = gallery.features[:50].repeat(3, 1)
    features = features * (1 + noise * torch.from_numpy(generator.standard_normal(features.shape)).float())
    return query, LabelledFeatures(features, gallery.pids, gallery.camids, gallery.clothes_ids)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("noise", [0.0, 2e-7])
def test_copies_in_the_gallery_whatever_order_blocks_and_threads(metric: str, noise: float) -> None:
    generator = np.random.default_rng(4)
    query, gallery = gallery_of_copies(generator, noise)
    expected = numbers(evaluate(query, gallery, RULES, metric))
    threads = torch.get_num_threads()
    try:
        for block_queries, count in ((1, 1), (7, 1), (0, 2), (1, 2)):
            torch.set_num_threads(count)
            shuffled = permuted(gallery, generator.permutation(len(gallery)))
            assert numbers(evaluate(query, shuffled, RULES, metric, block_queries=block_queries)) == expected
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_last_bits_of_copies_do_not_count(metric: str) -> None:
    # a network gives the copies of an image slightly different features, others in each order of the files
    expected = numbers(evaluate(*gallery_of_copies(np.random.default_rng(4), 0.0), RULES, metric))
    for noise in (1e-7, 3e-7):
        assert numbers(evaluate(*gallery_of_copies(np.random.default_rng(4), noise), RULES, metric)) == expected


def test_copies_lie_between_the_worst_and_the_best_order() -> None:
    query, gallery = gallery_of_copies(np.random.default_rng(5), 2e-7)
    result = evaluate(query, gallery, [NOTHING_REMOVED], "euclidean")["nothing"]
    plain = (
        ((query.features[:, None].double() - gallery.features[None, :50].double()) ** 2).sum(-1).repeat(1, 3).numpy()
    )
    bounds = []
    for first in (False, True):
        values = []
        for row, pid in zip(plain, query.pids):
            matches = gallery.pids == pid
            order = np.lexsort((matches if not first else ~matches, row))
            found = matches[order].cumsum()
            values.append(np.mean((found / np.arange(1, len(row) + 1))[matches[order]]))
        bounds.append(np.array(values))
    worst, best = bounds
    assert (worst < result.average_precisions).all() and (result.average_precisions < best).all()


def test_features_that_are_all_the_same_give_chance() -> None:
    generator = np.random.default_rng(6)
    query, gallery = random_items(generator, 5), random_items(generator, 400)
    noise = 1e-8 * generator.standard_normal((400, 8))
    gallery.features = torch.from_numpy((1 + noise).astype(np.float32))
    query.features = gallery.features[:5]
    for metric in ("cosine", "euclidean"):
        result = evaluate(query, gallery, [NOTHING_REMOVED], metric)["nothing"]
        share = np.array([(gallery.pids == pid).mean() for pid in query.pids])
        np.testing.assert_allclose(result.cmc[:, 0], share)


def test_near_but_distinct_images_are_no_copies() -> None:
    # a match at a distance of 1 + 1e-4 stands behind a distractor at 1, a match at 1 - 1e-4 before it
    for offset, expected in ((1e-4, 0.5), (-1e-4, 1.0)):
        gallery = items([[1.0, 0.0], [1.0 + offset, 0.0]], [2, 1], [1, 1])
        result = evaluate(items([[0.0, 0.0]], [1], [0]), gallery, [GENERAL], "euclidean")["general"]
        assert result.average_precisions.tolist() == [expected]


def test_equal_distances_of_different_images_are_ties() -> None:
    # mirrored about the query: equal in exact arithmetic, not copies of each other
    gallery = items([[0.6, 0.8, 0.1], [0.8, 0.6, 0.1]], [1, 2], [1, 1])
    for metric in ("cosine", "euclidean"):
        result = evaluate(items([[1.0, 1.0, 0.3]], [1], [0]), gallery, [GENERAL], metric)["general"]
        assert result.average_precisions == pytest.approx([0.75])


def test_scaled_copies_tie_under_cosine_only() -> None:
    row = np.random.default_rng(7).standard_normal(16)
    gallery = items([row, 3.3 * row], [1, 2], [1, 1], dtype=np.float64)
    query = items([row + 1], [1], [0], dtype=np.float64)
    assert evaluate(query, gallery, [GENERAL])["general"].average_precisions == pytest.approx([0.75])
    assert evaluate(query, gallery, [GENERAL], "euclidean")["general"].average_precisions.tolist() == [1.0]
    np.testing.assert_array_equal(gallery.features[0].numpy(), row)  # the features are left as they were


def test_features_of_any_size() -> None:
    generator = np.random.default_rng(8)
    query, gallery = random_items(generator, 10), random_items(generator, 60)
    for metric in ("cosine", "euclidean"):
        expected = numbers(evaluate(query, gallery, [GENERAL], metric))
        for factor in (2.0**-20, 2.0**500, 2.0**1000):
            scaled = [
                LabelledFeatures(side.features.double() * factor, side.pids, side.camids) for side in (query, gallery)
            ]
            assert numbers(evaluate(*scaled, [GENERAL], metric)) == expected, (metric, factor)
    zero = items(np.zeros((4, 3)), [1, 1, 2, 2], [0, 1, 0, 1])
    assert evaluate(zero, zero, [GENERAL])["general"].valid_queries == 4


def test_memory_is_bounded_by_smaller_blocks() -> None:
    generator = np.random.default_rng(9)
    query, gallery = random_items(generator, 300), random_items(generator, 2000)
    sizes: list[int] = []

    def count(blocks, number):
        sizes.extend(len(block) for block in blocks)
        return blocks

    expected = numbers(evaluate(query, gallery, [GENERAL], progress=count))
    assert sizes == [300]
    sizes.clear()
    assert numbers(evaluate(query, gallery, [GENERAL], max_memory=1, progress=count)) == expected
    assert sum(sizes) == 300 and 1 <= max(sizes) <= (1 << 20) // (8 * 2000)
    sizes.clear()
    assert numbers(evaluate(query, gallery, [GENERAL], max_memory=1e-3, progress=count)) == expected
    assert max(sizes) == 1


@pytest.mark.parametrize("num_query, num_gallery", [(0, 4), (4, 0), (0, 0)])
def test_nothing_to_score(num_query: int, num_gallery: int) -> None:
    generator = np.random.default_rng(10)
    query, gallery = random_items(generator, num_query), random_items(generator, num_gallery)
    single = Protocol("single", "general", single_shot_draws=2)
    for result in evaluate(query, gallery, [*RULES, single], top_matches=3).values():
        values = result.percentages()
        assert values.pop("valid_queries") == 0 and set(values.values()) == {None}
        assert result.queries_without_match == num_query


def test_top_matches_leave_out_removed_items() -> None:
    features, pids, camids, clothes = zip(*HAND_GALLERY)
    gallery = items(np.array(features)[:, None], pids, camids, clothes)
    query = items([[0.0]], [1], [0], [10])
    results = evaluate(query, gallery, RULES, "euclidean", top_matches=5)
    assert results["general"].top_matches.tolist() == [[1, 2, 3, 4, -1]]
    assert results["CC"].top_matches.tolist() == [[1, 3, 4, -1, -1]]
    assert results["nothing"].top_matches.tolist() == [[0, 1, 2, 3, 4]]
    # in the numbers of the whole gallery, also where a protocol searches a part of it
    part = Protocol("part", "nothing", gallery_cameras={1, 2})
    assert evaluate(query, gallery, [part], "euclidean", top_matches=2)["part"].top_matches.tolist() == [[2, 3]]


def test_choice_of_people_holds_for_query_and_gallery() -> None:
    query = items([[0.0], [0.0]], [1, 2], [0, 0])
    gallery = items([[1.0], [2.0], [3.0]], [2, 1, 2], [1, 1, 1])
    result = evaluate(query, gallery, [Protocol("one", "general", pids={1})], "euclidean")["one"]
    assert (result.num_queries, result.average_precisions.tolist()) == (1, [1.0])


def test_what_cannot_be_scored_is_named() -> None:
    generator = np.random.default_rng(11)
    query, gallery = random_items(generator, 3, 4), random_items(generator, 5, 6)
    with pytest.raises(ClearError, match="query features have 4 columns, gallery features 6"):
        evaluate(query, gallery, [GENERAL])
    with pytest.raises(ClearError, match="metric 'manhattan' is unknown; known metrics: cosine, euclidean"):
        evaluate(query, query, [GENERAL], "manhattan")
    with pytest.raises(ClearError, match=r"shape \(2, 2\), expected \(3, 3\)"):
        evaluate(query, query, [GENERAL], distances=np.zeros((2, 2)))
    query.clothes_ids = None
    for protocol in (CC, SC):
        with pytest.raises(ClearError, match=f"protocol {protocol.name} needs clothes ids"):
            evaluate(query, query, [GENERAL, protocol])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_pairs_of_a_roc_curve_are_those_of_fast_reid(metric: str) -> None:
    from fastreid.evaluation.roc import evaluate_roc
    from fastreid.utils.compute_dist import build_dist

    import fastreid_clip3d  # noqa: F401

    generator = np.random.default_rng(12)
    query, gallery = random_items(generator, 20), random_items(generator, 70)
    same, different = pair_distances(query, gallery, GENERAL, metric, block_queries=6)
    distances = build_dist(query.features, gallery.features, metric)
    scores, labels = evaluate_roc(distances, query.pids, gallery.pids, query.camids, gallery.camids, use_cython=False)
    np.testing.assert_allclose(np.sort(same), np.sort(scores[labels == 0]), atol=1e-5)
    np.testing.assert_allclose(np.sort(different), np.sort(scores[labels == 1]), atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["query", "gallery"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_features_that_are_not_finite_are_refused(side: str, value: float, metric: str) -> None:
    generator = np.random.default_rng(11)
    sides = {"query": random_items(generator, 9), "gallery": random_items(generator, 20)}
    sides[side].features[7, 2] = value
    with pytest.raises(ClearError, match=f"features of {side} item 7 are not finite"):
        evaluate(*sides.values(), [Protocol("some", gallery_cameras={0})], metric)


def test_distances_that_are_not_finite_are_refused() -> None:
    generator = np.random.default_rng(12)
    query, gallery = random_items(generator, 9), random_items(generator, 20)
    distances = generator.random((9, 20))
    distances[4, 13] = np.nan
    with pytest.raises(ClearError, match="distance of query 4 to gallery item 13 is nan"):
        evaluate(query, gallery, [NOTHING_REMOVED], distances=distances)


@pytest.mark.parametrize("name", ["pids", "camids", "clothes_ids"])
@pytest.mark.parametrize("ids", [[1.2, 1.7], ["7", "8"], [True, False]], ids=["float", "text", "bool"])
def test_ids_that_are_no_integers_are_refused(name: str, ids: list) -> None:
    """Rounded to integers, 1.2 and 1.7 would be one person."""
    query, gallery = (items([[1.0], [2.0]], [1, 2], [0, 1], [1, 2]) for _ in range(2))
    setattr(gallery, name, np.array(ids))
    with pytest.raises(ClearError, match=f"{name} of the gallery are .*, expected integers"):
        evaluate(query, gallery, [GENERAL, CC])
    setattr(gallery, name, np.array([1]))
    with pytest.raises(ClearError, match=rf"{name} of the gallery have shape \(1,\), expected \(2,\)"):
        evaluate(query, gallery, [GENERAL, CC])
