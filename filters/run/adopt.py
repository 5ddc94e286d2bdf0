"""Phases of a run that decides anew about the documents of a finished one: `attributes` and `verdicts` from its side
files, and texts from its shards and `rejected/`, else from its inputs. The phases behind them are those of every run.

A unit of it is a stretch of a row group of a side file with documents of one input file (`Unit.address` names the side
file, `Unit.source` the input file, `start` and `stop` are rows of the side file).
"""

from __future__ import annotations

import base64
import functools
import itertools
import shutil
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.arrays import Bool, Int64, UInt8
from filters.config.filter import FilterConfig
from filters.dedup.clusters import FOUND, REASONS, VERDICT_DTYPES, VERDICTS, survivors
from filters.errors import InputError, RunError
from filters.kernels.packed import PackedText, Ragged
from filters.phases.blocks import BlockReader, BlockWriter
from filters.phases.phase import Job
from filters.phases.rows import (
    ADDED,
    ATTRIBUTES,
    OWN_FIELDS,
    ROWS,
    SLICE,
    added_fields,
    first_rows,
    read_rows,
    rows_schema,
    score_fields,
    slice_names,
)
from filters.phases.texts import EDITING
from filters.read.batch import Batch
from filters.read.unit import Unit
from filters.read.units import input_digest, input_version, plan_units
from filters.run.attributes import QUARANTINE, column_schema
from filters.run.folder import MANIFEST, input_folder
from filters.run.steps import Extract, Score
from filters.scores.finished_run import DAMAGE, Run
from filters.scores.summary import BELOW
from filters.storage.location import Location, location, parquet_file

STORED = "stored.bin"
_STORED_DTYPES = ["|u1"]
_CHUNK = 4096
"""Rows whose texts are put together at a time."""


@functools.lru_cache(maxsize=4)
def adopted_run(job: Job) -> Run:
    """The finished run that a job decides anew about."""
    return Run(location(job.run or "", job.run_options))


def config_of(run: Run) -> FilterConfig:
    """The config of a finished run, as its manifest has it: without credentials, and with a path of no meaning.

    Raises:
        RunError: the manifest is none of this version.
    """
    try:
        data = dict(run.manifest["config"])
        data |= {"output": {**data["output"], "path": "run"}}
        return FilterConfig.in_folder(data, input_folder(run.path))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{run.path / MANIFEST}: not the manifest of a run by this version: {error!r:.300}") from error


def streams(run: Run) -> list[str]:
    """Folders of a run in which texts lie, in the order of the input each."""
    output = run.manifest["config"]["output"]
    buckets = output["buckets"]
    folders = [f"data/{name}" for name in buckets["names"]] if buckets and buckets["folders"] else ["data"]
    return folders + ["rejected"] * bool(output["rejected"])


def plan_adoption(run: Run) -> list[Unit]:
    """The units: stretches of a row group of a side file with documents of one input file, in input order.

    An input file without documents has a unit without rows, for it may have quarantined records.

    Raises:
        RunError: a side file is missing or damaged.
    """
    units: list[Unit] = []
    waiting, seen = deque(run.ledger["sources"]), set[str]()

    def add(source: str, file: str, start: int, stop: int) -> None:
        units.append(Unit(len(units), "parquet", source, file, start, stop))

    for path in run.files:
        try:
            with parquet_file(path, read_dictionary=["source"]) as file:
                column = file.read(columns=["source"])["source"].unify_dictionaries().combine_chunks()
                groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        except DAMAGE as error:
            raise _damaged(path, error) from error
        codes = column.indices.to_numpy()
        bounds = np.unique(
            np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1, np.cumsum(groups)]).astype(np.int64)
        )
        for start, stop in itertools.pairwise(bounds.tolist()):
            source = column.dictionary[int(codes[start])].as_py()
            while source not in seen and waiting:
                before = waiting.popleft()
                seen.add(before)
                if before != source:
                    add(before, path.name, 0, 0)
            add(source, path.name, start, stop)
    for source in waiting:
        add(source, run.files[-1].name if run.files else "", 0, 0)
    return units


def _damaged(path: Location, error: Exception) -> RunError:
    return RunError(
        f"{path}: cannot read this file of the run: {error}. Remedy: restore it (manifest.json has its SHA-256), or "
        "filter again"
    )


def _rows_of(job: Job, unit: int, columns: list[str]) -> pa.Table:
    """These columns of a unit's rows of a side file."""
    about = job.units[unit]
    start, stop = about.start or 0, about.stop or 0
    path = adopted_run(job).path / "attributes" / about.address
    parts, first = [], 0
    try:
        with parquet_file(path, page_checksum_verification=True) as file:
            empty = file.schema_arrow.empty_table().select(columns)
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                low, high = max(start - first, 0), min(stop - first, count)
                if low < high:
                    table = file.read_row_group(group, columns=columns, use_threads=False)
                    parts.append(table.slice(low, high - low))
                first += count
    except DAMAGE as error:
        raise _damaged(path, error) from error
    found: pa.Table = pa.concat_tables([empty, *parts]).combine_chunks()
    if found.num_rows != stop - start:
        raise RunError(f"{path}: has {first:,} rows, {stop:,} are needed. Remedy: restore it, or filter again")
    return found


class AdoptedAttributes:
    """rows.arrow as the phase `attributes` of the finished run wrote it, but for checksums, and with ids that are
    unique already. stored.bin: for each row 0, or one more than the number of the stream that its text lies in.

    Facts: those of `Attributes`; renamed, of the unit's input file where it is the first one of it; stored: rows in
    each stream.
    """

    name = ATTRIBUTES

    def units(self, job: Job) -> int:
        """The stretches of side files."""
        return len(job.units)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Take over the rows of a unit."""
        run = adopted_run(job)
        names = dict(zip(job.config.slices, slice_names(job.config.slices), strict=True))
        scores = {name: kind for name, kind in job.scores.items() if name not in job.added}
        own = ["id", "position", "url", "bytes", "tokens", "language", "language_score", "score", "exact_hash"]
        found, folders = _rows_of(job, unit, [*own, *scores, "reason", "keep", *names.values()]), streams(run)
        n = found.num_rows
        undone = pc.is_in(found["reason"], pa.array([*BELOW, *REASONS[1:]], pa.string()))
        columns = {name: found[name] for name in own} | {
            "has_signature": pa.nulls(n, pa.bool_()),
            "reason": pc.if_else(undone, pa.scalar(None, pa.string()), found["reason"]),
            "checksum": pa.array(np.zeros(n, np.uint64)),
        }
        columns |= {SLICE + column: found[name] for column, name in names.items()}
        columns |= {name: found[name] for name in scores}
        schema = rows_schema(list(names), scores)
        table = pa.table(columns).select(schema.names).cast(schema).combine_chunks()
        source = job.units[unit].source
        with pa.ipc.new_stream(str(folder / ROWS), schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
            for batch in table.to_batches():
                writer.write_batch(batch)
        stored = self._stored(job, unit, found, folders)
        with BlockWriter(folder / STORED, _STORED_DTYPES) as blocks:
            blocks.write(stored)
        counts = np.bincount(stored, minlength=len(folders) + 1)[1:].tolist()
        with (folder / QUARANTINE).open("wb") as target:
            if unit == 0:
                with (run.path / QUARANTINE).open("rb") as before:
                    shutil.copyfileobj(before, target)
        account = run.ledger["sources"].get(source, {}) if _first_units(job)[source] == unit else {}
        return {
            "rows": n,
            "without_text": {},
            "records": account.get("records", 0),
            "skipped": account.get("skipped", 0),
            "quarantined": account.get("quarantined", {}),
            "renamed": account.get("renamed", 0),
            "reading": None,
            "columns": base64.b64encode(_passed(run).serialize()).decode() if unit == 0 else None,
            "stored": counts,
        }

    @staticmethod
    def _stored(job: Job, unit: int, found: pa.Table, folders: list[str]) -> UInt8:
        kept = found["keep"].to_numpy()
        rejected = len(folders) * (folders[-1] == "rejected")
        if folders[0] == "data":
            return np.where(kept, 1, rejected).astype(np.uint8)
        bucket = _rows_of(job, unit, ["bucket"])["bucket"].combine_chunks()
        number = pc.index_in(bucket, value_set=pa.array([name.removeprefix("data/") for name in folders], pa.string()))
        return np.where(kept, pc.fill_null(number, -1).to_numpy() + 1, rejected).astype(np.uint8)


@functools.lru_cache(maxsize=4)
def _first_units(job: Job) -> Mapping[str, int]:
    """The number of the first unit of each input file."""
    return {unit.source: unit.index for unit in reversed(job.units)}


def _passed(run: Run) -> pa.Schema:
    """The pass-through columns of a run, as its shards have them."""
    folder = streams(run)[0]
    first = next(entry["path"] for entry in run.manifest["files"] if entry["path"].startswith("data/"))
    try:
        with parquet_file(run.path / first) as file:
            schema = file.schema_arrow
    except DAMAGE as error:
        raise _damaged(run.path / folder, error) from error
    own = len(OWN_FIELDS) + len(added_fields(config_of(run), run.scores))
    return pa.schema([schema.field(place) for place in range(own, len(schema))])


class AdoptedVerdicts:
    """verdicts.bin of the finished run."""

    name = VERDICTS

    def units(self, job: Job) -> int:
        """The stretches of side files."""
        return len(job.units)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Take over what deduplication said of the documents of a unit."""
        names = ["exact_cluster", "near_cluster", "cluster_size", "similarity", "duplicate_of", "reason"]
        found = _rows_of(job, unit, names)
        alive = found["exact_cluster"].is_valid().to_numpy()
        exact, near, size = (pc.fill_null(found[name], -1).to_numpy().astype(np.int64) for name in names[:3])
        documents = first_rows(job)[unit] + np.arange(found.num_rows, dtype=np.int64)
        code = pc.index_in(found["reason"], value_set=pa.array(REASONS[1:], pa.string()))
        reason = pc.fill_null(code, -1).to_numpy().astype(np.int64) + 1
        rows = np.flatnonzero(alive & ((exact != documents) | (near != documents) | (size != 1) | (reason > 0)))
        chosen = pa.array(rows)
        witness = Ragged.of_strings(pc.fill_null(found["duplicate_of"].take(chosen), ""))
        similarity = pc.fill_null(found["similarity"].take(chosen), float("nan")).to_numpy()
        nothing = np.empty(0, np.int64)
        with BlockWriter(folder / FOUND, VERDICT_DTYPES) as blocks:
            blocks.write(
                documents[rows], exact[rows], near[rows], size[rows], similarity, reason[rows], witness.lengths,
                witness.values, nothing, nothing,
            )  # fmt: skip
        return {}


class AddedScores:
    """rows.arrow: what further models say of the documents that deduplication left; null for the others."""

    name = ADDED

    def units(self, job: Job) -> int:
        """The stretches of side files."""
        return len(job.units)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Score the documents of a unit."""
        chosen = _to_score(job, unit)
        schema = pa.schema(score_fields({name: job.scores[name] for name in job.added}))
        stated = adopted_run(job).manifest["scores"]
        models = {name: model for name, model in job.config.models.items() if name != "score" and name not in stated}
        score = Score(job.loaded or models)
        columns = {
            field.name: np.full(len(chosen), np.nan if pa.types.is_floating(field.type) else None, dtype=object)
            for field in schema
        }
        ids = read_rows(job, unit, ["id"])["id"].combine_chunks()
        for start, batch in adopted_texts(job, unit, ids, chosen, column_schema(job)):
            job.progress.tell()
            batch.remove(~chosen[start : start + len(batch)], "not scored")
            score.apply(batch)
            for name, values in columns.items():
                values[start : start + len(batch)] = batch.attributes[name]
        arrays = [pa.array(columns[field.name], field.type, from_pandas=True) for field in schema]
        with pa.ipc.new_stream(str(folder / ROWS), schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        return {}


def _to_score(job: Job, unit: int) -> Bool:
    """bool[n]: the rows of a unit that deduplication left."""
    return survivors(job, unit, read_rows(job, unit, ["reason"])["reason"].is_null().to_numpy())[0]


def check_texts_to_score(job: Job) -> None:
    """Refuse to score where texts are needed that neither the run nor an unchanged input has.

    Raises:
        RunError: see `check_inputs`.
    """
    needed: Counter[str] = Counter()
    for unit in range(len(job.units)):
        needed += missing_texts(job, unit, _to_score(job, unit))
    check_inputs(job, needed)


def stored_in(job: Job, unit: int) -> UInt8:
    """uint8[n]: for each row of a unit 0 where the run has no text of it, else one more than the stream's number."""
    with BlockReader(job.file(ATTRIBUTES, unit, STORED), _STORED_DTYPES) as reader:
        return np.asarray(reader.arrays(0)[0], np.uint8)


@functools.lru_cache(maxsize=4)
def _before(job: Job) -> Int64:
    """int64[units + 1, streams]: documents in each stream before each unit."""
    counts = np.array([job.facts(ATTRIBUTES, unit)["stored"] for unit in range(len(job.units))], np.int64)
    return np.concatenate([np.zeros((1, counts.shape[1]), np.int64), np.cumsum(counts, axis=0)])


class _Stream:
    """The documents of a folder of Parquet files, by their number; holds the row group that was read last.

    Args:
        run: the run.
        folder: of it.
        columns: to read, beside `id`.
    """

    def __init__(self, run: Run, folder: str, columns: list[str]) -> None:
        names = sorted(entry["path"] for entry in run.manifest["files"] if entry["path"].rpartition("/")[0] == folder)
        self._rows = {entry["path"]: int(entry.get("rows", 0)) for entry in run.manifest["files"]}
        self._paths = [run.path / name for name in names]
        self._starts = np.concatenate([[0], np.cumsum([self._rows[name] for name in names], dtype=np.int64)])
        self._columns = ["id", *columns]
        self._file: pq.ParquetFile | None = None
        self._number = -1
        self._bounds = np.zeros(1, np.int64)
        self._held: tuple[tuple[int, int], pa.Table] | None = None

    def take(self, numbers: Int64) -> pa.Table:
        """Documents by their numbers, ascending; only row groups that hold some are read.

        Raises:
            RunError: a file is missing, damaged, or has not the rows it should have.
        """
        parts = []
        while len(numbers):
            file = int(np.searchsorted(self._starts, numbers[0], side="right")) - 1
            if file >= len(self._paths):
                raise RunError(f"{self._paths[-1] if self._paths else 'data/'}: documents of the run are missing")
            first = int(self._starts[file])
            self._open(file)
            group = int(np.searchsorted(self._bounds, numbers[0] - first, side="right")) - 1
            end = first + int(self._bounds[group + 1]) if group + 1 < len(self._bounds) else -1
            if end < 0:
                raise RunError(f"{self._paths[file]}: has fewer rows than manifest.json says")
            count = int(np.searchsorted(numbers, end))
            parts.append(self._group(file, group).take(pa.array(numbers[:count] - first - self._bounds[group])))
            numbers = numbers[count:]
        return pa.concat_tables(parts)

    def _open(self, number: int) -> None:
        if number == self._number:
            return
        path = self._paths[number]
        try:
            self._file, self._number = parquet_file(path, page_checksum_verification=True), number
            metadata = self._file.metadata
        except DAMAGE as error:
            raise _damaged(path, error) from error
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._bounds = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])

    def _group(self, file: int, group: int) -> pa.Table:
        if self._held is None or self._held[0] != (file, group):
            self._held = None
            assert self._file is not None
            try:
                table = self._file.read_row_group(group, columns=self._columns, use_threads=False)
            except DAMAGE as error:
                raise _damaged(self._paths[file], error) from error
            self._held = (file, group), table
        return self._held[1]


_threads = threading.local()


def _streams(job: Job, columns: list[str]) -> list[_Stream]:
    """This thread's readers: units that follow each other share row groups."""
    if getattr(_threads, "job", None) is not job:
        run = adopted_run(job)
        _threads.job, _threads.streams = job, [_Stream(run, folder, ["text", *columns]) for folder in streams(run)]
    found: list[_Stream] = _threads.streams
    return found


def adopted_texts(job: Job, unit: int, ids: pa.Array, chosen: Bool, passed: pa.Schema) -> Iterator[tuple[int, Batch]]:
    """Texts and pass-through columns of the chosen rows of a unit: (first row, batch of consecutive rows, in which the
    values of rows that are not chosen are null).

    Args:
        job: that decides anew.
        unit: of it.
        ids: string[n], of all rows.
        chosen: bool[n].
        passed: the pass-through columns.

    Raises:
        InputError: an input that must be read is not what it was.
        RunError: a file of the run is not what it was.
    """
    stored = stored_in(job, unit)
    source, before = job.units[unit].source, _before(job)[unit]
    readers = _streams(job, passed.names)
    places = np.zeros(len(stored), np.int64)
    for number, first in enumerate(before.tolist()):
        mine = stored == number + 1
        places[mine] = first + np.arange(int(mine.sum()))
    positions = read_rows(job, unit, ["position"])["position"].to_numpy()
    again = _Again(job, unit, passed, positions[chosen & (stored == 0)])
    names = ["text", *passed.names]
    schema = pa.schema([pa.field("text", pa.large_string()), *passed])
    for start in range(0, len(stored), _CHUNK):
        rows = start + np.flatnonzero(chosen[start : start + _CHUNK])
        if not len(rows):
            continue
        length = min(_CHUNK, len(stored) - start)
        parts, order = [], []
        for number in np.unique(stored[rows]).tolist():
            mine = rows[stored[rows] == number]
            if number:
                table = readers[number - 1].take(places[mine])
                if not table["id"].combine_chunks().equals(ids.take(pa.array(mine)).cast(table["id"].type)):
                    raise RunError(
                        f"{adopted_run(job).path}: its shards do not hold the documents its side files keep. Remedy: "
                        "finesieve verify says what was changed; restore it, or filter again"
                    )
            else:
                table = again.take(positions[mine], mine)
            parts.append(table.select(names).cast(schema))
            order.append(mine)
        places_of = np.full(length, -1, np.int64)
        places_of[np.concatenate(order) - start] = np.arange(len(rows))
        taken = pa.concat_tables(parts).combine_chunks().take(pa.array(places_of, mask=places_of < 0)).combine_chunks()
        columns = {name: taken[name].combine_chunks() for name in names}
        text = columns.pop("text")
        yield start, Batch(
            source, positions[start : start + length], ids.slice(start, length), text,
            np.full(length, None, dtype=object), columns,
        )  # fmt: skip


class _Again:
    """The documents of a unit read from the input once more, by position.

    Args:
        job: that decides anew.
        unit: of it.
        passed: pass-through columns.
        positions: int64[n] of all that will be asked for, ascending.
    """

    def __init__(self, job: Job, unit: int, passed: pa.Schema, positions: Int64) -> None:
        self._job, self._unit, self._passed, self._positions = job, unit, passed, positions
        self._expected: pa.ChunkedArray | None = None
        self._batches: Iterator[Batch] | None = None
        self._batch: Batch | None = None

    def take(self, positions: Int64, rows: Int64) -> pa.Table:
        """Texts at these positions, ascending, each as its fingerprint says.

        Raises:
            InputError: the input is not what it was.
        """
        from filters.dedup.fingerprinter import exact_hashes

        if self._batches is None:
            self._batches = self._read()
            self._expected = read_rows(self._job, self._unit, ["exact_hash"])["exact_hash"]
        parts, left = [], positions
        while len(left):
            while self._batch is None or not len(self._batch) or self._batch.position[-1] < left[0]:
                self._batch = next(self._batches, None)
                if self._batch is None:
                    raise self._changed(int(left[0]))
            here = left[left <= self._batch.position[-1]]
            at = np.searchsorted(self._batch.position, here)
            if not np.array_equal(self._batch.position[at], here):
                raise self._changed(int(here[0]))
            taken, columns = pa.array(at), self._batch.columns
            if len(columns) != len(self._passed):
                raise self._changed(int(here[0]))
            arrays = [self._batch.text.take(taken), *(column.take(taken) for column in columns.values())]
            parts.append(pa.Table.from_arrays(arrays, names=["text", *self._passed.names]))
            left = left[len(here) :]
        found = pa.concat_tables(parts).combine_chunks()
        text = found["text"].combine_chunks()
        assert self._expected is not None
        expected = self._expected.take(pa.array(rows)).to_pylist()
        hashes = exact_hashes(PackedText.from_arrow(text))
        for position, hash_, known in zip(positions.tolist(), hashes, expected, strict=True):
            if known is not None and hash_.tobytes() != known:
                raise self._changed(position)
        return found

    def _read(self) -> Iterator[Batch]:
        from filters.read.units import read_unit

        config, source = self._job.config, self._job.units[self._unit].source
        for unit in input_units(self._job).get(source, []):
            if unit.start is not None and unit.stop is not None:
                first, last = np.searchsorted(self._positions, [unit.start, unit.stop])
                if first == last:
                    continue
            batches = read_unit(unit, config.reads[unit.input])
            yield from Extract(config.extract).run(batches) if unit.kind == "warc" else batches

    def _changed(self, position: int) -> InputError:
        return InputError(
            f"{self._job.units[self._unit].source}: the document at {position:,} is not what it was when "
            f"{adopted_run(self._job).path} was made. Nothing was published. Remedy: restore the input, or filter again"
        )


@functools.lru_cache(maxsize=4)
def input_units(job: Job) -> Mapping[str, list[Unit]]:
    """The units of the input as it is now, by input file.

    Raises:
        InputError: a file is not there.
    """
    found: dict[str, list[Unit]] = {}
    for unit in plan_units(job.config.reads):
        found.setdefault(unit.source, []).append(unit)
    return found


def missing_texts(job: Job, unit: int, wanted: Bool) -> Counter[str]:
    """How many of the wanted rows of a unit (bool[n]) have no text in the run, by input file."""
    count = int((wanted & (stored_in(job, unit) == 0)).sum())
    return Counter({job.units[unit].source: count} if count else {})


def check_inputs(job: Job, needed: Mapping[str, int]) -> None:
    """Refuse to read texts from inputs that are not what the run read.

    Args:
        job: that decides anew.
        needed: how many documents of each input file have no text in the run.

    Raises:
        RunError: names the run and the first input.
    """
    if not needed:
        return
    run, source = adopted_run(job), next(iter(needed))
    why = f"{run.path}: holds no text of {sum(needed.values()):,} documents that are needed now"
    remedy = "filter once with output.rejected: true, so that removed documents keep their text"
    edited = [heuristic.name for heuristic in job.config.heuristics if heuristic.name in EDITING]
    if edited:
        raise RunError(f"{why}, and {edited[0]} edited what {source} has. Remedy: {remedy}")
    try:
        units = input_units(job)
    except InputError as error:
        raise RunError(f"{why}, and an input is not there: {error}. Remedy: restore it, or {remedy}") from error
    stated = {entry["source"]: entry for entry in run.manifest["inputs"]}
    for source in needed:
        about = units.get(source, [None])[0]
        entry = stated.get(source, {})
        if about is None:
            raise RunError(f"{why}, and {source} is not there. Remedy: restore it, or {remedy}")
        if about.kind == "stream":
            raise RunError(f"{why}, and {source} cannot be read from its middle. Remedy: {remedy}")
        version = entry.get("version")
        now = (
            input_digest(about)
            if version is None
            else input_version(about, job.config.reads[about.input].storage_options)
        )
        known = entry.get("xxh3_128") if version is None else version
        if known is not None and now != known:
            raise RunError(f"{why}, and {source} is not what the run read. Remedy: restore it, or {remedy}")
