"""The engine: does the phases of a run, from a config to a finished run folder or to an error with work kept."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filters.config.filter import FilterConfig, OutputConfig
from filters.dedup.clusters import VERDICTS
from filters.dedup.earlier_runs import SELECT
from filters.dedup.losses import LOSSES, check_losses
from filters.errors import RunError
from filters.phases.phase import DamagedError, Job, Phase
from filters.phases.rows import ATTRIBUTES
from filters.run.adopt import check_texts_to_score
from filters.run.attributes import readings
from filters.run.destination import Destination
from filters.run.finish import RunResult, book_input, publish_job
from filters.run.folder import (
    STATE,
    WORK,
    check_content,
    check_free,
    check_same,
    held,
    identity,
    read_state,
    write_state,
)
from filters.run.ledger import Ledger, check_readable
from filters.run.phase_list import PHASES, phase_named, phases_of
from filters.run.plan import Observer, Plan, make_plan
from filters.run.selection import check_kept
from filters.run.shard import check_texts
from filters.run.steps import threads_will_do
from filters.run.units import TRIES, Task, UnitRunner, Workers, unfinished
from filters.run.workers import ThreadPool, WorkerPool

NO_UNITS = ("done", "killers", "failed", "logs")
"""Folders of the work folder that hold no units."""
IN_THREADS = "in-threads"
"""A file in the work folder while threads of the run's own process do its units. Found by the next attempt, it says
that the process was killed, perhaps by a document: then processes do the work, and the document can be looked for."""
T = TypeVar("T")
RunUnits = Callable[[Job, Phase, list[int], Callable[[Task], None]], None]


def run_here(
    config: FilterConfig | Plan,
    observer: Observer,
    *,
    force_new: bool = False,
    check_idle: Callable[[Path], None] | None = None,
    spread: Callable[[], AbstractContextManager[RunUnits]] | None = None,
) -> RunResult:
    """Do a run from this process: begin it or go on with it, do its phases, publish.

    Args:
        config: a config, or a plan made from one.
        observer: told of the plan, of progress, and of what a user should know.
        force_new: replace a finished run, or an unfinished one that is another, in the output folder.
        check_idle: refuses an output folder, which this process holds by then, that jobs in a queue still write to.
        spread: opens what does the units of a phase elsewhere; without it, workers of this process do them.

    Raises:
        FinesieveError: see `make_plan`; or the output folder is occupied, a unit failed, too much was quarantined, the
            disk is full, the ledger does not add up. Nothing is published then, and what is done is kept for the next
            attempt; a run which `force_new` was to replace stays until the new one is complete.
    """
    settings = config.config if isinstance(config, Plan) else config
    output = settings.output
    with ExitStack() as stack:
        # Before anything is loaded: a folder that cannot be written is told at once.
        stack.enter_context(held(output.place, output.place_key, in_passing=output.is_remote))
        if check_idle is not None:
            check_idle(output.place)
        check_vacant(output, force_new=force_new)
        pool: Workers | None = None
        if not threads_will_do(settings) or (output.place / WORK / IN_THREADS).exists():
            # They import and load the model while this process plans.
            pool = stack.enter_context(WorkerPool(settings.executor.workers if spread is None else 1, settings))
        plan = config if isinstance(config, Plan) else make_plan(settings)
        observer.planned(plan)
        destination = None
        if output.is_remote:
            destination = Destination(output)
            stack.enter_context(destination.held(force_new=force_new, notice=observer.notice))
        run_units = None if spread is None else stack.enter_context(spread())
        with disk_errors_told(plan.output):
            job = prepare(plan, observer, force_new=force_new)
            with only_resumable_work_kept(job):
                if pool is None and plan.in_threads:
                    (job.work / IN_THREADS).touch()
                    stack.callback((job.work / IN_THREADS).unlink, missing_ok=True)
                    pool = stack.enter_context(ThreadPool(settings.executor.workers))
                pool = pool or stack.enter_context(WorkerPool(settings.executor.workers, settings))
                engine = Engine(job, pool, observer, run_units)
                return engine.run(lambda: publish_job(plan, job, destination, observer))


@contextmanager
def disk_errors_told(output: Path) -> Iterator[None]:
    """Turn errors of a disk that is full or cannot be written into a sentence.

    Raises:
        RunError: names the output folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise RunError(f"{output}: cannot write: {error}. Nothing was published") from error
        raise


@contextmanager
def only_resumable_work_kept(job: Job) -> Iterator[None]:
    """Remove the work folder of a run that fails before any unit is done: there is nothing to resume from."""
    try:
        yield
    except BaseException:
        if not (job.work / "done").exists():
            shutil.rmtree(job.work, ignore_errors=True)
        raise


def check_vacant(output: OutputConfig, *, force_new: bool) -> None:
    """Refuse an output folder that a run can neither begin in nor go on in.

    Raises:
        RunError: it holds files of something else, or a finished run that is not to be replaced.
    """
    check_free(output.place, force_new or (output.place / WORK / "done").exists(), output.place_key)


def prepare(plan: Plan, observer: Observer, *, force_new: bool) -> Job:
    """The job of a run in its work folder: a new one, or the one that was interrupted if it is the same.

    Raises:
        RunError: the work folder holds another run.
    """
    job = Job(plan.output / WORK, plan.config, tuple(plan.units), plan.min_score, plan.scores, (), plan.models)

    def check() -> None:
        check_content(plan.output, plan.units, readings(job, range(len(plan.units))))

    return begin(job, plan.output, identity(plan), observer, check, force_new=force_new)


def begin(
    job: Job, output: Path, now: dict[str, Any], observer: Observer, check: Callable[[], None], *, force_new: bool
) -> Job:
    """Make the work folder of a job, or go on in it if it is of the same run.

    Args:
        job: of the run.
        output: folder of the run.
        now: what the run is.
        observer: told if it goes on.
        check: refuses a run whose input is not what it was.
        force_new: do not go on.

    Raises:
        RunError: the work folder holds another run.
    """
    work = job.work
    before = read_state(work)
    begun = (work / "done").exists()
    if begun and not force_new:
        if before is None:
            raise RunError(
                f"{work / STATE}: missing or damaged, so nobody can tell which run was interrupted here. Remedy: "
                "restore it, choose another output.path, or start afresh with --force-new"
            )
        check_same(output, before["identity"], now)
        check()
        done = sum(1 for _ in (work / "done").rglob("*.json"))
        observer.notice(f"going on with the interrupted run in {output}: {done:,} units were done")
        _tidy(work)
    else:
        if work.exists() and before is None:
            observer.notice(f"{work}: left by a run that was killed and cannot be resumed; starting afresh")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
    write_state(work, now, job.config.executor.model_dump(mode="json"))
    job.save()
    return job


def _tidy(work: Path) -> None:
    """Remove what no entry vouches for: unfinished units, and everything staged for publishing."""
    shutil.rmtree(work / "new", ignore_errors=True)
    for folder in [path for path in work.iterdir() if path.is_dir() and path.name not in NO_UNITS]:
        for unit in list(folder.iterdir()):
            if not (work / "done" / folder.name / f"{unit.name}.json").exists():
                shutil.rmtree(unit, ignore_errors=True) if unit.is_dir() else unit.unlink()


class Engine:
    """Does phases one after the other; whatever is found damaged is done again.

    Args:
        job: of the run.
        pool: of workers on this machine.
        observer: told of phases and notices.
        run_units: does the units of a phase; None: the pool does.
    """

    def __init__(self, job: Job, pool: Workers, observer: Observer, run_units: RunUnits | None = None) -> None:
        self.job, self.pool, self.observer = job, pool, observer
        self.run_units = run_units or self._in_pool
        self._ledger = Ledger(unit.source for unit in job.units)

    def run(self, publish: Callable[[], T]) -> T:
        """Do what is not done yet, and publish.

        Args:
            publish: called when all phases are done.

        Raises:
            FinesieveError: a unit failed. What is done is kept for the next attempt.
        """
        for phase in phases_of(self.job):
            self._do(phase)
        return self._healing(publish)

    def _in_pool(self, job: Job, phase: Phase, todo: list[int], on_unit: Callable[[Task], None]) -> None:
        UnitRunner(job, self.pool, on_unit, self.observer.notice, self.observer.read).run(phase, todo)

    def _do(self, phase: Phase) -> None:
        job = self.job
        units = self._healing(lambda: phase.units(job))
        todo = unfinished(job, phase, range(units))
        done = units - len(todo)
        if units:
            self.observer.phase(phase.name, done, units)
        if phase.name == ATTRIBUTES:
            waiting = set(todo)
            self._book(unit for unit in range(units) if unit not in waiting)

        def on_unit(task: Task) -> None:
            nonlocal done
            if task[0] != phase.name:
                return
            done += 1
            if phase.name == ATTRIBUTES:
                self._book([task[1]])
            self.observer.phase(phase.name, min(done, units), units)

        if todo:
            self.run_units(job, phase, todo, on_unit)
        if phase.name == ATTRIBUTES:
            if job.run is None:
                self._healing(lambda: check_readable(job))
            self._ledger.check_quarantine(job.config.quarantine, at_end=True)
        if phase.name == VERDICTS and job.added and not job.joined:
            self._healing(lambda: check_texts_to_score(job))
        if phase.name == LOSSES:
            self._healing(lambda: check_losses(job, self.observer.notice))
        if phase.name == SELECT:
            self._healing(lambda: check_kept(job, self.observer.notice))
            if job.run is not None:
                self._healing(lambda: check_texts(job))

    def _healing(self, action: Callable[[], T]) -> T:
        """The result of `action`, which reads files of finished units: those found damaged are done again."""
        for _ in range(TRIES * len(PHASES)):
            try:
                return action()
            except DamagedError as error:
                self.observer.notice(f"damaged, done again: {error}")
                phase = phase_named(error.phase, self.job)
                UnitRunner(self.job, self.pool, notice=self.observer.notice).run(phase, [error.unit])
        return action()

    def _book(self, units: Iterable[int]) -> None:
        for unit in units:
            book_input(self._ledger, self.job, unit)
        self._ledger.check_quarantine(self.job.config.quarantine, at_end=False)
