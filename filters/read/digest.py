"""Digests of input files, so that a run can say later what exactly it read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash

from filters.errors import FinesieveError
from filters.read.remote import file_system, is_local, retrying
from filters.read.units import CHECKED_REMOTE_FILES, CONNECTIONS, Unit

_FILES = ("parquet", "jsonl", "warc", "wet")
_STAMPS = ("ETag", "etag", "e_tag", "LastModified", "last_modified", "mtime", "updated", "md5Hash")
"""What fsspec's file systems call the version of a file."""
_RETRIES = 2
_PIECE = 4 << 20


def input_digest(unit: Unit) -> str | None:
    """xxh3-128 of the stored bytes of a unit's input file, in hexadecimal; None for what is no local file.

    Twenty times faster than SHA-256, and enough to notice a file that is not the one that was read; it is no defence
    against somebody who wants to replace one unnoticed.
    """
    if unit.kind not in _FILES or not is_local(unit.address):
        return None
    digest = xxhash.xxh3_128()
    with Path(unit.address).open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


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


def input_versions(units: Iterable[Unit], options: Mapping[str, Any]) -> dict[str, str | None]:
    """Versions of the remote input files, by source; of the first `CHECKED_REMOTE_FILES`, as planning looks them up."""
    firsts = {unit.source: unit for unit in units if not unit.start and is_file(unit) and not is_local(unit.address)}
    known = list(firsts.values())[:CHECKED_REMOTE_FILES]
    if not known:
        return {}
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        versions = pool.map(lambda unit: input_version(unit, options), known)
        return dict(zip((unit.source for unit in known), versions, strict=True))
