"""Near copies on planted pages and on real ones: who is removed without resembling anything that stays.

    python benchmarks/near_copies.py [--copies 100000] [--skip-datatrove] [--normalisations]

Planted: pages with edits at a Jaccard similarity of .5 to .95, exact copies, chains that drift from page to page,
template pages with different bodies, and one page many times. Held against each other are
  ours       a run of this package
  closure    connected components over the same band keys, as this package removed them before
  datatrove  its four MinHash stages, on the same words
Then real pages (where `../shared/data` has them): what closure would have removed that resembles nothing that stays.

Jaccard similarities are those of sets of words' tuples in Python, not of the kernels.
Results: benchmarks/results/near_copies.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from corpus import SHARED, machine

from filters import FilterConfig, run_filter
from filters.config.filter import NearConfig
from filters.dedup.fingerprinter import near_keys, shingles_of
from filters.kernels.minhash import similarities
from filters.kernels.packed import PackedText
from filters.kernels.words import word_hashes

RESULTS = Path(__file__).parent / "results" / "near_copies.json"
NEAR = NearConfig()
REAL = ("web/unlabelled.parquet", "pool/english.parquet", "pool/multi.parquet")


def words(draw: random.Random, count: int) -> list[str]:
    """Words of letters only, for datatrove makes all numbers equal."""
    return ["".join(draw.choices("bcdfghklmnprstvz", k=draw.randrange(2, 7))) for _ in range(count)]


def edited(draw: random.Random, text: list[str], similarity: float) -> list[str]:
    """The text with words replaced, far from each other, so that about that similarity of 5-word shingles is left."""
    shingles = len(text) - 4
    changed = round(shingles * (1 - similarity) / (1 + similarity) / 5)
    found = list(text)
    for place in draw.sample(range(2, len(text) - 2, 5), min(changed, len(text) // 5 - 1)):
        found[place] = words(draw, 1)[0]
    return found


def planted(path: Path, copies: int, seed: int = 0) -> dict[str, str]:
    """Write the pages, shuffled; what each was planted as, by id."""
    draw = random.Random(seed)
    rows: list[tuple[str, str]] = []
    for n in range(1500):
        base = words(draw, 300)
        rows.append((f"edits-{n}", " ".join(base)))
        for similarity in (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 0.95):
            if draw.random() < 0.5:
                text = " ".join(edited(draw, base, similarity))
                rows.append((f"edits-{n}-{similarity}", text))
    for n in range(500):
        text = " ".join(words(draw, 200))
        rows += [(f"exact-{n}-{copy}", text.upper() if copy % 2 else text) for copy in range(draw.randrange(2, 5))]
    for n in range(100):
        text = words(draw, 200)
        for step in range(26):
            rows.append((f"chains-{n}-{step}", " ".join(text)))
            text = edited(draw, text, 0.9)
    for n in range(3):
        frame = words(draw, 220)
        rows += [(f"templates-{n}-{page}", " ".join(frame + words(draw, 60))) for page in range(1000)]
    text = words(draw, 60)
    rows += [(f"one page-{n}", " ".join(text)) for n in range(copies)]
    draw.shuffle(rows)
    write(path, rows)
    return {i: i.partition("-")[0] for i, _ in rows}


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    """Parquet with id and text."""
    table = pa.table({"id": [i for i, _ in rows], "text": pa.array([text for _, text in rows], pa.large_string())})
    pq.write_table(table, path, row_group_size=20_000)


def run(folder: Path, pages: Path, name: str) -> tuple[list[dict[str, Any]], dict[str, Any], float]:
    """(rows of the side files, what the manifest says of deduplication, CPU seconds) of a run."""
    config = FilterConfig.model_validate(
        {
            "input": {"kind": "parquet", "paths": [str(pages)], "id_key": "id"},
            "keep": {"min_score": -9},
            "output": {"path": str(folder / name)},
        }
    )
    start = time.process_time()
    result = run_filter(config)
    cost = time.process_time() - start
    return pq.read_table(folder / name / "attributes").to_pylist(), result.manifest["dedup"], cost


class Pages:
    """Pages with what is known of them: one for each normalised text, the rest are exact copies."""

    def __init__(self, path: Path) -> None:
        table = pq.read_table(path, columns=["id", "text"])
        ids, texts = table["id"].to_pylist(), table["text"].to_pylist()
        first: dict[str, int] = {}
        self.group: dict[str, int] = {}
        for n, (i, text) in enumerate(zip(ids, texts, strict=True)):
            self.group[i] = first.setdefault(" ".join(text.lower().split()), n)
        self.members: dict[int, list[str]] = defaultdict(list)
        for i, group in self.group.items():
            self.members[group].append(i)
        self.groups = sorted(self.members)
        packed = PackedText.from_strings([texts[group] for group in self.groups])
        keys, _ = near_keys(packed, NEAR)
        found = word_hashes(packed)
        self.sets = {}
        self.buckets: dict[Any, list[int]] = defaultdict(list)
        for n, group in enumerate(self.groups):
            run = found.hashes[found.offsets[n] : found.offsets[n + 1]].tolist()
            width = NEAR.shingle if len(run) > NEAR.shingle else 1
            self.sets[group] = {tuple(run[k : k + width]) for k in range(len(run) - width + 1)}
            for key in keys[n].tolist() if run else ():
                self.buckets[key].append(group)

    def alike(self, one: int, other: int) -> float:
        """Jaccard similarity of two groups."""
        a, b = self.sets[one], self.sets[other]
        common = len(a & b)
        return common / (len(a) + len(b) - common) if a or b else 1.0

    def pairs(self, largest: int = 100) -> set[tuple[int, int]]:
        """Groups that share a bucket of at most so many."""
        small = (some for some in self.buckets.values() if len(some) <= largest)
        return {pair for some in small for pair in itertools.combinations(some, 2)}

    def closure(self) -> dict[int, int]:
        """The component of each group, by its smallest."""
        parent = {group: group for group in self.groups}

        def find(group: int) -> int:
            while parent[group] != group:
                parent[group] = parent[parent[group]]
                group = parent[group]
            return group

        for some in self.buckets.values():
            for other in some[1:]:
                one, two = find(some[0]), find(other)
                parent[max(one, two)] = min(one, two)
        return {group: find(group) for group in self.groups}


def unwitnessed(pages: Pages, removed: set[int], stays: dict[int, set[int]]) -> list[int]:
    """Those removed groups that resemble none of the groups that stay of theirs."""
    return [group for group in removed if all(pages.alike(group, kept) < NEAR.similarity for kept in stays[group])]


def by_closure(pages: Pages, rank: dict[int, Any]) -> tuple[set[int], dict[int, set[int]]]:
    """(removed groups, for each the one of its component that stays: the best)."""
    components: dict[int, list[int]] = defaultdict(list)
    for group, root in pages.closure().items():
        components[root].append(group)
    stays = {group: {min(some, key=rank.__getitem__)} for some in components.values() for group in some}
    return {group for group in stays if group not in stays[group]}, stays


def measured(pages: Pages, rows: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[int, Any]]:
    """What a run of ours removed, and how each group ranks."""
    by_id = {row["id"]: row for row in rows}
    rank = {
        group: min((-by_id[i]["score"], -by_id[i]["bytes"], i.encode()) for i in some)
        for group, some in pages.members.items()
    }
    kept = {pages.group[i] for i, row in by_id.items() if row["keep"]}
    near = {pages.group[i]: row for i, row in by_id.items() if row["reason"] == "near_duplicate"}
    wrong = [
        group
        for group, row in near.items()
        if pages.group[row["duplicate_of"]] not in kept
        or pages.alike(group, pages.group[row["duplicate_of"]]) < NEAR.similarity
        or abs(pages.alike(group, pages.group[row["duplicate_of"]]) - row["similarity"]) > 1e-3
    ]
    alike = [pair for pair in pages.pairs() if pages.alike(*pair) >= NEAR.similarity]
    return {
        "removed_as_near_copies": len(near),
        "removed_without_a_witness": len(wrong),
        "pairs_that_share_a_bucket_and_are_alike": len(alike),
        "of_these_both_stay": sum(one in kept and other in kept for one, other in alike),
    }, rank


def true_pairs(pages: Pages, kinds: dict[str, str], kept: set[int]) -> dict[str, Any]:
    """All pairs within a planted family that are alike, whether they share a bucket or not, by similarity."""
    families: dict[str, list[int]] = defaultdict(list)
    for group, some in pages.members.items():
        kind = kinds[some[0]]
        if kind in ("edits", "chains"):
            families["-".join(some[0].split("-")[:2])].append(group)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for some in families.values():
        for one, other in itertools.combinations(some, 2):
            similarity = pages.alike(one, other)
            if similarity >= NEAR.similarity:
                step = found[f"{int(similarity * 20) / 20:.2f}"]
                step["pairs"] += 1
                step["not both stay"] += not (one in kept and other in kept)
                step["theory"] += 1 - (1 - similarity**NEAR.rows) ** NEAR.bands  # type: ignore[assignment]
    return {
        step: {"pairs": some["pairs"], "share_not_both_kept": round(some["not both stay"] / some["pairs"], 4),
               "share_that_shares_a_band_by_theory": round(some["theory"] / some["pairs"], 4)}
        for step, some in sorted(found.items())
    }  # fmt: skip


def datatrove_removes(folder: Path, pages: Path) -> set[str]:
    """Ids that datatrove's four stages remove, its words cut by a regular expression in place of spaCy."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig
    from loguru import logger

    from filters.run.heuristics import RegexTokenizer

    logger.remove()
    config = MinhashConfig(
        n_grams=NEAR.shingle, num_buckets=NEAR.bands, hashes_per_bucket=NEAR.rows, hash_config=HashConfig(precision=64)
    )
    table = pq.read_table(pages, columns=["id", "text"])
    ids, texts = table["id"].to_pylist(), table["text"].to_pylist()

    def documents() -> Iterator[Document]:
        for i, text in zip(ids, texts, strict=True):
            yield Document(text=text, id=i)

    names = {name: str(folder / f"datatrove-{name}") for name in ("signatures", "buckets", "remove")}
    signature = MinhashDedupSignature(names["signatures"], config=config, language=RegexTokenizer("en"))
    for _ in signature.run(documents()) or ():
        pass
    for rank in range(NEAR.bands):
        MinhashDedupBuckets(names["signatures"], names["buckets"], config=config).run(None, rank, NEAR.bands)
    MinhashDedupCluster(names["buckets"], names["remove"], config=config).run(None, 0, 1)
    kept = {document.id for document in MinhashDedupFilter(names["remove"]).run(documents(), 0, 1)}
    return set(ids) - kept


def on_planted(folder: Path, copies: int, datatrove: bool) -> dict[str, Any]:
    """All three on the planted pages."""
    path = folder / "planted.parquet"
    kinds = planted(path, copies)
    rows, dedup, cost = run(folder, path, "planted")
    pages = Pages(path)
    ours, rank = measured(pages, rows)
    kept = {pages.group[row["id"]] for row in rows if row["keep"]}
    removed, stays = by_closure(pages, rank)
    alone = unwitnessed(pages, removed, stays)
    found: dict[str, Any] = {
        "pages": len(kinds),
        "by_kind": dict(Counter(kinds.values())),
        "ours": ours | {"near": dedup["near"], "cpu_s": round(cost, 1)},
        "closure": {
            "removed_as_near_copies": len(removed),
            "removed_without_a_witness": len(alone),
            "by_kind": dict(Counter(kinds[pages.members[group][0]] for group in alone)),
        },
        "true_pairs": true_pairs(pages, kinds, kept),
    }
    if datatrove:
        gone = datatrove_removes(folder, path)
        left = {group for group, some in pages.members.items() if any(i not in gone for i in some)}
        theirs = set(pages.groups) - left
        # Theirs keeps the first of a component: a removed page may resemble any page that is left.
        near_left: dict[int, set[int]] = defaultdict(set)
        for some in pages.buckets.values():
            for group in some:
                near_left[group].update(left.intersection(some))
        components: dict[int, list[int]] = defaultdict(list)
        for group, root in pages.closure().items():
            components[root].append(group)
        for some in components.values():
            for group in some:
                near_left[group].update(left.intersection(some) if len(some) < 200 else ())
        found["datatrove"] = {
            "removed_as_near_copies": len(theirs),
            "removed_without_a_witness": len(unwitnessed(pages, theirs, near_left)),
        }
    return found


def on_real(folder: Path) -> dict[str, Any] | None:
    """What closure would have removed of real pages that resembles nothing that stays."""
    paths = [SHARED / name for name in REAL if (SHARED / name).exists()]
    if not paths:
        return None
    texts = [text for path in paths for text in pq.read_table(path, columns=["text"])["text"].to_pylist() if text]
    write(folder / "real.parquet", [(f"{n}", text) for n, text in enumerate(texts)])
    rows, dedup, _ = run(folder, folder / "real.parquet", "real")
    pages = Pages(folder / "real.parquet")
    ours, rank = measured(pages, rows)
    removed, stays = by_closure(pages, rank)
    alone = unwitnessed(pages, removed, stays)
    return {
        "pages": len(texts),
        "ours": ours | {"near": dedup["near"]},
        "closure": {"removed_as_near_copies": len(removed), "removed_without_a_witness": len(alone)},
        "similarity_of_these_to_what_stays": np.round(
            sorted(max(pages.alike(group, kept) for kept in stays[group]) for group in alone), 3
        ).tolist(),
        "rows_of_these": sorted(alone),
    }


def normalisations() -> dict[str, Any] | None:
    """Pairs of real pages that share a band and are near copies, by how texts are normalised before they are cut.

    `keep` and `fold` are `dedup.near.digits`; `datatrove` is its `simplify_text` before the words are cut as ours are:
    numbers become 0, punctuation and diacritics go.
    """
    from datatrove.utils.text import simplify_text

    paths = [SHARED / name for name in REAL if (SHARED / name).exists()]
    if not paths:
        return None
    every = {text for path in paths for text in pq.read_table(path, columns=["text"])["text"].to_pylist() if text}
    texts = sorted(every)
    found: dict[str, set[tuple[int, int]]] = {}
    for name, near, normal in (
        ("keep", NEAR, texts),
        ("fold", NearConfig(digits="fold"), texts),
        ("datatrove", NEAR, [simplify_text(text) for text in texts]),
    ):
        packed = PackedText.from_strings(normal)
        keys, signed = near_keys(packed, near)
        buckets: dict[int, list[int]] = defaultdict(list)
        for row in np.flatnonzero(signed).tolist():
            for key in keys[row].tolist():
                buckets[key].append(row)
        small = (some for some in buckets.values() if 1 < len(some) <= 100)
        pairs = np.array(sorted({pair for some in small for pair in itertools.combinations(some, 2)}), np.int64)
        alike = similarities(shingles_of(packed, near), pairs[:, 0].copy(), pairs[:, 1].copy()) >= NEAR.similarity
        found[name] = set(map(tuple, pairs[alike].tolist()))
    return {
        "pages": len(texts),
        "pairs": {name: len(pairs) for name, pairs in found.items()},
        "of_datatrove_not_by_keep": len(found["datatrove"] - found["keep"]),
        "of_datatrove_not_by_fold": len(found["datatrove"] - found["fold"]),
        "by_keep_not_of_datatrove": len(found["keep"] - found["datatrove"]),
        "by_fold_not_of_datatrove": len(found["fold"] - found["datatrove"]),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=100_000)
    parser.add_argument("--skip-datatrove", action="store_true")
    parser.add_argument("--normalisations", action="store_true", help="measure only these; leave the rest as it is")
    arguments = parser.parse_args()
    if arguments.normalisations:
        found = json.loads(RESULTS.read_text()) | {"normalisations": normalisations()}
    else:
        with tempfile.TemporaryDirectory() as name:
            found = {
                "planted": on_planted(Path(name), arguments.copies, not arguments.skip_datatrove),
                "real": on_real(Path(name)),
                "normalisations": normalisations(),
                "machine": machine(),
            }
    print(json.dumps(found, indent=1))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
