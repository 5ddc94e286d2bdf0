"""One unit of input to batches of documents, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator

from filters.config.filter import InputConfig
from filters.read.batch import Batch
from filters.read.local import Reading
from filters.read.unit import Unit


def read_unit(unit: Unit, config: InputConfig, reading: Reading | None = None) -> Iterator[Batch]:
    """Batches of at most 1,000 documents and about 32 MB of text, in input order.

    Every batch accounts for its records: `records == len(batch) + len(batch.quarantined)`.

    Args:
        unit: of the input.
        config: of the input it belongs to.
        reading: told of a local file what was read of it.

    Raises:
        InputError: the unit cannot be read at all. A remote file that stays unreachable half-way fails its unit and
            the run (what it holds is not damaged, only absent; a resumed run reads the unit again); damaged data
            costs quarantined records instead. Or a local file is not the one that was planned, or changes.
    """
    batches = _batches(unit, config, reading)
    return batches if unit.columns is None or unit.kind == "parquet" else _with_settled(unit, batches)


def _with_settled(unit: Unit, batches: Iterator[Batch]) -> Iterator[Batch]:
    from filters.read.columns import as_settled

    for batch in batches:
        batch.columns = as_settled(batch.columns, unit.columns, unit.source, len(batch))
        yield batch


def _batches(unit: Unit, config: InputConfig, reading: Reading | None) -> Iterator[Batch]:
    if unit.kind == "jsonl":
        from filters.read.jsonl import read_jsonl

        return read_jsonl(unit, config, reading)
    if unit.kind == "parquet":
        from filters.read.parquet import read_parquet

        return read_parquet(unit, config, reading)
    if unit.kind in ("warc", "wet"):
        from filters.read.warc import read_warc

        return read_warc(unit, config, reading)
    if unit.kind == "stream":
        from filters.read.hub import read_stream

        return read_stream(unit, config)
    raise ValueError(f"unit {unit.index} is of unknown kind {unit.kind!r}")
