"""Local files that appear whole or not at all, and a lock: one process at a time, as long as a context lasts.

flock keeps other processes of this machine out, and of all machines where the file system passes it on; where it does
not (Lustre mounted without flock, some network shares), the holder's name in the file and its signs of life do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

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


HEARTBEAT = 10.0
"""Seconds between signs of life of the holder of a lock."""
STALE = 60.0
"""A lock held by another machine is free when there was no sign of life for so many seconds."""
_LOOKS, _A_LOOK = 200, 0.02
"""How often a lock is asked for that another process looks at (`is_locked`), and the seconds between."""
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class LockedError(Exception):
    """Another process holds a lock; the message names it, or is empty."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock; its file is removed at the end.

    Args:
        path: of the lock file, in a folder that exists.

    Raises:
        LockedError: another process holds it.
        OSError: the file cannot be written.
    """
    lock = _acquire(path)
    stop = threading.Event()
    pulse = threading.Thread(target=_beat, args=(path, stop), daemon=True)
    pulse.start()
    try:
        yield
    finally:
        stop.set()
        pulse.join()
        with lock, contextlib.suppress(OSError):  # a disk that became read-only, a folder somebody removed
            path.unlink(missing_ok=True)


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock, here or on another machine."""
    try:
        lock = path.open("r+")
    except OSError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        holder = _holder(lock)
        return bool(holder) and holder.get("host") != socket.gethostname() and _age(path, lock) < STALE


def _acquire(path: Path) -> IO[str]:
    tries = _LOOKS
    while True:
        lock, has_flock = path.open("a+"), True
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if tries and _is_looked_at(lock):
                    tries -= 1
                    lock.close()
                    time.sleep(_A_LOOK)
                    continue
                raise _occupied(_holder(lock)) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                has_flock = False
            # Whoever held it before may have removed the file between our opening and our locking it.
            if not path.exists() or os.fstat(lock.fileno()).st_ino != path.stat().st_ino:
                lock.close()
                continue
            holder = _holder(lock)
            elsewhere = holder.get("host") != socket.gethostname()
            if holder and (elsewhere or not has_flock) and _age(path, lock) < STALE:
                raise _occupied(holder)
            lock.seek(0)
            lock.truncate()
            json.dump({"host": socket.gethostname(), "pid": os.getpid()}, lock)
            lock.flush()
        except BaseException:
            lock.close()
            raise
        return lock


def _is_looked_at(lock: IO[str]) -> bool:
    """Whether what keeps us out is only `is_locked` of another process, which shares the lock for a moment."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _occupied(holder: dict[str, Any]) -> LockedError:
    return LockedError(f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= holder.keys() else "")


def _holder(lock: IO[str]) -> dict[str, Any]:
    lock.seek(0)
    try:
        holder = json.loads(lock.read())
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _age(path: Path, lock: IO[str]) -> float:
    """Seconds since the last sign of life, by the clock of the file system."""
    probe = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}")
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink()
    return now - os.fstat(lock.fileno()).st_mtime


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(path)
