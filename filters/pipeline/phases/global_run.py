"""A run of `dedup.scope: global`: begun or resumed, phase by phase, and published."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from filters.errors import RunError
from filters.inspect.histogram import Histogram, SlicedHistogram
from filters.inspect.summary import MAX_VALUES, Histograms
from filters.pipeline.destination import Destination
from filters.pipeline.finish import RunResult, finish
from filters.pipeline.folder import FINISHED, WORK, check_free
from filters.pipeline.ledger import Account, Ledger, too_much_quarantined
from filters.pipeline.observer import Observer
from filters.pipeline.phases.attributes import QUARANTINE, readings
from filters.pipeline.phases.keep_fingerprints import FINGERPRINTS, SETS
from filters.pipeline.phases.local import TRIES, Task, UnitRunner, unfinished
from filters.pipeline.phases.phase import DamagedError, Job, Phase
from filters.pipeline.phases.recipe import PHASES, phase_named
from filters.pipeline.phases.rows import ATTRIBUTES
from filters.pipeline.phases.selection import summary
from filters.pipeline.phases.shard import SHARD
from filters.pipeline.plan import Plan
from filters.pipeline.pool import WorkerPool
from filters.pipeline.state import STATE, check_content, check_same, identity, read_state, write_state
from filters.pipeline.write import slice_names
from filters.read.digest import is_file
from filters.read.remote import is_local

KEPT = ("done", "killers", "failed", "logs")
"""Folders of the work folder that hold no units."""
T = TypeVar("T")
RunUnits = Callable[[Job, Phase, list[int], Callable[[Task], None]], None]


def run_global(
    plan: Plan,
    pool: WorkerPool,
    observer: Observer,
    *,
    force_new: bool,
    run_units: RunUnits | None = None,
    destination: Destination | None = None,
) -> RunResult:
    """Do or go on with a run whose output folder this process holds.

    Args:
        plan: of the run.
        pool: of workers on this machine.
        observer: told of phases and notices.
        force_new: drop an unfinished run instead of going on with it, replace a finished one.
        run_units: does the units of a phase; None: the pool does.
        destination: where the run goes, if that is not the folder it is made in; held by this process.

    Raises:
        FinesieveError: the folder holds another run, or a unit failed. What is done is kept for the next attempt.
    """
    job = prepare(plan, observer, force_new=force_new)

    def in_pool(job: Job, phase: Phase, todo: list[int], on_unit: Callable[[Task], None]) -> None:
        UnitRunner(job, pool, on_unit, observer.notice).run(phase, todo)

    run = _GlobalRun(job, pool, observer, run_units or in_pool)
    try:
        for phase in PHASES:
            run.do(phase)
        return run.healing(lambda: publish_job(plan, job, destination, observer))
    except BaseException:
        if not (job.work / "done").exists():  # nothing to go on from
            shutil.rmtree(job.work, ignore_errors=True)
        raise


def prepare(plan: Plan, observer: Observer, *, force_new: bool) -> Job:
    """The job of a run in its work folder: a new one, or the one that was interrupted if it is the same.

    Raises:
        RunError: the output folder holds something else.
    """
    work, now = plan.output / WORK, identity(plan)
    before = read_state(work)
    begun = (work / "done").exists()
    check_free(plan.output, force_new or begun, plan.config.output.place_key)
    if begun and not force_new:
        if before is None:
            raise RunError(
                f"{work / STATE}: missing or damaged, so nobody can tell which run was interrupted here. Remedy: "
                "restore it, choose another output.path, or start afresh with --force-new"
            )
        check_same(plan.output, before["identity"], now)
        check_content(plan.output, plan.units, readings(Job(work, plan.config, tuple(plan.units), plan.min_score),
                                                        range(len(plan.units))))  # fmt: skip
        done = sum(1 for _ in (work / "done").rglob("*.json"))
        observer.notice(f"going on with the interrupted run in {plan.output}: {done:,} units were done")
        _tidy(work)
    else:
        if work.exists() and before is None:
            observer.notice(f"{work}: left by a run that was killed and cannot be resumed; starting afresh")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
    write_state(work, now, plan.config.executor.model_dump(mode="json"))
    job = Job(work, plan.config, tuple(plan.units), plan.min_score)
    job.save()
    return job


def _tidy(work: Path) -> None:
    """Remove what no entry vouches for: unfinished units, and everything staged for publishing."""
    shutil.rmtree(work / "new", ignore_errors=True)
    for folder in [path for path in work.iterdir() if path.is_dir() and path.name not in KEPT]:
        for unit in list(folder.iterdir()):
            if not (work / "done" / folder.name / f"{unit.name}.json").exists():
                shutil.rmtree(unit, ignore_errors=True) if unit.is_dir() else unit.unlink()


class _GlobalRun:
    """Takes phases one after the other; whatever is found damaged is done again."""

    def __init__(self, job: Job, pool: WorkerPool, observer: Observer, run_units: RunUnits) -> None:
        self.job, self.pool, self.observer, self.run_units = job, pool, observer, run_units
        self._records = self._quarantined = 0

    def do(self, phase: Phase) -> None:
        """Do all units of a phase that are not done yet."""
        job = self.job
        units = self.healing(lambda: phase.units(job))
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
            self._check_quarantine(at_end=True)

    def healing(self, action: Callable[[], T]) -> T:
        """The result of `action`, which reads files of finished units: those found damaged are done again."""
        for _ in range(TRIES * len(PHASES)):
            try:
                return action()
            except DamagedError as error:
                self.observer.notice(f"damaged, done again: {error}")
                UnitRunner(self.job, self.pool, notice=self.observer.notice).run(phase_named(error.phase), [error.unit])
        return action()

    def _book(self, units: Iterable[int]) -> None:
        for unit in units:
            facts = self.job.facts(ATTRIBUTES, unit)
            self._records += facts["records"]
            self._quarantined += sum(facts["quarantined"].values())
        self._check_quarantine(at_end=False)

    def _check_quarantine(self, *, at_end: bool) -> None:
        config = self.job.config.quarantine
        records = max(self._records, config.grace) if at_end else self._records
        if records >= config.grace and self._quarantined > config.max_share * records:
            done = [unit for unit in range(len(self.job.units)) if self.job.entry(ATTRIBUTES, unit)]
            raise too_much_quarantined(input_accounts(self.job, done), self._quarantined, self._records, config)


def input_accounts(job: Job, units: Iterable[int]) -> Ledger:
    """What the phase `attributes` says of these input units: records, skipped and quarantined ones, by input file."""
    ledger = Ledger(unit.source for unit in job.units)
    for unit in units:
        facts = job.facts(ATTRIBUTES, unit)
        ledger.accounts[job.units[unit].source] += Account(
            records=facts["records"], skipped=facts["skipped"], quarantined=Counter(facts["quarantined"])
        )
    return ledger


def publish_job(
    plan: Plan, job: Job, destination: Destination | None = None, observer: Observer | None = None
) -> RunResult:
    """Check the ledger of a job whose phases are all done, and publish its files.

    Raises:
        DamagedError: a file is not what its entry says; its unit must be done again first.
        RunError: the ledger does not add up.
    """
    new = job.work / "new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    ledger = input_accounts(job, range(len(job.units)))
    histograms = Histograms(slice_names(job.config.input.slices))
    rows: Counter[str] = Counter()
    for unit in range(phase_named(SHARD).units(job)):
        facts = job.facts(SHARD, unit)
        for file in facts["files"]:
            _link(job.file(SHARD, unit, file["name"]), new / file["path"])
            kind = file["path"].partition("/")[0]
            if not file.get("turn"):
                rows[kind] += file["rows"]
            for source, account in file.get("sources", {}).items():
                ledger.accounts[source] += Account(
                    kept=account["kept"], removed=Counter(account["removed"]), renamed=account["renamed"]
                )
        if "histograms" in facts:
            _merge(histograms, facts["histograms"])
    lines = _join_quarantine(job, new / QUARANTINE)
    _link_fingerprints(job, new)
    ledger.check(shard_rows=rows["data"], attribute_rows=rows["attributes"], quarantine_rows=lines)
    if job.config.output.rejected and rows["rejected"] != ledger.total.removed.total():
        raise RunError(
            f"rejected: {rows['rejected']} rows were written where the ledger has {ledger.total.removed.total()}. "
            "Nothing was published; please report this"
        )
    decided = summary(job)
    decided.pop("histogram", None)
    read = readings(job, range(len(job.units)))
    result = finish(plan, new, ledger, histograms, read, _versions(job), decided, destination, observer)
    # Renamed first: what a kill leaves from here on is no interrupted run.
    gone = job.work.rename(plan.output / FINISHED)
    shutil.rmtree(gone, ignore_errors=True)
    return result


def _versions(job: Job) -> dict[str, str | None]:
    """Versions of the remote input files when the run began."""
    state = read_state(job.work) or {"identity": {"inputs": {}}}
    remote = {unit.source for unit in job.units if is_file(unit) and not is_local(unit.address)}
    return {source: entry["modified"] for source, entry in state["identity"]["inputs"].items() if source in remote}


def _merge(histograms: Histograms, found: dict[str, Any]) -> None:
    histograms.total.merge(Histogram.from_json(found["total"]))
    for by in list(histograms.slices):
        if by in found["slices"] and len(histograms.slices[by]) <= MAX_VALUES:
            histograms.slices[by].merge(SlicedHistogram.from_json(by, found["slices"][by]))
        else:  # one side file alone has more values than the manifest takes
            del histograms.slices[by]


def _join_quarantine(job: Job, path: Path) -> int:
    lines = 0
    with path.open("wb") as joined:
        for unit in range(len(job.units)):
            content = job.file(ATTRIBUTES, unit, QUARANTINE).read_bytes()
            lines += content.count(b"\n")
            joined.write(content)
    return lines


def _link_fingerprints(job: Job, new: Path) -> None:
    for phase in (phase_named(FINGERPRINTS), phase_named(SETS)):
        for unit in range(phase.units(job)):
            for name in (job.entry(phase.name, unit) or {"files": {}})["files"]:
                _link(job.file(phase.name, unit, name), new / FINGERPRINTS / name)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, so that a run that is killed while it publishes can publish again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
