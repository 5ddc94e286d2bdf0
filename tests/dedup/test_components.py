"""Clusters do not depend on the order of pairs; the best of each is that of a plain sort."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest

from filters.dedup.components import Clusters, Nodes, best_first, firsts
from filters.kernels.arrays import Int64

DOCUMENTS = 5_000


def draw_pairs(seed: int, count: int) -> Int64:
    pairs = np.sort(np.random.default_rng(seed).integers(0, DOCUMENTS, (count, 2)), axis=1)
    return pairs[pairs[:, 0] < pairs[:, 1]]


def components(*pairs: Int64) -> dict[int, int]:
    """First document of the component of each document."""
    group = {n: {n} for n in range(DOCUMENTS)}
    for one, other in np.concatenate(pairs).tolist():
        if group[one] is not group[other]:
            merged = group[one] | group[other]
            group |= dict.fromkeys(merged, merged)
    return {n: min(group[n]) for n in group}


def resolve(exact: Int64, near: Int64, hits: Int64, bounds: list[int]) -> tuple[Clusters, list[Nodes]]:
    clusters = Clusters(
        DOCUMENTS, lambda: [exact], lambda: [near[: len(near) // 2], near[len(near) // 2 :]], lambda: [hits]
    )
    return clusters, list(clusters.nodes(np.array(bounds)))


def together(nodes: list[Nodes]) -> dict[str, list[int]]:
    return {
        name: [int(value) for part in nodes for value in getattr(part, name)]
        for name in ("document", "exact", "near", "size", "copied", "earlier")
    }


def test_clusters_are_connected_components() -> None:
    exact, near = draw_pairs(1, 200), draw_pairs(2, 1500)
    hits = np.array([[17, 9], [18, 3], [int(near[0, 0]), 6], [int(near[0, 1]), 5]])
    clusters, nodes = resolve(exact, near, hits, [0, 100, 100, 3000, DOCUMENTS])
    found = together(nodes)
    expected = {*exact.ravel().tolist(), *near.ravel().tolist(), 17, 18}
    assert found["document"] == sorted(expected)
    assert clusters.count == len(expected)
    assert [len(part.document) for part in nodes][1] == 0
    assert all(100 <= document < 3000 for document in nodes[2].document)
    near_of, exact_of = components(exact, near), components(exact)
    assert found["near"] == [near_of[d] for d in found["document"]]
    assert found["exact"] == [exact_of[d] for d in found["document"]]
    sizes, copies = (
        defaultdict(int, {k: len(list(g)) for k, g in itertools.groupby(sorted(of.values()))})
        for of in (near_of, exact_of)
    )
    assert found["size"] == [sizes[near_of[d]] for d in found["document"]]
    assert found["copied"] == [copies[exact_of[d]] > 1 for d in found["document"]]
    earlier: dict[int, int] = defaultdict(lambda: -1)
    for document, number in sorted(hits.tolist(), key=lambda hit: -hit[1]):
        earlier[near_of[document]] = number
    assert found["earlier"] == [earlier[near_of[d]] for d in found["document"]]


def test_the_order_of_pairs_makes_no_difference() -> None:
    exact, near, hits = draw_pairs(3, 100), draw_pairs(4, 900), np.empty((0, 2), np.int64)
    first = together(resolve(exact, near, hits, [0, DOCUMENTS])[1])
    draw = np.random.default_rng(0)
    for _ in range(3):
        shuffled = draw.permutation(near)[:, ::-1]
        assert together(resolve(draw.permutation(exact), shuffled, hits, [0, 1000, DOCUMENTS])[1]) == first


def test_no_duplicates_at_all() -> None:
    nothing = np.empty((0, 2), np.int64)
    clusters, nodes = resolve(nothing, nothing, nothing, [0, DOCUMENTS])
    assert clusters.count == 0
    assert together(nodes)["document"] == []


@pytest.mark.parametrize("count", [0, 1, 4000])
def test_the_best_is_first(count: int) -> None:
    draw = np.random.default_rng(count)
    group = draw.integers(0, max(count // 4, 1), count)
    score = draw.choice(np.array([0.5, 1, -0.0, 0.0, np.nan], np.float32), count)
    length = draw.integers(0, 3, count)
    ids = [draw.choice(["a", "b", "é", "z", "Z", "a#10", "a#2", "\U0001f600", "￿"]) for _ in range(count)]
    order = best_first(group, score, length, pa.array(ids, pa.large_string()), np.arange(count))

    def key(row: int) -> tuple[int, float, int, bytes, int]:
        value = -np.inf if np.isnan(score[row]) else float(score[row])
        return int(group[row]), -value, -int(length[row]), ids[row].encode(), row

    assert order.tolist() == sorted(range(count), key=key)
    heads = order[firsts(group[order])]
    assert group[heads].tolist() == sorted(set(group.tolist()))
