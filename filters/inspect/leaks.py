"""Benchmark leakage: which documents repeat a run of words from a benchmark, and at which scores.

Quality filters raise the share of leaked documents, for benchmarks look like what they are trained to like. A document
leaks if it contains `NGRAM` consecutive words of a benchmark item, words lower-cased and without punctuation (13-grams:
Brown et al. 2020, Language Models are Few-Shot Learners, appendix C). An item with fewer words cannot be found. What
very many have says nothing of a leak, and is passed over, as there: n-grams of more than `MOST` items (the wording of a
prompt) or of more than `MOST` documents (a licence, a phrase of the culture).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import zstandard

from filters.errors import RunError
from filters.kernels.packed import PackedText
from filters.read.benchmark import MOST, Benchmark
from filters.scores.finished_run import DAMAGE, Run
from filters.scores.summary import BELOW
from filters.storage.location import Location, files_below, parquet_file

BUCKET = 0.25


@dataclass(frozen=True)
class Bucket:
    """Documents with a score from `low` up to `high`: how many were examined, and how many leak."""

    low: float
    high: float
    examined: int
    leaked: int


@dataclass(frozen=True)
class Leaks:
    """What a leak check found.

    Attributes:
        benchmark: what a manifest would say of it.
        size: words in an n-gram.
        examined: survivors whose text was looked at.
        survivors: documents that survived deduplication.
        complete: whether the run holds the texts of all of them; else only of those kept.
        kept: documents kept, and how many of them leak.
        common: n-grams that more than `MOST` documents have, and that were passed over.
        buckets: by score, ascending, without empty ones.
        ids: of the first leaking documents, highest scores first.
    """

    benchmark: dict[str, Any]
    size: int
    examined: int
    survivors: int
    complete: bool
    kept: tuple[int, int]
    common: int
    buckets: tuple[Bucket, ...]
    ids: tuple[tuple[float, str], ...]

    @property
    def leaked(self) -> int:
        """Documents that leak, of those examined."""
        return sum(bucket.leaked for bucket in self.buckets)

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def check_leaks(run: Run, benchmark: Benchmark, *, examples: int = 5) -> Leaks:
    """Look for a benchmark in the texts a run holds: its shards, and its rejected documents where it has them.

    They are read twice: n-grams of more than `MOST` documents, counted first, are no leaks.

    Raises:
        RunError: the texts are damaged.
    """
    counts = np.zeros((2, round(5 / BUCKET)), np.int64)
    found: list[tuple[float, str]] = []
    kept = np.zeros(2, np.int64)
    times = np.zeros(len(benchmark.ngrams.slots), np.int64)
    for folder in ("data", "rejected"):
        for _, _, texts in _texts(run.path, folder):
            benchmark.ngrams.tally(PackedText.from_arrow(texts), times)
    for folder in ("data", "rejected"):
        for ids, scores, texts in _texts(run.path, folder):
            leaks = benchmark.ngrams.found_in(PackedText.from_arrow(texts), times, MOST)
            place = np.clip(scores / BUCKET, 0, counts.shape[1] - 1).astype(np.int64)
            counts[0] += np.bincount(place, minlength=counts.shape[1])
            counts[1] += np.bincount(place[leaks], minlength=counts.shape[1])
            if folder == "data":
                kept += len(scores), int(leaks.sum())
            found += [(-float(scores[row]), ids[row].as_py()) for row in np.flatnonzero(leaks).tolist()]
            found = sorted(found)[:examples]
    buckets = tuple(
        Bucket(place * BUCKET, (place + 1) * BUCKET, int(counts[0, place]), int(counts[1, place]))
        for place in np.flatnonzero(counts[0]).tolist()
    )
    survivors = run.histogram().total()
    return Leaks(
        benchmark.to_json(),
        benchmark.ngrams.size,
        int(counts[0].sum()),
        survivors,
        int(counts[0].sum()) == survivors,
        (int(kept[0]), int(kept[1])),
        int((times > MOST).sum()),
        buckets,
        tuple((-score, name) for score, name in found),
    )


def _texts(path: Location, folder: str) -> Iterator[tuple[pa.Array, np.ndarray[Any, np.dtype[np.float32]], pa.Array]]:
    """(ids, scores, texts) of the survivors in data/ or rejected/."""
    columns = ["id", "score", "text", *(["reason"] if folder == "rejected" else [])]
    try:
        for shard in files_below(path / folder, ".parquet"):
            with parquet_file(shard) as file:
                for batch in file.iter_batches(1000, columns=columns):
                    yield from _survivors(pa.table(batch))
        for shard in files_below(path / folder, ".jsonl.zst"):
            with shard.open("rb") as stored, zstandard.ZstdDecompressor().stream_reader(stored) as stream:
                rows: list[dict[str, Any]] = []
                for line in io.BufferedReader(stream):
                    rows.append({name: orjson.loads(line)[name] for name in columns})
                    if len(rows) == 1000:
                        yield from _survivors(pa.Table.from_pylist(rows))
                        rows = []
                if rows:
                    yield from _survivors(pa.Table.from_pylist(rows))
    except (*DAMAGE, zstandard.ZstdError) as error:
        raise RunError(
            f"{path / folder}: cannot read the texts: {error}. Remedy: restore them (manifest.json has their SHA-256), "
            "or filter again"
        ) from error


def _survivors(table: pa.Table) -> Iterator[tuple[pa.Array, np.ndarray[Any, np.dtype[np.float32]], pa.Array]]:
    if "reason" in table.column_names:
        chosen = np.array([reason in BELOW for reason in table["reason"].to_pylist()], dtype=bool)
        table = table.filter(pa.array(chosen))
    if table.num_rows:
        scores = table["score"].to_numpy().astype(np.float32)
        yield table["id"].combine_chunks(), scores, table["text"].combine_chunks()
