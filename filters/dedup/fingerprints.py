"""Fingerprints a finished run keeps, so that later runs can remove copies of what it kept.

fingerprints/near-*.parquet and exact-*.parquet, one file for each hash range, in the order of the keys; a row for every
distinct key: key (uint64) and row (int64: the kept document's row in the run's attributes/, counted over all files).
The keys are the band keys and the upper half of the exact hash of the kept documents and of the copies they stand for.
What was removed for its score is not in there: a copy of it is judged again. Sorted keys are stored as differences.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from filters.config import DedupConfig, NearConfig
from filters.errors import RunError
from filters.kernels.arrays import Int64, UInt64
from filters.storage import inner_name, location, parquet_dataset, parquet_file

FOLDER = "fingerprints"
SCHEMA = pa.schema([pa.field("key", pa.uint64(), nullable=False), pa.field("row", pa.int64(), nullable=False)])
_ROW_GROUP = 1 << 20


def write_keys(path: Path, keys: UInt64, rows: Int64) -> int:
    """Write the distinct keys, sorted, each with the smallest of its rows; how many there are."""
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    first = np.concatenate([np.ones(min(len(keys), 1), np.bool_), keys[1:] != keys[:-1]])
    table = pa.table([pa.array(keys[first]), pa.array(rows[first])], schema=SCHEMA)
    pq.write_table(
        table,
        path,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        use_dictionary=False,
        column_encoding={"key": "DELTA_BINARY_PACKED", "row": "DELTA_BINARY_PACKED"},
        write_page_checksum=True,
    )
    return int(first.sum())


class EarlierRun:
    """A finished run whose fingerprints a new run is held against.

    Args:
        path: its folder, as the config names it.
        dedup: of the new run.

    Raises:
        RunError: no finished run, one without fingerprints, or one whose fingerprints were made with other options.
    """

    def __init__(self, path: str, dedup: DedupConfig) -> None:
        self.path = path
        folder = location(path, dedup.storage_options)
        try:
            manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            theirs = DedupConfig.model_validate(manifest["config"]["dedup"])
            files: dict[str, dict[str, Any]] = {str(entry["path"]): entry for entry in manifest["files"]}
        except FileNotFoundError:
            raise RunError(
                f"dedup.against: {path}: no manifest.json here, so no finished run. Remedy: name its output.path"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"dedup.against: {folder / 'manifest.json'}: not the manifest of a run: {error!r}"
            ) from error
        if not any(name.startswith(f"{FOLDER}/") for name in files):
            raise RunError(
                f"dedup.against: {path}: this run kept no fingerprints. Remedy: run it again with "
                "dedup.keep_fingerprints: true"
            )
        _refuse_other_options(path, theirs, dedup)
        self._files = {
            kind: [folder / name for name in sorted(files) if inner_name(name).startswith(f"{FOLDER}/{kind}-")]
            for kind in ("near", "exact")
        }
        self._attributes = [folder / name for name in sorted(files) if name.startswith("attributes/")]
        self._rows = [int(files[f"attributes/{path.name}"]["rows"]) for path in self._attributes]
        self.digests = {name: str(entry["sha256"]) for name, entry in files.items() if name.startswith(f"{FOLDER}/")}

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
        wanted = (pc.field("key") >= pa.scalar(first, pa.uint64())) & (pc.field("key") <= pa.scalar(last, pa.uint64()))
        options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
        dataset = parquet_dataset(self._files[kind], schema=SCHEMA, format=parquet)
        return dataset.scanner(filter=wanted, use_threads=False)

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


def offsets(runs: Sequence[EarlierRun]) -> Int64:
    """int64[runs + 1]: running numbers, over all earlier runs, of the first document of each."""
    return np.concatenate([[0], np.cumsum([run.rows for run in runs], dtype=np.int64)]).astype(np.int64)


def _refuse_other_options(path: str, theirs: DedupConfig, ours: DedupConfig) -> None:
    def options(near: NearConfig | None) -> dict[str, Any]:
        return {} if near is None else near.model_dump(exclude={"verify"})

    if theirs.exact != ours.exact:
        raise RunError(
            f"dedup.against: {path}: made with dedup.exact: {theirs.exact}, this config has {ours.exact}. Remedy: use "
            "the same"
        )
    if (theirs.near is None) != (ours.near is None):
        raise RunError(
            f"dedup.against: {path}: near duplicates were {'not ' * (theirs.near is None)}looked for there, and are "
            f"{'not ' * (ours.near is None)}here. Remedy: use the same dedup.near"
        )
    before, now = options(theirs.near), options(ours.near)
    for name, value in now.items():
        if before[name] != value:
            raise RunError(
                f"dedup.against: {path}: made with dedup.near.{name}: {before[name]}, this config has {value}; their "
                "band keys never meet. Remedy: use the same shingle, bands, rows and seed"
            )
