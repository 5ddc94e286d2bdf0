"""Fingerprints that a finished run keeps, and how later runs look up copies of what it kept.

fingerprints/near-*.parquet and exact-*.parquet, one file for each hash range, in the order of the keys; a row for every
key of a kept document: key (uint64; a band key, or the upper half of the exact hash) and row (int64: the document's row
in the run's attributes/, counted over all files). Sorted keys are stored as differences.

fingerprints/sets-N.parquet, one file for each input unit, N the row of its first document: row (int64) and shingles
(uint32s, see `filters.kernels.minhash`) of every kept document, by which later runs verify how alike two documents
are. All shingles are kept, not a sketch, so that a later run knows the similarity as exactly as this one.

What was removed is not in there: what was removed for its score is judged again, and a copy of a removed copy is
compared with the kept document like any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.arrays import Int64, UInt64
from filters.config.filter import DedupConfig
from filters.dedup.bands import partitions, reading_bands
from filters.dedup.fingerprinter import shingles_of_rows
from filters.errors import RunError
from filters.kernels.packed import Ragged
from filters.kernels.pairs import marked
from filters.phases.phase import Job
from filters.phases.rows import first_rows
from filters.storage.location import inner_name, location, parquet_dataset, parquet_file

FOLDER = "fingerprints"
KEY_SCHEMA = pa.schema([pa.field("key", pa.uint64(), nullable=False), pa.field("row", pa.int64(), nullable=False)])
SET_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("shingles", pa.list_(pa.field("element", pa.uint32(), nullable=False)), nullable=False),
    ]
)
_ROW_GROUP = 1 << 20


def write_keys(path: Path, keys: UInt64, rows: Int64) -> int:
    """Write keys, sorted, each with its row; how many there are."""
    order = np.lexsort((rows, keys))
    table = pa.table([pa.array(keys[order]), pa.array(rows[order])], schema=KEY_SCHEMA)
    with _writer(path, KEY_SCHEMA, ["key", "row"]) as writer:
        writer.write_table(table, row_group_size=_ROW_GROUP)
    return len(keys)


def write_sets(path: Path, parts: Iterable[tuple[Int64, Ragged]]) -> int:
    """Write (rows, ascending; their shingles), a row group for each part; how many rows there are."""
    count = 0
    with _writer(path, SET_SCHEMA, ["row", "shingles.list.element"]) as writer:
        for rows, sets in parts:
            lists = pa.ListArray.from_arrays(pa.array(sets.offsets, pa.int32()), pa.array(sets.values, pa.uint32()))
            if len(rows):
                writer.write_table(
                    pa.table([pa.array(rows), lists.cast(SET_SCHEMA.field("shingles").type)], schema=SET_SCHEMA)
                )
            count += len(rows)
    return count


def _writer(path: Path, schema: pa.Schema, columns: list[str]) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=False,
        column_encoding=dict.fromkeys(columns, "DELTA_BINARY_PACKED"),
        write_page_checksum=True,
    )


class EarlierRun:
    """A finished run whose fingerprints a new run is held against.

    Attributes:
        path: its folder, as the config names it.
        starts: row of the first document of each file of shingles; [0] where there are none.
        digests: SHA-256 of each file of fingerprints.

    Args:
        path: see there.
        dedup: of the new run.

    Raises:
        RunError: no finished run, one without fingerprints, or one whose fingerprints were made with other options.
    """

    def __init__(self, path: str, dedup: DedupConfig) -> None:
        self.path = path
        folder = location(dedup.at(path), dedup.storage_options)
        try:
            manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            before = manifest["config"]["dedup"]
            if "scope" in before or "verify" in (before.get("near") or {}):
                raise self._error(
                    "made by an earlier version, whose fingerprints do not show how alike two documents are",
                    "run it again",
                )
            theirs = DedupConfig.model_validate(before)
            files: dict[str, dict[str, Any]] = {str(entry["path"]): entry for entry in manifest["files"]}
        except FileNotFoundError:
            raise self._error("no manifest.json here, so no finished run", "name its output.path") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"dedup.against: {folder / 'manifest.json'}: not the manifest of a run: {error!r}"
            ) from error

        def kept(kind: str) -> list[str]:
            return [name for name in sorted(files) if inner_name(name).startswith(f"{FOLDER}/{kind}")]

        if not kept(""):
            raise self._error("this run kept no fingerprints", "run it again with dedup.keep_fingerprints: true")
        self._refuse_other_options(theirs, dedup)
        if theirs.near is not None and not kept("sets-"):
            raise self._error(
                "this run kept band keys but no shingles, so nobody can tell how alike two documents are; it was made "
                "by an earlier version",
                "run it again",
            )
        starts = {int(inner_name(name).partition("sets-")[2].partition(".")[0]): name for name in kept("sets-")}
        self.starts = sorted(starts) or [0]
        self._sets = [folder / starts[first] for first in sorted(starts)]
        self._keys = {kind: [folder / name for name in kept(f"{kind}-")] for kind in ("near", "exact")}
        self._attributes = [folder / name for name in sorted(files) if name.startswith("attributes/")]
        self._rows = [int(files[f"attributes/{path.name}"]["rows"]) for path in self._attributes]
        self.digests = {name: str(entry["sha256"]) for name, entry in files.items() if name.startswith(f"{FOLDER}/")}

    def _error(self, what: str, remedy: str) -> RunError:
        return RunError(f"dedup.against: {self.path}: {what}. Remedy: {remedy}")

    def _refuse_other_options(self, theirs: DedupConfig, ours: DedupConfig) -> None:
        if theirs.exact != ours.exact:
            raise self._error(f"made with dedup.exact: {theirs.exact}, this config has {ours.exact}", "use the same")
        if theirs.near is None or ours.near is None:
            if theirs.near is not ours.near:
                raise self._error(
                    f"near duplicates were {'not ' * (theirs.near is None)}looked for there, and are "
                    f"{'not ' * (ours.near is None)}here",
                    "use the same dedup.near",
                )
            return
        for name, value in ours.near.model_dump(exclude={"similarity", "measure"}).items():
            if (before := getattr(theirs.near, name)) != value:
                raise self._error(
                    f"made with dedup.near.{name}: {before}, this config has {value}; their band keys never meet",
                    "use the same shingle, bands, rows, seed and digits",
                )

    @property
    def rows(self) -> int:
        """Documents in the run's side files."""
        return sum(self._rows)

    def count(self, kind: str, first: int, last: int) -> int:
        """Keys from `first` to `last`.

        Raises:
            RunError: a file is missing or damaged.
        """
        with self._reading():
            return int(self._scanner(kind, first, last).count_rows())

    def keys(self, kind: str, first: int, last: int) -> Iterator[tuple[UInt64, Int64]]:
        """(keys, rows) of the keys from `first` to `last`, in chunks.

        Raises:
            RunError: a file is missing or damaged.
        """
        with self._reading():
            for batch in self._scanner(kind, first, last).to_batches():
                if batch.num_rows:
                    yield batch["key"].to_numpy(), batch["row"].to_numpy()

    def _scanner(self, kind: str, first: int, last: int) -> Any:
        import pyarrow.dataset as ds  # imports pandas

        wanted = (pc.field("key") >= pa.scalar(first, pa.uint64())) & (pc.field("key") <= pa.scalar(last, pa.uint64()))
        options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
        dataset = parquet_dataset(self._keys[kind], schema=KEY_SCHEMA, format=parquet)
        return dataset.scanner(filter=wanted, use_threads=False)

    def shingles(self, part: int, rows: Int64) -> Iterator[tuple[Int64, Ragged]]:
        """(rows, their shingle sets) of a file of shingles, in chunks; only `rows` (ascending), which it must have.

        Raises:
            RunError: the file is missing or damaged, or has no such row.
        """
        found = 0
        with self._reading():
            file = parquet_file(self._sets[part], page_checksum_verification=True)
            for group in range(file.num_row_groups):
                here = file.read_row_group(group, columns=["row"])["row"].to_numpy()
                chosen = np.flatnonzero(np.isin(here, rows))
                if len(chosen):
                    lists = file.read_row_group(group, columns=["shingles"])["shingles"].combine_chunks()
                    if isinstance(lists, pa.ChunkedArray):
                        lists = lists.chunk(0)
                    taken = lists.take(pa.array(chosen))
                    offsets = taken.offsets.to_numpy().astype(np.int64)
                    yield here[chosen], Ragged(taken.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0])
                    found += len(chosen)
        if found != len(rows):
            raise RunError(f"dedup.against: {self.path}: its shingles do not fit its fingerprints")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise RunError(f"dedup.against: {self.path}: cannot read its fingerprints: {error}") from error

    def ids(self, rows: Int64) -> list[str]:
        """Ids of documents by their rows in the side files; `rows` (int64[n]) is ascending.

        Raises:
            RunError: the side files are missing or damaged, or have fewer rows.
        """
        found: list[str] = []
        start = 0
        for path, count in zip(self._attributes, self._rows, strict=True):
            low, high = np.searchsorted(rows, [start, start + count]).tolist()
            if high > low:
                try:
                    ids = parquet_file(path).read(columns=["id"])["id"]
                    found += ids.take(pa.array(rows[low:high] - start)).to_pylist()
                except (OSError, pa.ArrowException) as error:
                    raise RunError(f"dedup.against: {path}: cannot read this side file: {error}") from error
            start += count
        if len(found) != len(rows):
            raise RunError(f"dedup.against: {self.path}: its side files do not fit its fingerprints")
        return found


def open_earlier(dedup: DedupConfig) -> list[EarlierRun]:
    """The runs of `dedup.against`, in the order of the config.

    Raises:
        RunError: see `EarlierRun`.
    """
    return [EarlierRun(path, dedup) for path in dedup.against]


FINGERPRINTS, SETS = "fingerprints", "sets"
SELECT, BITMAP = "select", "kept.bits"
"""The phase that wrote the bitmap of kept documents, and its file: uint64[ceil(documents / 64)]."""


class Fingerprints:
    """near-*.parquet and exact-*.parquet of one hash range.

    Facts: files (name -> keys in it).
    """

    name = FINGERPRINTS

    def units(self, job: Job) -> int:
        """The hash ranges, where fingerprints are to be kept."""
        return partitions(job) * job.config.dedup.keep_fingerprints

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Take the keys of the hash range that kept documents have."""
        words, bounds = _kept(job), first_rows(job)
        keys: dict[str, list[UInt64]] = {"near": [], "exact": []}
        rows: dict[str, list[Int64]] = {"near": [], "exact": []}
        for number in range(len(job.units)):
            with reading_bands(job, number, unit) as reader:
                for kind, found in keys.items():
                    for some, places in reader.entries(kind):
                        documents = places.astype(np.int64) + bounds[number]
                        chosen = marked(words, documents)
                        found.append(some[chosen])
                        rows[kind].append(documents[chosen])
        counts = {}
        for kind, found in keys.items():
            path = folder / f"{kind}-{unit:05d}.parquet"
            every = np.concatenate([np.empty(0, np.uint64), *found])
            counts[path.name] = write_keys(path, every, np.concatenate([np.empty(0, np.int64), *rows[kind]]))
        return {"files": counts}


class KeptSets:
    """sets-N.parquet of an input unit. Facts: files (name -> documents in it)."""

    name = SETS

    def units(self, job: Job) -> int:
        """The units of the input, where fingerprints of near copies are to be kept."""
        return len(job.units) * (job.config.dedup.keep_fingerprints and job.config.dedup.near is not None)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Read the texts of an input unit once more, if any of its documents is kept."""
        first, stop = first_rows(job)[unit : unit + 2].tolist()
        path = folder / f"sets-{first:012d}.parquet"
        rows = np.flatnonzero(marked(_kept(job), np.arange(first, stop)))
        sets = ((rows + first, some) for rows, some in shingles_of_rows(job, unit, rows))
        return {"files": {path.name: write_sets(path, sets)}}


def _kept(job: Job) -> UInt64:
    return np.fromfile(job.file(SELECT, 0, BITMAP), np.uint64)
