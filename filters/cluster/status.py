"""`finesieve status`: how far a run is, read from its folder alone, while it runs anywhere."""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filters.cluster.phase_step import failures
from filters.errors import FinesieveError, RunError
from filters.phases.phase import DamagedError, Job, Phase
from filters.run.folder import LOCK, MANIFEST, SUBMITTED, WORK
from filters.run.phase_list import phases_of
from filters.storage.files import is_locked
from filters.storage.location import Location, RemotePath

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN = 3
State = Literal["finished", "running", "queued", "interrupted", "failed", "unfinished"]


@dataclass(frozen=True)
class PhaseStatus:
    """A phase.

    Attributes:
        units: how many there are; None while earlier phases decide it.
        done: how many have an entry.
        failed: causes of tasks that failed and have not succeeded since.
        queue: what Slurm has its jobs do, "" if it has none.
        eta_s: seconds until its last unit, at the pace so far; None where that is not known.
        cpu_s: CPU seconds of its finished units.
        peak_bytes: largest resident set of a process that did one of them.
    """

    name: str
    units: int | None
    done: int
    failed: tuple[str, ...] = ()
    queue: str = ""
    eta_s: float | None = None
    cpu_s: float = 0.0
    peak_bytes: int = 0


@dataclass(frozen=True)
class RunStatus:
    """A run, finished or not.

    Attributes:
        state: "unfinished" where another machine knows more.
        notice: why something about it could not be found out.
    """

    path: Location
    state: State
    phases: tuple[PhaseStatus, ...] = ()
    notice: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self) | {"path": str(self.path)}


def read_status(path: Location) -> RunStatus:
    """Look at a run's folder: of an address, at what lies there, and at the folder the run is made in if it is here.

    Raises:
        RunError: it holds neither a run nor the beginning of one.
    """
    if isinstance(path, RemotePath):
        return _read_remote(path)
    work = path / WORK
    running = is_locked(path / LOCK)
    try:
        job = Job.load(work)
    except (OSError, ValueError, KeyError, TypeError):
        if (path / MANIFEST).exists() and not running:
            return RunStatus(path, "finished")
        if running:
            return RunStatus(path, "running", notice="it has only just begun")
        raise RunError(
            f"{path}: no run here, finished or begun. Remedy: name the output.path of a filter run"
        ) from None
    queue, notice = _queue(work)
    phases = tuple(_phase(job, phase, queue.get(phase.name, "")) for phase in phases_of(job))
    failed = any(phase.failed for phase in phases) or bool(failures(work, "publish"))
    state: State = "interrupted"
    if running or any("running" in shown for shown in queue.values()):
        state = "running"
    elif queue:
        state = "queued"
    elif failed:
        state = "failed"
    return RunStatus(path, state, tuple(phase for phase in phases if phase.units != 0), notice)


def _read_remote(path: RemotePath) -> RunStatus:
    from filters.run.destination import MARK

    try:
        mark = json.loads((path / MARK).read_bytes())
        host, work = str(mark["host"]), Path(mark["work"])
    except FileNotFoundError:
        if (path / MANIFEST).exists():
            return RunStatus(path, "finished")
        raise RunError(
            f"{path}: no run here, finished or begun. Remedy: name the output.path of a filter run"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path / MARK}: not the mark of a run: {error!r}") from error
    if host == socket.gethostname() or (work / WORK).exists():
        with contextlib.suppress(RunError):  # killed before it began, or after its end
            return replace(read_status(work), path=path)
    from filters.terminal import printable

    where = f"made by process {mark.get('pid')} on {host} in {work}: follow it there (finesieve status {work})"
    return RunStatus(path, "unfinished", notice=printable(where, 500))


def _queue(work: Path) -> tuple[dict[str, str], str]:
    if not (work / SUBMITTED).exists():
        return {}, ""
    from filters.cluster.slurm import Submission

    try:
        return Submission.load(work / SUBMITTED).states(), ""
    except FinesieveError as error:
        return {}, f"the queue cannot be seen from {socket.gethostname()}: {error}"


def _phase(job: Job, phase: Phase, queue: str) -> PhaseStatus:
    name = phase.name
    try:
        units: int | None = phase.units(job)
    except DamagedError:
        units = None
    paths = list((job.work / "done" / name).glob("[0-9]*.json"))
    times = []
    cpu, peak = 0.0, 0
    for path in paths:
        entry = job.entry(name, int(path.stem))
        try:
            times.append(path.stat().st_mtime)
        except OSError:  # done again at this moment
            continue
        cost = (entry or {}).get("cost", {})
        cpu += cost.get("cpu_s", 0.0)
        peak = max(peak, cost.get("peak_bytes", 0))
    eta = None
    if units and 1 < len(times) < units and max(times) > min(times):
        eta = (units - len(times)) * (time.time() - min(times)) / len(times)
    return PhaseStatus(name, units, len(paths), tuple(failures(job.work, name)), queue, eta, cpu, peak)


def status_view(status: RunStatus) -> RenderableType:
    """A run's status for a terminal of 80 columns."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from filters.terminal import printable

    lines: list[RenderableType] = [Text(f"{status.path}: {status.state}", style="bold")]
    if status.notice:
        lines.append(Text(status.notice))
    if status.phases:
        table = Table(box=None, pad_edge=False)
        table.add_column("phase", no_wrap=True)
        for name in ("done", "units", "CPU", "peak", "time left"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("queue")
        for phase in status.phases:
            table.add_row(
                phase.name,
                f"{phase.done:,}",
                "?" if phase.units is None else f"{phase.units:,}",
                _duration(phase.cpu_s) if phase.done else "",
                f"{phase.peak_bytes / 1e6:,.0f} MB" if phase.peak_bytes else "",
                "" if phase.eta_s is None else _duration(phase.eta_s),
                phase.queue or ("FAILED" if phase.failed else ""),
            )
        lines.append(table)
    for phase in status.phases:
        lines += [Text(f"{phase.name} failed: {printable(cause, 500)}") for cause in phase.failed[:_SHOWN]]
        if len(phase.failed) > _SHOWN:
            lines.append(Text(f"{phase.name}: {len(phase.failed) - _SHOWN} more tasks failed"))
    if status.state in ("failed", "interrupted"):
        lines.append(Text("what is done is kept: the same `finesieve filter` command goes on from there"))
    elif status.state == "finished":
        lines.append(Text(f"next: finesieve inspect {shlex.quote(str(status.path))}"))
    return Group(*lines)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
