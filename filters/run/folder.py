"""The output folder of a run: held by one process, free of anybody else's files, replaced whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filters.errors import RunError
from filters.storage.location import Location
from filters.storage.lock import LockedError, locked
from filters.storage.publish import sync_to_disk

MANIFEST, CARD = "manifest.json", "README.md"
WORK, FINISHED, LOCK = ".work", ".work.finished", ".lock"
"""FINISHED: name of the work folder of a published run while it is being removed."""
SUBMITTED = "submitted.json"
"""File in the work folder with the jobs of a run that was handed to Slurm."""
INPUTS_FROM = ".inputs-relative-to"
"""Says what relative names of inputs in the manifest are relative to; written where there are some. The manifest, which
says nothing of the machine, does not list it, so it holds its own SHA-256."""
PUBLISHED = ("data", "attributes", "fingerprints", "rejected", "quarantine.jsonl", CARD, INPUTS_FROM, MANIFEST)
"""Everything a run puts into its folder; the manifest comes last, so a folder without one is no finished run."""


@contextlib.contextmanager
def held(output: Path, key: str, *, in_passing: bool = False) -> Iterator[None]:
    """Hold a run's folder, which is created if need be; removed again if nothing is in it at the end.

    Args:
        output: the folder.
        key: what names it in a config.
        in_passing: the run goes elsewhere when it is finished: an empty folder is removed whoever made it.

    Raises:
        RunError: another run holds it, or it cannot be created.
    """
    if output.exists() and not output.is_dir():
        raise RunError(f"{output}: exists and is not a folder. Remedy: choose another {key}")
    created = next((parent for parent in reversed([output, *output.parents]) if not parent.exists()), None)
    with contextlib.ExitStack() as stack:
        try:
            output.mkdir(parents=True, exist_ok=True)
            stack.callback(_remove_empty, output, created or (output if in_passing else None))
            stack.enter_context(locked(output / LOCK))
        except LockedError as error:
            who = f" ({error})" if str(error) else ""
            raise RunError(f"{output}: another run is writing here{who}. Remedy: wait for it, or stop it") from None
        except OSError as error:
            raise RunError(f"{output}: cannot write into the output folder: {error.strerror or error}") from error
        shutil.rmtree(output / FINISHED, ignore_errors=True)
        yield


def _remove_empty(output: Path, highest: Path | None) -> None:
    """Remove a folder and those above it up to `highest`, as far as nothing is in them."""
    with contextlib.suppress(OSError):
        for folder in [output, *output.parents] if highest is not None else ():
            folder.rmdir()
            if folder == highest:
                break


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
