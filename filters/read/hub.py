"""Data sets of the Hugging Face Hub, or local data set folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from filters.config.filter import InputConfig
from filters.errors import InputError, shown
from filters.read.batch import (
    BATCH_BYTES,
    BATCH_ROWS,
    Batch,
    Quarantined,
    batch_of_records,
    quarantined,
    quarantined_only,
    require_columns,
)
from filters.read.unit import SUFFIXES, Unit, stored_file
from filters.storage.remote import describe, is_local

_READERS = {"parquet": "parquet", "json": "jsonl"}
"""Builders of `datasets` whose files finesieve reads itself, and as what."""


def plan_dataset(config: InputConfig) -> list[Unit]:
    """The files of a split where they are Parquet or JSON lines (read by finesieve's own readers, which lose nothing
    and share a file among workers), else one entry of kind "stream" for the whole split.

    Raises:
        InputError: there is no such data set, subset or split, or the Hub cannot be reached.
    """
    import datasets

    assert config.dataset is not None
    address = config.at(config.dataset)
    address = address if os.path.isdir(address) else config.dataset
    name = f"{config.dataset} (subset {config.subset})" if config.subset else config.dataset
    try:
        builder = datasets.load_dataset_builder(address, config.subset, storage_options=config.storage_options or None)
    except Exception as error:  # datasets and huggingface_hub raise many kinds
        raise InputError(
            f"{name}: cannot open this data set: {describe(error)}. input.dataset is the name of a data set on the "
            "Hub or a local folder; a private one needs `hf auth login`"
        ) from error
    data_files = builder.config.data_files
    kind = _READERS.get(type(builder).__module__.rpartition(".")[2])
    splits = sorted(data_files or builder.info.splits or {})
    if splits and config.split not in splits:
        raise InputError(f"{name}: no split {config.split!r}; it has {', '.join(map(str, splits))}")
    files = [str(path) for path in (data_files or {}).get(config.split, ())]
    # A .json file may be one array.
    if (
        kind is None
        or not files
        or not all(path.endswith(SUFFIXES[kind]) for path in files)
        or (kind == "jsonl" and any(path.endswith(".json") or ".json." in path for path in files))
    ):
        return [Unit(0, "stream", f"{name}/{config.split}", address)]
    root = os.path.abspath(address)
    return [
        stored_file(
            kind, os.path.join(config.dataset, os.path.relpath(path, root)) if is_local(path) else shown(path), path
        )
        for path in files[: config.max_files]
    ]


def read_stream(unit: Unit, config: InputConfig) -> Iterator[Batch]:
    """Batches of a split streamed by `datasets`; positions are row indices from 0.

    Raises:
        InputError: the split cannot be opened, or has no column of the wanted names.
    """
    import datasets

    try:
        rows = datasets.load_dataset(
            unit.address,
            config.subset,
            split=config.split,
            streaming=True,
            storage_options=config.storage_options or None,
        )
        iterator = iter(rows)
        names = rows.column_names
    except Exception as error:  # datasets and huggingface_hub raise many kinds
        raise InputError(f"{unit.source}: cannot stream this data set: {describe(error)}") from error
    group: list[dict[str, Any]] = []
    position = size = 0
    failure: str | None = None
    while failure is None:
        try:
            row = next(iterator)
        except StopIteration:
            break
        except (ConnectionError, TimeoutError) as error:
            raise InputError(f"{unit.source}: the stream broke at row {position:,}: {describe(error)}") from error
        except Exception as error:  # the builder's parser met damaged data, and cannot go on after it
            failure = f"corrupt: {' '.join(describe(error).split())}; how many records follow is unknown"
            break
        if position == 0 and not group:
            require_columns(unit.source, names or list(row), config)
        group.append(row)
        text = row.get(config.text_key)
        size += _bytes(text)
        if len(group) == BATCH_ROWS or size >= BATCH_BYTES:
            yield _batch(unit.source, position, group, config)
            position += len(group)
            group, size = [], 0
    if group:
        yield _batch(unit.source, position, group, config)
    if failure is not None:
        yield quarantined_only(unit.source, [quarantined(unit.source, position + len(group), failure, b"")])


def _bytes(text: Any) -> int:
    """Length in UTF-8; 0 for what is no text."""
    if not isinstance(text, str):
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _batch(source: str, first: int, rows: list[dict[str, Any]], config: InputConfig) -> Batch:
    kept: dict[int, dict[str, Any]] = {}
    rejected: list[Quarantined] = []
    for position, row in enumerate(rows, first):
        text = row.get(config.text_key)
        if text is not None and not isinstance(text, str):
            cause = f"text_not_a_string: {config.text_key!r} is a {type(text).__name__}"
        elif _bytes(text) > config.max_document_bytes:
            cause = f"too_large: text of more than {config.max_document_bytes:,} bytes (input.max_document_bytes)"
        else:
            kept[position] = row
            continue
        rejected.append(quarantined(source, position, cause, repr(text)[:200].encode("utf-8", "replace")))
    batch = batch_of_records(source, [*kept], [*kept.values()], config)
    batch.quarantined = rejected
    batch.records = len(rows)
    return batch
