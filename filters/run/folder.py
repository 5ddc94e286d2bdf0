"""The output folder of a run: held by one process, free of anybody else's files, replaced whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from filters.errors import RunError
from filters.storage.location import Location
from filters.storage.publish import sync_to_disk

MANIFEST, CARD = "manifest.json", "README.md"
WORK, FINISHED, LOCK = ".work", ".work.finished", ".lock"
"""FINISHED: the work folder of a run that is published, on its way out."""
SUBMITTED = "submitted.json"
"""In the work folder: the jobs of a run that was handed to Slurm."""
INPUTS_FROM = ".inputs-relative-to"
"""Says what relative names of inputs in the manifest are relative to; written where there are some. The manifest, which
says nothing of the machine, does not list it, so it holds its own SHA-256."""
PUBLISHED = ("data", "attributes", "fingerprints", "rejected", "quarantine.jsonl", CARD, INPUTS_FROM, MANIFEST)
"""Everything a run puts into its folder; the manifest comes last, so a folder without one is no finished run."""

HEARTBEAT = 10.0
"""Seconds between signs of life of the holder of a lock."""
STALE = 60.0
"""A lock held by another machine is free when there was no sign of life for so many seconds."""
_LOOKS, _A_LOOK = 200, 0.02
"""How often a lock is asked for that somebody looks at (`finesieve status`), and the seconds between."""
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def held(output: Path, key: str, *, in_passing: bool = False) -> Iterator[None]:
    """Hold a run's folder, which is created if need be; removed again if nothing is in it at the end.

    Args:
        output: the folder.
        key: what names it in a config.
        in_passing: the run goes elsewhere when it is finished: an empty folder is removed whoever made it.

    flock keeps other processes of this machine out, and of all machines where the file system passes it on; where it
    does not (Lustre mounted without flock, some network shares), the holder's name in the lock file and its signs of
    life do.

    Raises:
        RunError: another run holds it, or it cannot be created.
    """
    if output.exists() and not output.is_dir():
        raise RunError(f"{output}: exists and is not a folder. Remedy: choose another {key}")
    created = next((parent for parent in reversed([output, *output.parents]) if not parent.exists()), None)
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = _acquire(output)
    except OSError as error:
        raise RunError(f"{output}: cannot write into the output folder: {error.strerror or error}") from error
    shutil.rmtree(output / FINISHED, ignore_errors=True)
    stop = threading.Event()
    pulse = threading.Thread(target=_beat, args=(output / LOCK, stop), daemon=True)
    pulse.start()
    try:
        yield
    finally:
        stop.set()
        pulse.join()
        with lock, contextlib.suppress(OSError):  # a disk that became read-only, a folder somebody removed
            (output / LOCK).unlink(missing_ok=True)
            if not any(output.iterdir()) and (created or in_passing):
                created = created or output
                for folder in [output, *output.parents]:
                    folder.rmdir()
                    if folder == created or any(folder.parent.iterdir()):
                        break


def is_held(output: Path) -> bool:
    """Whether a process holds a run's folder, here or on another machine."""
    try:
        lock = (output / LOCK).open("r+")
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
        return bool(holder) and holder.get("host") != socket.gethostname() and _age(output, lock) < STALE


def _acquire(output: Path) -> IO[str]:
    path, tries = output / LOCK, _LOOKS
    while True:
        lock, locked = path.open("a+"), True
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if tries and _is_looked_at(lock):
                    tries -= 1
                    lock.close()
                    time.sleep(_A_LOOK)
                    continue
                raise _occupied(output, _holder(lock)) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                locked = False
            # Whoever held it before may have removed the file between our opening and our locking it.
            if not path.exists() or os.fstat(lock.fileno()).st_ino != path.stat().st_ino:
                lock.close()
                continue
            holder = _holder(lock)
            elsewhere = holder.get("host") != socket.gethostname()
            if holder and (elsewhere or not locked) and _age(output, lock) < STALE:
                raise _occupied(output, holder)
            lock.seek(0)
            lock.truncate()
            json.dump({"host": socket.gethostname(), "pid": os.getpid()}, lock)
            lock.flush()
        except BaseException:
            lock.close()
            raise
        return lock


def _is_looked_at(lock: IO[str]) -> bool:
    """Whether what keeps us out is only `is_held` of another process, which shares the lock for a moment."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _occupied(output: Path, holder: dict[str, Any]) -> RunError:
    who = f" (process {holder['pid']} on {holder['host']})" if {"pid", "host"} <= holder.keys() else ""
    return RunError(f"{output}: another run is writing here{who}. Remedy: wait for it, or stop it")


def _holder(lock: IO[str]) -> dict[str, Any]:
    lock.seek(0)
    try:
        holder = json.loads(lock.read())
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _age(output: Path, lock: IO[str]) -> float:
    """Seconds since the last sign of life, by the clock of the file system."""
    probe = output / f"{LOCK}.{socket.gethostname()}.{os.getpid()}"
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink()
    return now - os.fstat(lock.fileno()).st_mtime


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(path)


def check_free(output: Path, force_new: bool, key: str) -> None:
    """Refuse a folder with anything in it that is not known to be a run's: publishing replaces whole folders.

    Args:
        output: the folder.
        force_new: a finished run in it may be replaced.
        key: what names the folder in a config.

    Raises:
        RunError: it holds other files, or a finished run that is not to be replaced.
    """
    present = {entry.name for entry in output.iterdir() if not entry.name.startswith(LOCK)}
    if WORK in present:  # a run that was killed: what lies beside its work folder is its own
        foreign = sorted(present - {*PUBLISHED, WORK})
    elif MANIFEST in present:
        foreign = sorted(_unlisted(output))
    else:
        foreign = sorted(present)
    if foreign:
        raise RunError(
            f"{output}: holds files that are no run's ({', '.join(foreign[:3])}). Remedy: choose an empty {key}"
        )
    if MANIFEST in present and not force_new:
        raise RunError(f"{output}: holds a finished run. Remedy: choose another {key}, or replace it with --force-new")


def _unlisted(output: Path) -> set[str]:
    """Files below a run's folder that its manifest does not name."""
    try:
        listed = {str(entry["path"]) for entry in json.loads((output / MANIFEST).read_text())["files"]}
    except (ValueError, KeyError, TypeError):
        return {MANIFEST}
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    return {name for name in files - listed - {MANIFEST, INPUTS_FROM} if not name.startswith(LOCK)}


def write_input_folder(new: Path, output: Path, folder: str) -> None:
    """Put into `new` what `input_folder` reads when it is published.

    Relative to a run that lies below `folder` or beside it, and may be moved with it; else it is a whole path.

    Args:
        new: what is to be published.
        output: the run's folder.
        folder: that relative names of inputs are relative to; "": the working directory.
    """
    run, start = os.path.abspath(output), os.path.abspath(folder)
    together = run.startswith(os.path.join(os.path.dirname(start), ""))
    (new / INPUTS_FROM).write_bytes(_signed(os.fsencode(os.path.relpath(start, run) if together else start)))


def _signed(path: bytes) -> bytes:
    return path + b"\n" + hashlib.sha256(path).hexdigest().encode() + b"\n"


def input_folder(run: Location) -> str:
    """The folder that relative names of a run's inputs are relative to; "": the working directory.

    Raises:
        RunError: what the run says of it was changed, or cannot be read.
    """
    if not isinstance(run, Path) or not (run / INPUTS_FROM).exists():
        return ""
    try:
        content = (run / INPUTS_FROM).read_bytes()
    except OSError as error:
        raise RunError(f"{run / INPUTS_FROM}: cannot be read: {error.strerror or error}") from error
    path = content.rpartition(b"\n")[0].rpartition(b"\n")[0]
    if content != _signed(path):
        raise RunError(f"{run / INPUTS_FROM}: was changed since it was written. Remedy: remove it, and give --config")
    return os.path.normpath(os.path.join(os.path.abspath(run), os.fsdecode(path)))


def publish(output: Path, new: Path) -> None:
    """Move everything in `new` to its final name, the manifest last; what was there before goes, its manifest first.

    All of it is on disk before the manifest is.
    """
    for path in new.rglob("*"):
        sync_to_disk(path)
    for name in reversed(PUBLISHED):
        entry = output / name
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
    for name in PUBLISHED:
        if (new / name).exists():
            if name == MANIFEST:
                sync_to_disk(output)
            (new / name).rename(output / name)
    sync_to_disk(output)
