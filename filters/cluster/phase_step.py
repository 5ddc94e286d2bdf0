"""A phase as a step of a datatrove pipeline, so that datatrove's executors can spread it over a cluster."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from filters.config.filter import ExecutorConfig
from filters.errors import FinesieveError, RunError, without_secrets
from filters.phases.phase import DamagedError, Job, Phase
from filters.run.engine import run_here
from filters.run.ledger import check_readable
from filters.run.phase_list import PHASES, phase_named
from filters.run.plan import Observer
from filters.run.units import UnitRunner, unfinished
from filters.run.workers import WorkerPool
from filters.storage.files import publishing

FAILED = "failed"
_SHOWN = 5


def tasks_of(job: Job, phase: Phase) -> int:
    """How many tasks a phase is given: as many as configured, but no more than it has units, where that is known."""
    try:
        return min(job.config.executor.tasks, phase.units(job))
    except DamagedError:  # the phases that decide it are not done yet
        return job.config.executor.tasks


def failures(work: Path, phase: str) -> list[str]:
    """Why tasks of a phase failed that have not succeeded since, by number of the task."""
    found = []
    for path in sorted((work / FAILED / phase).glob("*.json")):
        try:
            found.append(str(json.loads(path.read_text())["cause"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


class _Task(PipelineStep):
    """Work of a run that leaves word where it fails: datatrove's own logs end on the node or in a file per task."""

    type = "FINESIEVE"

    def __init__(self, name: str, work: Path) -> None:
        super().__init__()
        self.name, self.work = name, work

    def run(self, data: Iterable[Any] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Do this task's part; yield nothing.

        Raises:
            FinesieveError: it failed; what was done before stays done.
        """
        path = self.work / FAILED / self.name / f"{rank:06d}.json"
        try:
            self.do(rank, world_size)
        except Exception as error:
            cause = str(error) if isinstance(error, FinesieveError) else f"{type(error).__name__}: {error}"
            cause = without_secrets(cause)
            path.parent.mkdir(parents=True, exist_ok=True)
            with publishing(path) as temporary:
                temporary.write_text(json.dumps({"cause": cause}))
            raise
        path.unlink(missing_ok=True)
        yield from ()

    @abstractmethod
    def do(self, rank: int, world_size: int) -> None:
        """The work of task `rank` of `world_size`."""


class RunPhase(_Task):
    """Task `rank` of `world_size` does the units rank, rank + world_size, ... of a phase that are not done yet.

    The work is done in worker processes of the task, so that a document that kills one costs neither the task nor the
    unit. Holds names only, so it pickles.

    Args:
        phase: its name.
        work: the work folder, seen by all tasks.
        workers: processes of a task.
    """

    def __init__(self, phase: str, work: Path, workers: int = 1) -> None:
        super().__init__(phase, work)
        self.workers = workers

    def do(self, rank: int, world_size: int) -> None:
        """Do this task's units.

        Raises:
            FinesieveError: the phase before is not complete, nothing in the input could be read, or units failed.
        """
        job, phase = Job.load(self.work), phase_named(self.name)
        self._check_before(job)
        if rank == 0 and self.name == PHASES[1].name:
            check_readable(job)
        todo = unfinished(job, phase, range(rank, phase.units(job), world_size))
        if todo:
            with WorkerPool(min(self.workers, len(todo)), job.config) as pool:
                UnitRunner(job, pool, lambda task: self.stat_update("units")).run(phase, todo)

    def _check_before(self, job: Job) -> None:
        """A cluster may start a job although one it depends on failed in part: an array that was split, a requeue."""
        names = [phase.name for phase in PHASES]
        for phase in PHASES[: names.index(self.name)]:
            missing = [unit for unit in range(phase.units(job)) if not job.entry_path(phase.name, unit).exists()]
            if missing:
                shown = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
                why = "".join(f"\n  {cause}" for cause in failures(job.work, phase.name)[:_SHOWN])
                raise RunError(
                    f"phase {self.name} cannot begin: of phase {phase.name}, units {shown} are not done{why}"
                )


class FinishRun(_Task):
    """Look at all units once more, do again what is damaged, and publish the run.

    Args:
        work: the work folder.
    """

    def __init__(self, work: Path) -> None:
        super().__init__("publish", work)

    def do(self, rank: int, world_size: int) -> None:
        """Publish.

        Raises:
            FinesieveError: a unit cannot be done, or the ledger does not add up.
        """
        job = Job.load(self.work)
        here = ExecutorConfig(workers=job.config.executor.workers)
        config = job.config.model_copy(update={"executor": here})
        here_lies = "work" if config.output.is_remote else "path"
        output = config.output.model_copy(update={here_lies: str(self.work.parent)})
        run_here(config.model_copy(update={"output": output}), Observer())
