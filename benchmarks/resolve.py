"""The global join measured: speed, memory, spilling, and what keeping the best copy gains on real pages.

    python benchmarks/resolve.py [--documents 10000000] [--memory 1GiB] [--skip-datatrove]

1. Entries joined per second of one core's CPU time, in memory and spilled.
2. Bytes of memory for each document with a duplicate, while clusters are found and written out.
3. Synthetic documents' signatures (14 bands each) resolved from band files in hash ranges, within the memory limit.
4. Duplicates found, against datatrove's four MinHash stages with the same bands and rows on the same pages.
   And against MinHash with ideal hash functions, run ten times: what the theory allows.
5. The mean score of the documents that stay, best copy against first copy, on the same pages.

CPU time is that of this process (`time.process_time`): the machine may be busy.
Results: benchmarks/results/resolve.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from corpus import PAGES, SHARED, machine

from filters import FilterConfig, run_filter
from filters.config import parse_size
from filters.dedup.bands import BandReader, BandWriter
from filters.dedup.components import Clusters
from filters.dedup.join import BYTES_PER_ENTRY, join
from filters.kernels.arrays import Int64

RESULTS = Path(__file__).parent / "results" / "resolve.json"
BANDS = 14
DOCUMENTS_PER_UNIT = 50_000
SHARE = 0.3
"""Of the synthetic documents, so many are a copy of one before: some bands are the same, or all."""


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def join_speed(folder: Path, entries: int = 10_000_000, repeats: int = 5) -> dict[str, Any]:
    """Entries per second of CPU time, median of `repeats`, in memory and with everything spilled."""
    draw = np.random.default_rng(0)
    keys = draw.integers(0, 2**64, entries, np.uint64)
    copies = draw.integers(0, entries, entries // 5)
    keys[draw.integers(0, entries, entries // 5)] = keys[copies]
    documents = np.arange(entries) // BANDS

    def chunks() -> Iterator[tuple[Any, Int64]]:
        for start in range(0, entries, 700_000):
            yield keys[start : start + 700_000], documents[start : start + 700_000]

    speeds: dict[str, Any] = {"entries": entries}
    for name, memory in (("in memory", 2**40), ("spilled", entries * BYTES_PER_ENTRY // 8)):
        found = []
        for _ in range(repeats + 1):
            start = time.process_time()
            pairs = sum(len(chunk) for chunk in join(chunks(), entries, memory, folder))
            found.append(entries / (time.process_time() - start))
        speeds[name] = round(statistics.median(found[1:]))  # the first run may compile
        speeds["pairs"] = pairs
    return speeds


class Synthetic:
    """Band files of made-up documents: random band keys, of which copies share all or some with an earlier one."""

    def __init__(self, folder: Path, documents: int, partitions: int) -> None:
        self.folder, self.documents, self.partitions = folder, documents, partitions
        self.units = -(-documents // DOCUMENTS_PER_UNIT)
        self.copies = 0

    def write(self) -> None:
        """Make the documents; counts those that share a band with an earlier one in `copies`."""
        draw = np.random.default_rng(1)
        pool: Any = None
        for unit in range(self.units):
            count = min(DOCUMENTS_PER_UNIT, self.documents - unit * DOCUMENTS_PER_UNIT)
            keys = draw.integers(0, 2**64, (count, BANDS), np.uint64)
            if pool is not None:
                chosen = np.flatnonzero(draw.random(count) < SHARE)
                shared = draw.random((len(chosen), BANDS)) < draw.random((len(chosen), 1))
                originals = pool[draw.integers(0, len(pool), len(chosen))]
                keys[chosen] = np.where(shared, originals, keys[chosen])
                self.copies += int(shared.any(axis=1).sum())
            pool = keys[:2000] if pool is None else np.concatenate([pool[-200_000:], keys[:2000]])
            with BandWriter(self.folder / f"{unit:06d}", self.partitions) as writer:
                ids = pa.array([f"{unit}-{row}" for row in range(count)])
                writer.add(ids, np.ones(count, bool), None, keys, np.ones(count, bool))

    def chunks(self, partition: int) -> Iterator[tuple[Any, Int64]]:
        for unit in range(self.units):
            with BandReader(self.folder / f"{unit:06d}", self.partitions, partition) as reader:
                for keys, rows in reader.entries("near"):
                    yield keys, rows.astype(np.int64) + unit * DOCUMENTS_PER_UNIT

    def count(self, partition: int) -> int:
        total = 0
        for unit in range(self.units):
            with BandReader(self.folder / f"{unit:06d}", self.partitions, partition) as reader:
                total += reader.count("near")
        return total


def resolve_synthetic(folder: Path, documents: int, partitions: int, memory: int) -> dict[str, Any]:
    """Join and cluster synthetic documents from band files on disk; in a process of its own, for its memory's sake."""
    (folder / "bands").mkdir()
    (folder / "scratch").mkdir()
    # Made by a child, so that the memory of making them is not that of this process.
    if (child := os.fork()) == 0:
        made = Synthetic(folder / "bands", documents, partitions)
        made.write()
        (folder / "copies").write_text(str(made.copies))
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the synthetic documents could not be written")
    synthetic = Synthetic(folder / "bands", documents, partitions)
    stored = sum(path.stat().st_size for path in (folder / "bands").iterdir())
    before = peak_bytes()
    start, wall = time.process_time(), time.perf_counter()
    files, entries, spilled = [], 0, 0
    for partition in range(partitions):
        count = synthetic.count(partition)
        entries += count
        spilled += count * BYTES_PER_ENTRY > memory
        path = folder / f"pairs-{partition}"
        with path.open("wb") as file:
            for chunk in join(synthetic.chunks(partition), count, memory, folder / "scratch"):
                file.write(chunk.data.cast("B"))
        files.append(path)
    joined, joined_wall, after_join = time.process_time() - start, time.perf_counter() - wall, peak_bytes()

    def pairs() -> Iterator[Int64]:
        for path in files:
            with path.open("rb") as file:
                while content := file.read(16 << 20):
                    yield np.frombuffer(content, np.int64).reshape(-1, 2)

    nothing: Callable[[], Iterator[Int64]] = lambda: iter(())  # noqa: E731
    start = time.process_time()
    clusters = Clusters(documents, nothing, pairs, nothing)
    duplicates = 0
    for nodes in clusters.nodes(np.linspace(0, documents, 101).astype(np.int64)):
        duplicates += int((nodes.near != nodes.document).sum())
    return {
        "documents": documents,
        "entries": entries,
        "hash_ranges": partitions,
        "memory_limit": memory,
        "hash_ranges_spilled": spilled,
        "band_files_bytes": stored,
        "join_cpu_s": round(joined, 1),
        "join_wall_s": round(joined_wall, 1),
        "entries_per_cpu_s": round(entries / joined),
        "peak_memory_above_start": after_join - before,
        "cluster_cpu_s": round(time.process_time() - start, 1),
        "copies_made": int((folder / "copies").read_text()),
        "documents_with_duplicates": clusters.count,
        "duplicates": duplicates,
    }


def node_memory(nodes: int = 4_000_000, share: float = 0.3) -> dict[str, Any]:
    """Memory of the clustering for each document with a duplicate, as the allocator of numpy sees it."""
    import tracemalloc

    documents = round(nodes / share)
    draw = np.random.default_rng(2)
    path_pairs = np.sort(draw.choice(documents, (nodes // 2, 2), replace=True), axis=1)
    path_pairs = path_pairs[path_pairs[:, 0] != path_pairs[:, 1]]
    nothing: Callable[[], Iterator[Int64]] = lambda: iter(())  # noqa: E731

    def pairs() -> Iterator[Int64]:
        for start in range(0, len(path_pairs), 10_000):
            yield path_pairs[start : start + 10_000]

    Clusters(10, nothing, lambda: iter([path_pairs[:1] % 10]), nothing)  # compiles
    tracemalloc.start()
    clusters = Clusters(documents, nothing, pairs, nothing)
    for _ in clusters.nodes(np.linspace(0, documents, 1001).astype(np.int64)):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "documents": documents,
        "documents_with_duplicates": clusters.count,
        "peak_bytes": peak,
        "bytes_per_document_with_duplicate": round(peak / clusters.count, 2),
    }


def warc_texts() -> list[str]:
    """Main text of the pages in the WARC files."""
    from filters.config import ExtractConfig, InputConfig
    from filters.pipeline.blocks import Extract
    from filters.read.reader import read_unit
    from filters.read.units import plan_units

    config = InputConfig.model_validate({"kind": "warc", "paths": [str(SHARED / "warc" / "*.warc.gz")]})
    batches = (batch for unit in plan_units(config) for batch in read_unit(unit, config))
    return [text for batch in Extract(ExtractConfig()).run(batches) for text in batch.text.to_pylist()]


def real_pages(folder: Path, seed: int = 3) -> Path:
    """Real pages, text of WARCs, and planted near copies of a third of them, shuffled: Parquet with id and text."""
    draw = random.Random(seed)
    texts = [text for name in PAGES[:2] for text in pq.read_table(SHARED / name, columns=["text"])["text"].to_pylist()]
    texts = [text for text in texts + warc_texts() if len(text.split()) > 50]
    rows = [(f"page-{n}", text) for n, text in enumerate(texts)]
    for n in range(0, len(texts), 3):
        for copy in range(draw.randrange(1, 4)):
            words = texts[n].split(" ")
            for _ in range(draw.randrange(1, max(2, len(words) // 25))):
                # letters only: datatrove makes all numbers equal before it hashes
                words[draw.randrange(len(words))] = "".join(draw.choices("bcdfghklmnprstvz", k=9))
            if draw.random() < 0.3:  # the end is cut off, as crawlers do
                words = words[: int(len(words) * draw.uniform(0.7, 1))]
            rows.append((f"copy-{n}-{copy}", " ".join(words)))
    draw.shuffle(rows)
    path = folder / "pages.parquet"
    pq.write_table(pa.table({"id": [i for i, _ in rows], "text": [t for _, t in rows]}), path, row_group_size=2000)
    return path


def filter_pages(folder: Path, pages: Path, name: str, dedup: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows of the attributes of a run over the pages, by id."""
    config = FilterConfig.model_validate(
        {
            "input": {"kind": "parquet", "paths": [str(pages)], "id_key": "id"},
            "dedup": dedup,
            "keep": {"min_score": -1},
            "output": {"path": str(folder / name)},
        }
    )
    run_filter(config)
    return {row["id"]: row for row in pq.read_table(folder / name / "attributes").to_pylist()}


def datatrove_duplicates(folder: Path, pages: Path) -> set[str]:
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

    from filters.pipeline.heuristics import RegexTokenizer

    logger.remove()
    config = MinhashConfig(n_grams=5, num_buckets=BANDS, hashes_per_bucket=8, hash_config=HashConfig(precision=64))
    table = pq.read_table(pages)
    ids, texts = table["id"].to_pylist(), table["text"].to_pylist()

    def documents() -> Iterator[Document]:
        for i, text in zip(ids, texts, strict=True):
            yield Document(text=text, id=i)

    names = {name: str(folder / f"datatrove-{name}") for name in ("signatures", "buckets", "remove")}
    signature = MinhashDedupSignature(names["signatures"], config=config, language=RegexTokenizer("en"))
    for _ in signature.run(documents()) or ():
        pass
    for rank in range(BANDS):
        MinhashDedupBuckets(names["signatures"], names["buckets"], config=config).run(None, rank, BANDS)
    MinhashDedupCluster(names["buckets"], names["remove"], config=config).run(None, 0, 1)
    kept = {document.id for document in MinhashDedupFilter(names["remove"]).run(documents(), 0, 1)}
    return set(ids) - kept


def against_datatrove(folder: Path, pages: Path, seeds: int = 3) -> dict[str, Any]:
    """How many documents each removes; both keep one document of each component. Ours with several seeds.

    The texts are simplified by datatrove first (no punctuation, all numbers equal), as it does before it hashes: so
    both compare the same words.
    """
    from datatrove.utils.text import simplify_text

    table = pq.read_table(pages)
    simple = pa.array([simplify_text(text) for text in table["text"].to_pylist()])
    pages = folder / "simple.parquet"
    pq.write_table(table.set_column(1, "text", simple), pages, row_group_size=2000)
    removed, found = [], []
    for seed in range(1, seeds + 1):
        dedup = {"scope": "global", "exact": False, "near": {"seed": seed}}
        ours = filter_pages(folder, pages, f"near-{seed}", dedup)
        pairs = [(i, "page-" + i.split("-")[1]) for i in ours if i.startswith("copy-")]
        removed.append(sum(row["reason"] == "near_duplicate" for row in ours.values()))
        found.append(sum(ours[a]["near_cluster"] == ours[b]["near_cluster"] for a, b in pairs))
    theirs = datatrove_duplicates(folder, pages)
    expected, deviation = expected_joins(pages, pairs)
    return {
        "pages": len(ours),
        "planted_copies": len(pairs),
        "removed_by_seed": removed,
        "datatrove_removed": len(theirs),
        "ratio": round(statistics.mean(removed) / len(theirs), 4),
        "planted_pairs_in_one_cluster_by_seed": found,
        "planted_pairs_that_share_a_band_by_theory": round(expected, 1),
        "standard_deviation_by_theory": round(deviation, 1),
    }


@numba.njit
def _mixed(z):  # type: ignore[no-untyped-def]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit
def _ideal_keys(shingles, offsets, salts, rows, keys):  # type: ignore[no-untyped-def]
    """Band keys by a 64-bit hash of every shingle for every permutation: slow, and as random as one can wish."""
    minima = np.empty(len(salts), np.uint64)
    for document in range(len(offsets) - 1):
        minima[:] = np.uint64(2**64 - 1)
        for place in range(offsets[document], offsets[document + 1]):
            for k in range(len(salts)):
                minima[k] = min(minima[k], _mixed(np.uint64(shingles[place]) ^ salts[k]))
        for band in range(keys.shape[1]):
            h = np.uint64(band + 1)
            for k in range(band * rows, (band + 1) * rows):
                h = _mixed(h ^ minima[k])
            keys[document, band] = h


def by_theory(folder: Path, pages: Path, runs: int = 10) -> dict[str, Any]:
    """Duplicates on the same simplified pages by MinHash with ideal hash functions, and by ours: mean and deviation."""
    from datatrove.utils.text import simplify_text

    from filters.kernels.minhash import band_keys
    from filters.kernels.packed import PackedText
    from filters.kernels.pairs import stars
    from filters.kernels.shingles import shingle_sets
    from filters.kernels.words import word_hashes

    texts = [simplify_text(text) for text in pq.read_table(pages)["text"].to_pylist()]
    words = word_hashes(PackedText.from_strings(texts))
    shingles, offsets = shingle_sets(words, shingle=5)
    draw = np.random.default_rng(5)
    documents = np.repeat(np.arange(len(texts)), BANDS)
    nothing: Callable[[], Iterator[Int64]] = lambda: iter(())  # noqa: E731

    def removed(keys: Any) -> int:
        pairs = np.concatenate([np.empty((0, 2), np.int64), *stars(keys.reshape(-1), documents)])
        clusters = Clusters(len(texts), nothing, lambda: iter([pairs]), nothing)
        whole = clusters.nodes(np.array([0, len(texts)]))
        return sum(int((nodes.near != nodes.document).sum()) for nodes in whole)

    found: dict[str, list[int]] = {"ideal": [], "ours": []}
    for run in range(runs):
        keys = np.empty((len(texts), BANDS), np.uint64)
        _ideal_keys(shingles, offsets, draw.integers(0, 2**64, BANDS * 8, np.uint64), 8, keys)
        found["ideal"].append(removed(keys))
        found["ours"].append(removed(band_keys(words, bands=BANDS, rows=8, seed=100 + run)[0]))
    return {
        name: {"mean": round(statistics.mean(counts), 1), "standard_deviation": round(statistics.stdev(counts), 1)}
        for name, counts in found.items()
    }


def expected_joins(pages: Path, pairs: list[tuple[str, str]]) -> tuple[float, float]:
    """Mean and standard deviation of how many of the pairs share a band: 1 - (1 - s^8)^14 for true similarity s."""
    from filters.kernels.packed import PackedText
    from filters.kernels.shingles import shingle_sets
    from filters.kernels.words import word_hashes

    table = pq.read_table(pages)
    place = {i: n for n, i in enumerate(table["id"].to_pylist())}
    hashes, offsets = shingle_sets(word_hashes(PackedText.from_arrow(table["text"])), shingle=5)

    def shingles(i: str) -> Any:
        return hashes[offsets[place[i]] : offsets[place[i] + 1]]

    chances = []
    for one, other in pairs:
        a, b = shingles(one), shingles(other)
        common = len(np.intersect1d(a, b, assume_unique=True))
        chances.append(1 - (1 - (common / (len(a) + len(b) - common)) ** 8) ** BANDS)
    chance = np.array(chances)
    return float(chance.sum()), float(np.sqrt((chance * (1 - chance)).sum()))


def best_against_first(folder: Path, pages: Path) -> dict[str, Any]:
    """Mean score of the documents that stay: the best of each cluster, against the first of the same clusters."""
    rows = list(filter_pages(folder, pages, "best", {"scope": "global"}).values())
    best = [row["score"] for row in rows if row["keep"]]
    first = [row["score"] for number, row in enumerate(rows) if row["near_cluster"] == number]
    pairs = [(rows[row["near_cluster"]]["score"], row["score"]) for row in rows if row["keep"]]
    copied = [pair for row, pair in zip((r for r in rows if r["keep"]), pairs, strict=True) if row["cluster_size"] > 1]
    stream = filter_pages(folder, pages, "first", {"scope": "stream"}).values()
    return {
        "pages": len(rows),
        "survivors": len(best),
        "clusters_of_copies": len(copied),
        "mean_score_of_survivors": {
            "first": round(statistics.mean(first), 4),
            "best": round(statistics.mean(best), 4),
        },
        "mean_score_of_survivors_with_copies": {
            "first": round(statistics.mean(one for one, _ in copied), 4),
            "best": round(statistics.mean(other for _, other in copied), 4),
        },
        "survivors_of_at_least_1.5": {
            "first": sum(score >= 1.5 for score in first),
            "best": sum(score >= 1.5 for score in best),
        },
        "survivors_of_a_streaming_run": sum(row["keep"] for row in stream),
    }


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000_000)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--memory", default="512MiB")
    parser.add_argument("--scratch", help="folder with about 250 bytes of room a document")
    parser.add_argument(
        "--only", choices=["speed", "memory", "synthetic", "datatrove", "theory", "best"], action="append"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    memory = int(str(parse_size(arguments.memory)))
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
        folder = Path(name)
        if arguments.child:
            print(json.dumps(resolve_synthetic(folder, arguments.documents, arguments.partitions, memory)))
            return
        own = [sys.executable, __file__, "--child", "--documents", str(arguments.documents), "--memory",
               str(memory), "--partitions", str(arguments.partitions), "--scratch", name]  # fmt: skip
        pages: list[Path] = []

        def on_pages(measure: Callable[[Path, Path], dict[str, Any]]) -> dict[str, Any]:
            if not pages:
                pages.append(real_pages(folder))
            return measure(folder, pages[0])

        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "speed": lambda: join_speed(folder),
            "memory": node_memory,
            "synthetic": lambda: json.loads(subprocess.run(own, capture_output=True, check=True).stdout),
            "datatrove": lambda: on_pages(against_datatrove),
            "theory": lambda: on_pages(by_theory),
            "best": lambda: on_pages(best_against_first),
        }
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        for step, measure in steps.items():
            if not arguments.only or step in arguments.only:
                results[step] = measure()
                print(step, json.dumps(results[step], indent=1))
    results["machine"] = machine()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
