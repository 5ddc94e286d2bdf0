"""Digests of input files, so that a run can say later what exactly it read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from filters.config.filter import InputConfig
from filters.errors import FinesieveError, InputError
from filters.read.local import Reading, file_digest, stamp_of
from filters.read.unit import Unit
from filters.read.units import CHECKED_REMOTE_FILES, CONNECTIONS
from filters.storage.remote import file_system, is_local, retrying

_FILES = ("parquet", "jsonl", "warc", "wet")
_STAMPS = ("ETag", "etag", "e_tag", "LastModified", "last_modified", "mtime", "updated", "md5Hash")
"""What fsspec's file systems call the version of a file."""
_RETRIES = 2


def input_digest(unit: Unit) -> str | None:
    """xxh3-128 of the stored bytes of a unit's input file, in hexadecimal; None for what is no local file."""
    return file_digest(unit.address) if is_local_file(unit) else None


def is_local_file(unit: Unit) -> bool:
    """Whether a unit is of a file of this machine."""
    return is_file(unit) and is_local(unit.address)


def digests_of_read(units: Iterable[Unit], readings: Mapping[str, Iterable[Reading]]) -> dict[str, str | None]:
    """Digests of the input files, by source, if every local one is still what was read of it; None for other input.

    Args:
        units: of the run.
        readings: what its units read, by source.

    Raises:
        InputError: a file is gone, or its content is another; names it.
    """
    digests: dict[str, str | None] = {}
    for unit in units:
        if unit.source in digests:
            continue
        digests[unit.source] = None
        if not is_local_file(unit):
            continue
        read = list(readings.get(unit.source, ()))
        digest = digests[unit.source] = next((some.digest for some in read if some.digest is not None), None)
        try:
            same = {some.stamp for some in read} == {stamp_of(unit.address)} or input_digest(unit) == digest
        except OSError:
            same = False
        if digest is None or not same:
            raise InputError(
                f"{unit.source}: this input file was changed, cut off or replaced after it was read. Nothing was "
                "published. Remedy: restore it and run again, or start afresh with --force-new"
            )
    return digests


def is_file(unit: Unit) -> bool:
    """Whether a unit is of a file, here or behind an address."""
    return unit.kind in _FILES


def input_version(unit: Unit, options: Mapping[str, Any]) -> str | None:
    """What the server says the version of a unit's remote file is: its ETag, or else when it was changed.

    None for what is no remote file, and where the server does not say or cannot be asked (reading it reports that).
    """
    if not is_file(unit) or is_local(unit.address):
        return None
    try:
        system, path = file_system(unit.address, options)

        def ask() -> Mapping[str, Any]:
            system.invalidate_cache()
            info: Mapping[str, Any] = system.info(path)
            return info

        info = retrying(ask, _RETRIES, unit.address)
    except FinesieveError:
        return None
    return next((str(info[key]).strip('"') for key in _STAMPS if info.get(key) is not None), None)


def input_versions(units: Iterable[Unit], inputs: Sequence[InputConfig]) -> dict[str, str | None]:
    """Versions of the remote input files, by source; of the first `CHECKED_REMOTE_FILES`, as planning looks them up."""
    firsts = {unit.source: unit for unit in units if not unit.start and is_file(unit) and not is_local(unit.address)}
    known = list(firsts.values())[:CHECKED_REMOTE_FILES]
    if not known:
        return {}
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        versions = pool.map(lambda unit: input_version(unit, inputs[unit.input].storage_options), known)
        return dict(zip((unit.source for unit in known), versions, strict=True))
