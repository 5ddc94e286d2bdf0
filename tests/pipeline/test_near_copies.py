"""Near copies: what goes is what a sequential reader would remove who keeps the best, and each names who it is like."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from filters.config import FilterConfig, NearConfig
from filters.dedup.near import near_keys
from filters.kernels.packed import PackedText
from filters.kernels.words import word_hashes
from filters.pipeline.phases import rounds
from tests.pipeline.conftest import jsonl, page
from tests.pipeline.conftest import run_in_process as run_filter

MakeConfig = Callable[..., FilterConfig]
Row = dict[str, Any]


def attributes(run: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(run / "attributes").to_pylist()
    return rows


def shingles(words: list[int], width: int) -> frozenset[Any]:
    if len(words) <= width:
        return frozenset(words)
    return frozenset(tuple(words[n : n + width]) for n in range(len(words) - width + 1))


def alike(kept: frozenset[Any], gone: frozenset[Any], near: NearConfig) -> float:
    common = len(kept & gone)
    return common / (len(gone) if near.measure == "containment" else len(kept) + len(gone) - common)


def expected(rows: list[Row], texts: list[str], near: NearConfig, keep: str) -> list[tuple[str | None, Any, Any]]:
    """(reason, duplicate_of, similarity) of each document: by a loop from best to worst that compares all pairs."""
    packed = PackedText.from_strings(texts)
    keys, _ = near_keys(packed, near)
    words = word_hashes(PackedText.from_strings([unicodedata.normalize("NFC", text) for text in texts]))
    sets = [
        shingles(words.hashes[words.offsets[n] : words.offsets[n + 1]].tolist(), near.shingle)
        for n in range(len(texts))
    ]
    exact = [" ".join(text.lower().split()) for text in texts]
    order = range(len(texts))
    if keep == "best":
        order = sorted(order, key=lambda n: (-rows[n]["score"], -rows[n]["bytes"], rows[n]["id"].encode()))
    kept: list[int] = []
    by_text: dict[str, int] = {}
    roots = {text: n for n, text in reversed(list(enumerate(exact)))}
    found: dict[int, tuple[str | None, Any, Any]] = {}
    for n in order:
        same = by_text.setdefault(exact[n], n)
        if same != n and found[same][0] is None:
            found[n] = "exact_duplicate", rows[same]["id"], 1.0
            continue
        witnesses = [
            (-alike(sets[k], sets[n], near), roots[exact[k]], k)
            for k in kept
            if sets[n] and sets[k] and (keys[n] == keys[k]).any() and alike(sets[k], sets[n], near) >= near.similarity
        ]
        if same != n:  # of a removed one
            found[n] = found[same]
        elif witnesses:
            similarity, _, witness = min(witnesses)
            found[n] = "near_duplicate", rows[witness]["id"], -similarity
        else:
            kept.append(n)
            found[n] = None, None, None
    return [found[n] for n in range(len(texts))]


def drifting(draw: random.Random, seed: int, steps: int) -> list[str]:
    """a ~ b ~ ... ~ z: each is like the next one, the ends are not."""
    words = page(seed, 60).split()
    found = []
    for _ in range(steps):
        found.append(" ".join(words))
        words[draw.randrange(len(words))] = f"new{draw.randrange(10**6)}"
    return found


def random_texts(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    texts: list[str] = []
    while len(texts) < count:
        kind = draw.random()
        if kind < 0.3:
            texts += drifting(draw, draw.randrange(10**6), draw.randrange(2, 30))
        elif kind < 0.5 and texts:
            texts.append(draw.choice(texts).upper())
        elif kind < 0.6:
            texts.append(
                " ".join(draw.choice(["free", "call", "now", "42", "и", "水"]) for _ in range(draw.randrange(7)))
            )
        elif kind < 0.8:
            frame = page(draw.randrange(3), 50)
            texts.append(f"{frame} {page(draw.randrange(10**6), draw.randrange(3, 25))}")
        else:
            texts.append(page(draw.randrange(10**6), 60))
    draw.shuffle(texts)
    return texts[:count]


@pytest.mark.parametrize("near", [{}, {"bands": 40, "rows": 2, "similarity": 0.5}, {"measure": "containment"}])
@pytest.mark.parametrize("keep", ["best", "first"])
def test_what_goes_is_what_a_sequential_reader_would_remove(
    tmp_path: Path, make_config: MakeConfig, near: dict[str, Any], keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one round must do, what it leaves is settled in many stretches, and memory is short."""
    texts = random_texts(len(near), 500)
    paths = [
        jsonl(tmp_path / f"{n}.jsonl", [{"id": f"{k}", "text": text} for k, text in enumerate(texts) if k // 100 == n])
        for n in range(5)
    ]
    trees = []
    for name, partitions, memory in (("one", 1, "1GiB"), ("many", 16, "1MiB"), ("settled", 7, "1MiB")):
        if name == "settled":
            monkeypatch.setattr(rounds, "ROUNDS", 1)
            monkeypatch.setattr(rounds, "_BYTES_PER_EDGE", 2**15)
            monkeypatch.setattr(rounds, "_EVERY", 1)
        dedup = {"near": near, "keep": keep, "partitions": partitions, "memory": memory}
        run = run_filter(make_config(*paths, output=name, dedup=dedup, keep={"min_score": -9})).path
        trees.append(attributes(run))
    assert trees[0] == trees[1] == trees[2]
    rows = [row for row in trees[0] if row["reason"] != "empty_text"]
    wanted = expected(rows, [texts[int(row["id"])] for row in rows], NearConfig(**near), keep)
    for row, (reason, witness, similarity) in zip(rows, wanted, strict=True):
        assert (row["reason"], row["duplicate_of"]) == (reason, witness)
        assert row["similarity"] == (similarity if similarity is None else pytest.approx(similarity, abs=1e-12))
    counts = Counter(row["reason"] for row in rows)
    assert min(counts[name] for name in (None, "near_duplicate", "exact_duplicate")) > 3
    sizes = Counter(row["near_cluster"] for row in rows)
    assert all(row["cluster_size"] == sizes[row["near_cluster"]] for row in rows)
