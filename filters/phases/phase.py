"""Phases of a run, and the work folder in which they find each other's files.

A phase is a set of numbered units. A unit is a pure function of the job and of files that earlier phases wrote, and
ends in a folder of files of its own; so a thread, a process, a Slurm task and a Ray task all do the same thing: call
`run_unit`. Nothing else is communicated. The work folder is

    job.json                       config, input units, keep rule: what a unit needs to know
    state.json                     what the run is: a resumed run must be the same
    <phase>/<unit>/                files of a finished unit
    done/<phase>/<unit>.json       its entry: size and checksum of each file, the facts `Phase.run` returned, and what
                                   it cost: CPU seconds, and the peak resident set of the process so far

The checksum is xxh3-128, which costs next to nothing. Of what is to be published the entry also has the SHA-256 that
the manifest will name; it is computed this once.

A unit is done when its entry exists and the files are what the entry says. It works in a folder of another name, which
is renamed before the entry is written. Nothing is synced to disk before a run publishes: after a power failure an entry
may be there and its files not, or not whole, which the checksums tell; waiting for the disk at every unit would cost
small units more than their work.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import resource
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from filters.config.filter import FilterConfig
from filters.errors import RunError
from filters.read.unit import Unit
from filters.scores.rules import Kind
from filters.storage.files import publishing, sha256, xxh3

if TYPE_CHECKING:
    from filters.model import QualityModel

OUTPUT_PHASES = ("fingerprints", "sets", "shard")
"""Phases whose files are published."""


class DamagedError(RunError):
    """A file of a finished unit is not what its entry says: that unit is to be done again."""

    def __init__(self, phase: str, unit: int, what: str) -> None:
        super().__init__(f"phase {phase}, unit {unit}: {what}")
        self.phase, self.unit, self.what = phase, unit, what


class Progress:
    """Reports that a long unit is still working.

    Attributes:
        listener: called with records and stored bytes read since the last call; may raise to stop the unit.
    """

    def __init__(self) -> None:
        self.listener: Callable[[int, int], None] | None = None

    def tell(self, records: int = 0, input_bytes: int = 0) -> None:
        """Say so; every unit does now and then.

        Raises:
            Exception: what the listener raises: the run is over.
        """
        if self.listener is not None:
            self.listener(records, input_bytes)


@dataclass(frozen=True, eq=False)
class Job:
    """What every unit of every phase needs to know. Two jobs are equal only if they are the same object.

    Attributes:
        work: the work folder.
        config: of the run; its executor and output path decide nothing about the bytes.
        units: of the input, in input order; unit n of the phases that follow the input is units[n].
        min_score: threshold of the config, or else of the model; used where neither a share nor a budget is asked for.
        scores: columns of `config.scores`, and those joined from files, and what they hold.
        added: those of `scores` that a finished run did not have.
        loaded: the models of the config by the columns of their scores, where this process has loaded them already.
        run: folder or address of a finished run that is decided anew about; None: the input is read.
        run_options: given to fsspec as they are, if `run` is an address.
    """

    work: Path
    config: FilterConfig
    units: tuple[Unit, ...]
    min_score: float
    scores: Mapping[str, Kind] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    loaded: Mapping[str, QualityModel] | None = None
    run: str | None = None
    run_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def joined(self) -> bool:
        """Whether the added scores are those of a file, and not of models."""
        return bool(self.added) and self.config.scores.keys().isdisjoint(self.added)

    @functools.cached_property
    def progress(self) -> Progress:
        """Told by units of this process how far they are."""
        return Progress()

    def save(self) -> None:
        """Write job.json."""
        with publishing(self.work / "job.json") as temporary:
            data = {
                "config": self.config.short(),
                "folder": self.config.folder,
                "units": [asdict(unit) for unit in self.units],
                "min_score": self.min_score,
                "scores": dict(self.scores),
                "added": self.added,
                "run": self.run,
                "run_options": dict(self.run_options),
            }
            temporary.touch(mode=0o600)  # storage_options may hold credentials
            temporary.write_text(json.dumps(data))

    @classmethod
    def load(cls, work: Path) -> Self:
        """Read what `save` wrote."""
        data = json.loads((work / "job.json").read_text())
        config = FilterConfig.in_folder(data["config"], data["folder"])
        units = tuple(Unit(**unit) for unit in data["units"])
        scores, added = data["scores"], tuple(data["added"])
        return cls(work, config, units, data["min_score"], scores, added, None, data["run"], data["run_options"])

    def folder(self, phase: str, unit: int) -> Path:
        """Folder of a finished unit's files."""
        return self.work / phase / f"{unit:06d}"

    def entry_path(self, phase: str, unit: int) -> Path:
        """Path of a unit's entry."""
        return self.work / "done" / phase / f"{unit:06d}.json"

    def entry(self, phase: str, unit: int) -> dict[str, Any] | None:
        """The entry of a unit, None if it has none that is whole."""
        try:
            content = self.entry_path(phase, unit).read_bytes()
        except OSError:
            return None
        digest, _, body = content.partition(b"\n")
        if digest.decode(errors="replace") != hashlib.sha256(body).hexdigest():
            return None
        entry: dict[str, Any] = json.loads(body)
        return entry

    def enter(self, phase: str, unit: int, entry: dict[str, Any]) -> None:
        """Write the entry of a unit, after its own SHA-256."""
        path = self.entry_path(phase, unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        body = json.dumps(entry).encode()
        with publishing(path, sync=False) as temporary:
            temporary.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)

    def facts(self, phase: str, unit: int) -> dict[str, Any]:
        """What `Phase.run` returned for a finished unit.

        Raises:
            DamagedError: the unit has no entry.
        """
        entry = self.entry(phase, unit)
        if entry is None:
            raise DamagedError(phase, unit, "its entry in done/ is missing or damaged")
        facts: dict[str, Any] = entry["facts"]
        return facts

    def file(self, phase: str, unit: int, name: str, *, verify: bool = True) -> Path:
        """A file of a finished unit.

        Args:
            phase: name of the phase.
            unit: its number.
            name: of the file.
            verify: compare it with its checksum. A reader that takes a part of a file must check that part itself.

        Raises:
            DamagedError: the file is missing, or not what the entry says.
        """
        entry = self.entry(phase, unit)
        expected = None if entry is None else entry["files"].get(name)
        if expected is None:
            raise DamagedError(phase, unit, f"no entry for {name}")
        path = self.folder(phase, unit) / name
        if problem := _differs(path, expected, verify):
            raise DamagedError(phase, unit, problem)
        return path

    def verify(self, phase: str, unit: int) -> bool:
        """Whether a unit is done: it has an entry, and its folder has the files the entry names and no others."""
        entry = self.entry(phase, unit)
        folder = self.folder(phase, unit)
        if entry is None or not folder.is_dir():
            return False
        if {path.name for path in folder.iterdir()} != set(entry["files"]):
            return False
        return not any(_differs(folder / name, expected, True) for name, expected in entry["files"].items())

    def discard(self, phase: str, unit: int) -> None:
        """Forget a unit: its entry first, then its files."""
        self.entry_path(phase, unit).unlink(missing_ok=True)
        shutil.rmtree(self.folder(phase, unit), ignore_errors=True)


class Phase(Protocol):
    """A step of a run, of which every unit can run in another thread, in another process or on another machine."""

    name: str

    def units(self, job: Job) -> int:
        """How many units there are; may be asked once the phases before are done."""

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Do one unit: write its files into `folder` (flat, empty at first); return facts that later phases ask for.

        Must depend on the job and the files of earlier phases only: not on time, machine or order.
        """


def run_unit(job: Job, phase: Phase, unit: int) -> None:
    """Do one unit and enter it as done; whatever is left of an earlier attempt is replaced.

    Raises:
        RunError: the unit was done before and comes out different now, so that what was built on it is not to be
            trusted.
        Exception: what `phase.run` raises; then nothing is left.
    """
    before = job.entry(phase.name, unit)
    final = job.folder(phase.name, unit)
    with _working(final) as folder:
        _forget_peak()
        # Of several threads each answers for itself; the main thread also for what libraries start threads for.
        clock = time.process_time if threading.current_thread() is threading.main_thread() else time.thread_time
        start = clock()
        facts = phase.run(job, unit, folder)
        files = {path.name: _checked(path, phase.name in OUTPUT_PHASES) for path in sorted(folder.iterdir())}
        cost = {"cpu_s": round(clock() - start, 4), "peak_bytes": _peak()}
        if before is not None and before["files"] != files:
            raise RunError(
                f"phase {phase.name}, unit {unit}: was done before and comes out different now: its input has changed, "
                "or something is wrong with this machine. Nothing was published. Remedy: start afresh with --force-new"
            )
        job.discard(phase.name, unit)
        try:
            folder.rename(final)
        except OSError:  # a task that was thought dead has finished the same unit meanwhile
            if not job.verify(phase.name, unit):
                raise
            return
    job.enter(phase.name, unit, {"files": files, "facts": facts, "cost": cost})


def _checked(path: Path, published: bool) -> dict[str, Any]:
    """What an entry says of a file."""
    checked = {"bytes": path.stat().st_size, "xxh3_128": xxh3(path)}
    return checked | {"sha256": sha256(path)} if published else checked


def _forget_peak() -> None:
    """Have Linux begin anew to look for the largest resident set of this process, where it lets us."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Largest resident set since `_forget_peak`; of the process so far where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _working(final: Path) -> Iterator[Path]:
    folder = final.with_name(f".{final.name}.{socket.gethostname()}.{os.getpid()}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _differs(path: Path, expected: dict[str, Any], digest: bool) -> str | None:
    try:
        size = path.stat().st_size
        if size != expected["bytes"]:
            return f"{path.name} has {size:,} bytes, not {expected['bytes']:,}"
        if digest and xxh3(path) != expected["xxh3_128"]:
            return f"{path.name} does not match its checksum"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror or error}"
    return None
