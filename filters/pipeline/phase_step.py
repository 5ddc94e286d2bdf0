"""A phase as a step of a datatrove pipeline, so that datatrove's executors can spread it over a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from filters.pipeline.local import UnitRunner, unfinished
from filters.pipeline.phases import Job
from filters.pipeline.pool import WorkerPool
from filters.pipeline.recipe import phase_named


class RunPhase(PipelineStep):
    """Task `rank` of `world_size` does the units rank, rank + world_size, ... of a phase that are not done yet.

    The work is done in worker processes of the task, so that a document that kills one costs neither the task nor the
    unit. Holds names only, so it pickles.

    Args:
        phase: its name.
        work: the work folder, seen by all tasks.
        workers: processes of a task.
    """

    type = "FINESIEVE"

    def __init__(self, phase: str, work: Path, workers: int = 1) -> None:
        super().__init__()
        self.name = phase
        self.phase, self.work, self.workers = phase, work, workers

    def run(self, data: Iterable[Any] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Do this task's units; yield nothing.

        Raises:
            FinesieveError: units failed; those that did not are done and stay so.
        """
        job, phase = Job.load(self.work), phase_named(self.phase)
        todo = unfinished(job, phase, range(rank, phase.units(job), world_size))
        if todo:
            with WorkerPool(min(self.workers, len(todo)), job.config) as pool:
                UnitRunner(job, pool, lambda task: self.stat_update("units")).run(phase, todo)
        yield from ()
