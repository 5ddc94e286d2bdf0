"""Parquet: row groups in Arrow batches, page checksums verified, UTF-8 validated, damage confined to its row group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.arrays import Int64
from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.read.batch import (
    BATCH_BYTES,
    BATCH_ROWS,
    Batch,
    Quarantined,
    derived_ids,
    given_ids,
    quarantined,
    quarantined_only,
    require_columns,
    slices,
)
from filters.read.columns import is_binary, is_text, plain_type
from filters.read.unit import ROWS_PER_UNIT, Reading, Unit, open_input, open_unit
from filters.storage.remote import describe

DECODED_BYTES = 512 << 20
"""Most that a batch can decode to, if every row is the largest value of its column's dictionary."""
_MOST_PER_BYTE = 4096
"""Bytes that lists may decode to for each stored byte; runs of one value are a few bytes however long."""
_MOST_ROWS = 2**31
"""Most rows of a row group: more would be read, or quarantined one by one, for ever."""
_I32_FIELD = 0x15
"""Thrift's compact protocol: the next field, a 32-bit integer."""
_DAMAGE = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError)
"""What pyarrow raises on damaged files."""


def units_of_groups(file: Unit, config: InputConfig) -> tuple[list[Unit], pa.Schema | None]:
    """The units of a file, and its pass-through columns; one unit and None if its footer cannot be read.

    Raises:
        InputError: the file cannot be opened, or a remote file stays unreachable; a column is missing or of an unusable
            type.
    """
    with open_input(file.address, config) as handle:
        try:
            parquet = pq.ParquetFile(handle)
            metadata, schema = parquet.metadata, parquet.schema_arrow
            groups = [_group(metadata, index) for index in range(metadata.num_row_groups)]
        except _DAMAGE:
            return [file], None
    passed = passed_columns(read_columns(file, schema, config), config)
    columns = pa.schema([_passed_field(schema.field(name), config) for name in passed])
    units: list[Unit] = []
    start = stop = size = 0
    for rows, stored in [*groups, (ROWS_PER_UNIT + 1, 0)]:
        if stop > start and stop + rows - start > ROWS_PER_UNIT:
            units.append(replace(file, start=start, stop=stop, size=size))
            start, size = stop, 0
        stop += rows
        size += stored
    return units or [file], columns


def passed_columns(names: Sequence[str], config: InputConfig) -> list[str]:
    """Those of the columns that are read which go into shards."""
    return [*config.columns, *(["url"] if "url" in names and "url" not in config.columns else [])]


def _passed_field(field: pa.Field, config: InputConfig) -> pa.Field:
    kind = plain_type(field.type)
    return pa.field(field.name, pa.string() if field.name == "url" and is_text(kind) else kind)


def read_parquet(unit: Unit, config: InputConfig, reading: Reading | None = None) -> Iterator[Batch]:
    """Batches of the unit's row groups; positions are row indices in the file, from 0.

    Pages with checksums are verified. A page that cannot be read costs the rest of its row group: one quarantined
    record per row. Text that is no UTF-8 costs its record.

    Raises:
        InputError: a column is missing or of an unusable type, or a remote file stays unreachable.
    """
    with open_unit(unit, config, reading) as handle:
        try:
            file = pq.ParquetFile(handle, page_checksum_verification=True, pre_buffer=False)
            metadata = file.metadata
            groups = [_group(metadata, index) for index in range(metadata.num_row_groups)]
            schema = file.schema_arrow
        except _DAMAGE as error:
            cause = f"corrupt: no readable Parquet footer ({describe(error)}); how many records it has is unknown"
            batch = quarantined_only(unit.source, [quarantined(unit.source, -1, cause, b"")])
            batch.input_bytes = unit.size or 0
            yield batch
            return
        columns = read_columns(unit, schema, config)
        position = 0
        for index, (rows, stored) in enumerate(groups):
            # A unit begins with a row group; who reads a part of it again asks for that which has the row.
            if (unit.start is None or position + rows > unit.start) and (unit.stop is None or position < unit.stop):
                yield from _read_group(file, handle, unit, index, position, rows, stored, columns, config)
            position += rows


def _group(metadata: Any, index: int) -> tuple[int, int]:
    group = metadata.row_group(index)
    stored = sum(group.column(column).total_compressed_size for column in range(group.num_columns))
    if not 0 <= group.num_rows < _MOST_ROWS or stored < 0:
        raise ValueError("impossible sizes")
    return int(group.num_rows), int(stored)


def read_columns(unit: Unit, schema: pa.Schema, config: InputConfig) -> list[str]:
    """What is read of a file with this schema: text, id, pass-through columns, url.

    Raises:
        InputError: it lacks one of them, or its text is no text.
    """
    wanted = require_columns(unit.source, schema.names, config)
    if twice := [name for name in wanted if schema.names.count(name) > 1]:
        raise InputError(
            f"{unit.source}: two columns are called {twice[0]!r}. Remedy: rename one of them, or leave the name out of "
            "input.columns"
        )
    kind = plain_type(schema.field(config.text_key).type)
    if not (is_text(kind) or is_binary(kind) or pa.types.is_null(kind)):
        raise InputError(
            f"{unit.source}: column {config.text_key!r} is of type {kind}, not text. Set input.text_key to a column "
            f"of strings; the file has {', '.join(f'{field.name} ({field.type})' for field in schema)}"
        )
    if schema.names.count("url") == 1 and is_text(plain_type(schema.field("url").type)):
        wanted.append("url")
    return list(dict.fromkeys(wanted))


def _read_group(
    file: pq.ParquetFile,
    handle: BinaryIO,
    unit: Unit,
    index: int,
    first: int,
    rows: int,
    stored: int,
    columns: list[str],
    config: InputConfig,
) -> Iterator[Batch]:
    position, stop = first, first + rows
    try:
        for records in _joined(group_batches(file, index, handle, columns, config.max_document_bytes)):
            if isinstance(records, TooLarge):
                cause = f"too_large: lists of {records.size:,} bytes in a row (input.max_document_bytes)"
                yield quarantined_only(unit.source, [quarantined(unit.source, position, cause, b"")])
                position += 1
                continue
            count = min(records.num_rows, stop - position)
            batches = list(_batches(unit, position, records.slice(0, count), config))
            position += count
            for batch in batches:
                batch.input_bytes = stored * batch.records // rows
                yield batch
        damage = "the row group ends early" if position < stop else None
    except _DAMAGE as error:
        damage = describe(error)
    if damage is not None:
        cause = f"corrupt: row group {index}: {' '.join(damage.split())}"
        for start in range(position, stop, BATCH_ROWS):
            rest = range(start, min(start + BATCH_ROWS, stop))
            yield quarantined_only(unit.source, [quarantined(unit.source, row, cause, b"") for row in rest])


def _joined(batches: Iterable[pa.RecordBatch | TooLarge]) -> Iterator[pa.RecordBatch | TooLarge]:
    """The same rows in batches of at most `BATCH_ROWS` and about `BATCH_BYTES`: few rows are decoded at a time where
    dictionaries are large, and batches of few rows cost every later step more."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    try:
        for some in batches:
            if isinstance(some, TooLarge):
                if waiting:
                    joined, waiting, rows, size = [_one(waiting)], [], 0, 0
                    yield joined.pop()
                yield some
                continue
            batch = plainly(some)  # dictionaries of two batches may differ, and hide how large a batch is
            del some
            waiting.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            full = rows + batch.num_rows > BATCH_ROWS or size + batch.nbytes > BATCH_BYTES  # with another one like it
            del batch  # nothing is held while the next one is decoded
            if full:
                joined, waiting, rows, size = [_one(waiting)], [], 0, 0
                yield joined.pop()
    except _DAMAGE:
        if waiting:
            yield _one(waiting)
        raise
    if waiting:
        yield _one(waiting)


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Stands for a row whose lists decode to more bytes than it may have."""

    size: int


def group_batches(
    file: pq.ParquetFile, index: int, handle: BinaryIO, columns: Sequence[str] | None, most: int
) -> Iterator[pa.RecordBatch | TooLarge]:
    """The rows of a row group, of which no more than about `DECODED_BYTES` are decoded at a time.

    A list of one row can name a large value of its dictionary a million times, so columns of lists that could be that
    large are read as references to their dictionaries, and decoded when it is known what they stand for.

    Args:
        file: whose pages are verified, if they are.
        index: of the row group.
        handle: the file, which can be sought in.
        columns: that are read; None: all.
        most: bytes that the lists of a row may decode to.

    Raises:
        ValueError: a column claims far more values than its bytes can hold.
    """
    size = batch_rows(file.metadata, index, handle, columns)
    hidden = _hidden_lists(file, index, handle, columns)
    if not hidden:
        yield from file.iter_batches(size, row_groups=[index], columns=columns, use_threads=False)
        return
    coded = _coded(file, handle, hidden)
    names = {path.partition(".")[0] for path in hidden}
    for batch in coded.iter_batches(size, row_groups=[index], columns=columns, use_threads=False):
        sizes = sum((_row_bytes(batch[name]) for name in names), np.zeros(batch.num_rows, np.int64))
        if sizes.sum() <= min(most, BATCH_BYTES):
            yield plainly(batch)
            continue
        first = held = 0
        for row, bytes_ in enumerate(sizes.tolist()):
            if row > first and (bytes_ > most or held + bytes_ > BATCH_BYTES):
                yield plainly(batch.take(pa.array(range(first, row))))
                first, held = row, 0
            if bytes_ > most:
                yield TooLarge(bytes_)
                first = row + 1
            else:
                held += bytes_
        if first < batch.num_rows:
            yield plainly(batch.take(pa.array(range(first, batch.num_rows))))


def plainly(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch in the plain types of its columns, with the bytes that it stands for."""
    kinds = [plain_type(column.type) for column in batch.columns]
    columns = [
        column.dictionary_decode()
        if pa.types.is_dictionary(column.type)
        else column
        if column.type == kind
        else column.cast(kind)
        for column, kind in zip(batch.columns, kinds, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _row_bytes(column: pa.Array) -> Int64:
    """int64[n]: bytes that each row of a column stands for."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        value_bytes = np.append(_row_bytes(column.dictionary), 0)  # the last is for null
        return np.asarray(value_bytes[column.indices.fill_null(-1).to_numpy(zero_copy_only=False)])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        ends = np.concatenate(([0], np.cumsum(_row_bytes(column.values))))
        offsets = column.offsets.to_numpy(zero_copy_only=False)
        return np.asarray(ends[offsets[1:]] - ends[offsets[:-1]], np.int64)
    if pa.types.is_fixed_size_list(kind):
        values = column.values.slice(column.offset * kind.list_size, len(column) * kind.list_size)
        return np.asarray(_row_bytes(values).reshape(len(column), kind.list_size).sum(axis=1), np.int64)
    if pa.types.is_struct(kind):
        return np.asarray(sum(map(_row_bytes, column.flatten()), np.zeros(len(column), np.int64)), np.int64)
    if is_text(kind) or is_binary(kind):
        lengths: Int64 = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        return lengths
    return np.full(len(column), 8, np.int64)


def _hidden_lists(file: pq.ParquetFile, index: int, handle: BinaryIO, columns: Sequence[str] | None) -> list[str]:
    """Columns of lists, by their paths, that could decode to more than `DECODED_BYTES`.

    Raises:
        ValueError: one claims far more values than its bytes can hold.
    """
    group = file.metadata.row_group(index)
    hidden = []
    for place in range(group.num_columns):
        column, about = group.column(place), file.metadata.schema.column(place)
        if not about.max_repetition_level or not _is_wanted(column, columns):
            continue
        path, values = column.path_in_schema, column.num_values
        claimed = values * max(8, about.length)
        if claimed > max(DECODED_BYTES, _MOST_PER_BYTE * column.total_compressed_size):
            raise ValueError(f"column {path} claims {values:,} values in lists")
        # Arrow cannot read values that repeat the start of the one before as references.
        in_dictionary = column.physical_type == "BYTE_ARRAY" and "DELTA_BYTE_ARRAY" not in column.encodings
        if in_dictionary and values * _largest_value(handle, column) > DECODED_BYTES:
            largest = _largest_entry(file, index, handle, path)
            if largest is None or values * largest > DECODED_BYTES:
                hidden.append(path)
    return hidden


def _coded(file: pq.ParquetFile, handle: BinaryIO, paths: list[str]) -> pq.ParquetFile:
    return pq.ParquetFile(
        handle, metadata=file.metadata, read_dictionary=paths, page_checksum_verification=True, pre_buffer=False
    )


def _largest_entry(file: pq.ParquetFile, index: int, handle: BinaryIO, path: str) -> int | None:
    """Bytes of the largest value in the dictionary of a column of lists; None where its first row does not show it."""
    rows = _coded(file, handle, [path]).iter_batches(1, row_groups=[index], columns=[path], use_threads=False)
    column = next(rows).column(0)
    while not pa.types.is_dictionary(column.type):
        if pa.types.is_struct(column.type):
            column = column.field(0)
        elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_map(column.type):
            column = column.values
        else:
            return None
    return int(_row_bytes(column.dictionary).max()) if len(column.dictionary) else None


def _is_wanted(column: Any, columns: Sequence[str] | None) -> bool:
    return columns is None or any(f"{column.path_in_schema}.".startswith(name + ".") for name in columns)


def batch_rows(metadata: pq.FileMetaData, index: int, handle: BinaryIO, columns: Sequence[str] | None) -> int:
    """Rows of a row group that hold about `BATCH_BYTES`, by the uncompressed size in the footer, and `DECODED_BYTES` at
    most where each of them is the largest value of its dictionary: a file of some hundred bytes can hold a text of
    megabytes once, and name it in a million rows.

    Args:
        metadata: of the file.
        index: of the row group.
        handle: the file, which can be sought in.
        columns: that are read; None: all.
    """
    group = metadata.row_group(index)
    per_row = max(1, group.total_byte_size // max(1, group.num_rows))
    largest = 1
    for place in range(group.num_columns):
        column = group.column(place)
        if column.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY") and _is_wanted(column, columns):
            largest += _largest_value(handle, column)
    return int(max(1, min(BATCH_ROWS, BATCH_BYTES // per_row, DECODED_BYTES // largest)))


def _largest_value(handle: BinaryIO, column: Any) -> int:
    """What no value of a column chunk is larger than: the bytes of its dictionary, decompressed, as its page's header
    has them (Arrow refuses another size), or of the chunk where values repeat the start of the one before.

    0 where each value is stored as it is. The header is Thrift's compact protocol: the type of page and this size come
    first.
    """
    repeats = "DELTA_BYTE_ARRAY" in column.encodings
    if not repeats and not {"PLAIN_DICTIONARY", "RLE_DICTIONARY"} & set(column.encodings):
        return 0
    handle.seek(column.dictionary_page_offset or column.data_page_offset)
    header = iter(handle.read(16))
    values = []
    for _ in range(2):
        value = shift = 0
        if next(header, None) != _I32_FIELD:
            return int(column.total_uncompressed_size)
        for byte in header:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        values.append(value >> 1)
    return max(values[1], int(column.total_uncompressed_size)) if repeats else values[1]


def _batches(unit: Unit, first: int, records: pa.RecordBatch, config: InputConfig) -> Iterator[Batch]:
    columns = dict(zip(records.schema.names, records.columns, strict=True))
    columns[config.text_key] = _text_column(columns[config.text_key])
    causes = _invalid(columns)
    text = columns[config.text_key]
    lengths = pc.fill_null(pc.binary_length(text), 0).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(lengths > config.max_document_bytes).tolist():
        causes.setdefault(row, f"too_large: text of {lengths[row]:,} bytes (input.max_document_bytes)")
    positions = np.arange(first, first + records.num_rows, dtype=np.int64)
    rejected: list[Quarantined] = []
    if causes:
        raw = text.view(pa.large_binary())
        rejected = [
            quarantined(unit.source, first + row, causes[row], raw[row].as_py() or b"") for row in sorted(causes)
        ]
        keep = np.ones(records.num_rows, dtype=bool)
        keep[list(causes)] = False
        columns = {name: column.filter(pa.array(keep)) for name, column in columns.items()}
        positions, lengths = positions[keep], lengths[keep]
    cuts = list(slices(lengths.tolist())) or [slice(0, 0)]
    counted = 0
    for rows in cuts:
        batch = _batch(unit, positions[rows], {name: column[rows] for name, column in columns.items()}, config)
        batch.quarantined, rejected = rejected, []
        # The last batch answers for all rows that pyarrow delivered and no batch before it has counted.
        last = rows is cuts[-1]
        batch.records = records.num_rows - counted if last else len(batch) + len(batch.quarantined)
        counted += batch.records
        yield batch


def _batch(unit: Unit, positions: Any, columns: dict[str, pa.Array], config: InputConfig) -> Batch:
    source = unit.source
    text = columns[config.text_key]
    reason = np.full(len(positions), None, dtype=object)
    missing = text.is_null().to_numpy(zero_copy_only=False)
    text = text.fill_null("") if text.null_count else text
    blank = pc.or_(pc.equal(pc.binary_length(text), 0), pc.utf8_is_space(text)).to_numpy(zero_copy_only=False)
    reason[blank] = "empty_text"
    reason[missing] = "missing_text"
    if config.id_key is None:
        ids = derived_ids(source, positions.tolist())
    else:
        ids = given_ids(source, positions.tolist(), columns[config.id_key].to_pylist())
    passed = {name: columns[name] for name in passed_columns(list(columns), config)}
    if "url" in passed and is_text(passed["url"].type):
        passed["url"] = passed["url"].cast(pa.string())
    return Batch(
        source=source,
        position=positions,
        id=pa.array(ids, pa.string()),
        text=text,
        reason=reason,
        columns=passed,
    )


def _text_column(column: pa.Array) -> pa.Array:
    """The text column as large_string, not yet known to be UTF-8."""
    if is_binary(column.type):
        return column.cast(pa.large_binary()).view(pa.large_string())
    return column.cast(pa.large_string())


def _invalid(columns: dict[str, pa.Array]) -> dict[int, str]:
    """Row -> cause, of the rows with bytes that are no UTF-8 (which pyarrow does not look at while reading)."""
    causes: dict[int, str] = {}
    for name, column in columns.items():
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            for row in range(len(column)):
                try:
                    column.take(pa.array([row])).validate(full=True)  # a slice of lists would validate all their values
                except pa.ArrowInvalid as error:
                    causes.setdefault(row, f"invalid_utf8: column {name!r}: {error}")
            if not causes:
                raise
    return causes
