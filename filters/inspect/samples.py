"""Documents to look at: a seeded sample of every score, members of duplicate clusters, the beginning of their texts."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import zstandard

from filters.arrays import Float32, Int64, UInt64
from filters.errors import RunError
from filters.scores.summary import DUPLICATES, SURVIVOR_COLUMNS, Summary, survivors
from filters.storage.location import Location, files_below, parquet_file

if TYPE_CHECKING:
    from filters.scores.finished_run import Run


MEMBERS = 4
"""Copies of a cluster that are shown beside its survivor."""
TEXT_GROUPS = 256
"""Row groups of text that are read at most, so that samples of a very large run take seconds; those that hold most of
the wanted documents come first."""
TEXT_LINES, FEW_LINES = 2_000_000, 100_000
"""Lines of JSON that are looked through at most, where the shards are jsonl.zst: for a page, and for a terminal."""
BEGINNING = 400
"""Characters of a text of which a terminal shows a line."""


@dataclass(frozen=True)
class ShownDocument:
    """A row of the side files, with the beginning of its text.

    Attributes:
        id: of the document.
        origin: its URL, else file and position.
        score: None where it was not scored.
        language: None where it was not identified.
        tokens: an estimate; None where they were not counted.
        reason: why it was removed; None where it was kept.
        cluster: number of its duplicate cluster, None where it was not looked for.
        text: the first characters; None where the run holds no text of it, or it was not read (see `TEXT_GROUPS`).
        cut: there is more text.
    """

    id: str
    origin: str
    score: float | None
    language: str | None
    tokens: int | None
    reason: str | None
    cluster: int | None
    text: str | None
    cut: bool


@dataclass(frozen=True)
class Members:
    """Rows of a duplicate cluster, the survivor first and exact copies last; and whether it has near copies."""

    rows: tuple[int, ...]
    near: bool


def sample_rows(run: Run, edges: Float32, per_bin: int, seed: int = 0) -> tuple[list[list[int]], Int64]:
    """(row numbers of up to `per_bin` survivors from each bin of scores in random order, int64[bins] of all there are).

    They depend on scores, row numbers and seed alone, not on how the side files are cut.

    Args:
        run: the run.
        edges: float32[bins + 1], ascending; scores below the first or not below the last are passed over.
        per_bin: documents at most.
        seed: of the choice.

    Raises:
        RunError: the side files are missing or damaged.
    """
    bins = len(edges) - 1
    counts = np.zeros(bins, np.int64)
    chosen = [(np.empty(0, np.uint64), np.empty(0, np.int64)) for _ in range(bins)]
    bounds: UInt64 = np.full(bins, np.iinfo(np.uint64).max)
    first = 0
    for table in run.tables(SURVIVOR_COLUMNS):
        found = survivors(table)
        places, rows = np.searchsorted(edges, found.scores, side="right") - 1, first + found.rows
        first += table.num_rows
        inside = (places >= 0) & (places < bins)
        places, rows = places[inside], rows[inside]
        counts += np.bincount(places, minlength=bins)
        ranks = random_ranks(rows, seed)
        better = ranks < bounds[places]
        places, ranks, rows = places[better], ranks[better], rows[better]
        for place in np.unique(places).tolist():
            mine = places == place
            both = [np.concatenate(pair) for pair in zip(chosen[place], (ranks[mine], rows[mine]), strict=True)]
            order = np.argsort(both[0], kind="stable")[:per_bin]
            chosen[place] = both[0][order], both[1][order]
            if len(order) == per_bin:
                bounds[place] = chosen[place][0][-1]
    return [rows.tolist() for _, rows in chosen], counts


def random_ranks(numbers: Int64, seed: int) -> UInt64:
    """uint64[n]: pseudo-random numbers, each of a number and the seed (SplitMix64, Steele, Lea and Flood 2014)."""
    x = numbers.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def extremes(run: Run, summary: Summary) -> tuple[list[ShownDocument], list[ShownDocument]]:
    """The best and the worst documents that a summary remembers, with the beginning of their texts.

    Raises:
        RunError: the side files or the texts are missing or damaged.
    """
    best, worst = ([place.row for place in summary.extremes(best=best)] for best in (True, False))
    found = documents(run, [*best, *worst], BEGINNING, lines=FEW_LINES)
    return [found[row] for row in best], [found[row] for row in worst]


def documents(run: Run, rows: Iterable[int], characters: int, *, lines: int = TEXT_LINES) -> dict[int, ShownDocument]:
    """Documents by their row numbers (see `Run.rows_at`).

    Args:
        run: the run.
        rows: row numbers.
        characters: of text at most.
        lines: of JSON that are looked through at most, where the shards are jsonl.zst.

    Raises:
        RunError: the side files or the texts are missing or damaged.
    """
    numbers = sorted(set(rows))
    columns = ["id", "url", "source", "position", "language", "tokens", "score", "reason", "near_cluster"]
    found = run.rows_at(numbers, columns)
    try:
        texts = _texts(run.path, [row["id"] for row in found], characters + 1, lines)
    except (OSError, pa.ArrowException, KeyError, zstandard.ZstdError, orjson.JSONDecodeError) as error:
        raise RunError(
            f"{run.path}: cannot read the texts of this run: {error}. Remedy: restore data/ and rejected/ "
            "(manifest.json has their SHA-256), or filter again"
        ) from error
    shown = {}
    for number, row in zip(numbers, found, strict=True):
        text = texts.get(row["id"])
        shown[number] = ShownDocument(
            id=row["id"],
            origin=row["url"] or f"{row['source']} at {row['position']}",
            score=row["score"],
            language=row["language"],
            tokens=row["tokens"],
            reason=row["reason"],
            cluster=row["near_cluster"],
            text=None if text is None else text[:characters],
            cut=text is not None and len(text) > characters,
        )
    return shown


def cluster_members(run: Run, clusters: Iterable[int]) -> dict[int, Members]:
    """Row numbers of the survivor and of the first copies of each cluster.

    Raises:
        RunError: the side files are missing or damaged.
    """
    roots = pa.array(sorted(set(clusters)), pa.int64())
    kinds: dict[int, list[list[int]]] = {root: [[], [], []] for root in roots.to_pylist()}
    first = 0
    for table in run.tables(["near_cluster", "reason"]) if kinds else ():
        inside = np.flatnonzero(pc.is_in(table["near_cluster"], value_set=roots).to_numpy())
        mine = table.take(pa.array(inside)).to_pydict()
        for row, root, reason in zip(inside.tolist(), mine["near_cluster"], mine["reason"], strict=True):
            kind = kinds[root][2 if reason == DUPLICATES[0] else 1 if reason == DUPLICATES[1] else 0]
            if len(kind) < MEMBERS:
                kind.append(first + row)
        first += table.num_rows
    return {
        root: Members((*survivor[:1], *(near + exact)[:MEMBERS]), bool(near))
        for root, (survivor, near, exact) in kinds.items()
    }


def _texts(folder: Location, ids: list[str], characters: int, lines: int) -> dict[str, str]:
    """The first characters of the documents with these ids, where the run holds their text."""
    wanted = pa.array(ids, pa.string())
    hits: list[tuple[int, Location, int, pa.Array]] = []
    shards = [path for name in ("data", "rejected") for path in files_below(folder / name, ".parquet")]
    for path in shards:
        file = parquet_file(path)
        for number in range(file.num_row_groups):
            mask = pc.is_in(file.read_row_group(number, columns=["id"])["id"], value_set=wanted)
            count = pc.sum(mask).as_py()
            if count:
                hits.append((count, path, number, mask))
    hits.sort(key=lambda hit: (-hit[0], str(hit[1]), hit[2]))
    found: dict[str, str] = {}
    for _, path, number, mask in hits[:TEXT_GROUPS]:
        table = parquet_file(path).read_row_group(number, columns=["id", "text"]).filter(mask)
        texts = pc.utf8_slice_codeunits(table["text"], 0, characters)
        found |= dict(zip(table["id"].to_pylist(), texts.to_pylist(), strict=True))
    return found | _json_texts(folder, set(ids) - found.keys(), characters, lines)


def _json_texts(folder: Location, wanted: set[str], characters: int, left: int) -> dict[str, str]:
    found: dict[str, str] = {}
    shards = [path for name in ("data", "rejected") for path in files_below(folder / name, ".jsonl.zst")]
    for path in shards:
        with path.open("rb") as stored, zstandard.open(stored, "rb") as stream, io.BufferedReader(stream) as lines:
            for line in lines:
                if not left or len(found) == len(wanted):
                    return found
                left -= 1
                row = orjson.loads(line)
                if row["id"] in wanted:
                    found[row["id"]] = row["text"][:characters]
    return found
