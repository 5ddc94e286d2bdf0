"""Files that appear under their name whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from filters.storage.location import Location


_PIECE = 4 << 20


@contextmanager
def publishing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`; on success it is synced to disk and renamed to `path`, else removed.

    Args:
        path: the final name; its folder must exist.
        sync: fsync the file and its folder before the name appears (not needed for what a crash discards anyway).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        if sync:
            sync_to_disk(temporary)
        temporary.replace(path)
        if sync:
            sync_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_to_disk(path: Path) -> None:
    """fsync a file, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def xxh3(path: Path) -> str:
    """xxh3-128 of a file of this machine, in hexadecimal: it notices damage, and costs next to nothing."""
    digest = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def sha256(path: Location) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
