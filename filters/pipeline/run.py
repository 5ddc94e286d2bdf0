"""`finesieve filter`: from a config to a finished run folder, or to a clear error and no folder."""

from __future__ import annotations

import errno
import shutil
from contextlib import ExitStack, closing
from pathlib import Path

from filters.config import FilterConfig
from filters.errors import RunError
from filters.pipeline.destination import Destination
from filters.pipeline.executor import run_steps, threads_will_do, unit_batches
from filters.pipeline.finish import RunResult, finish
from filters.pipeline.folder import WORK, check_free, held
from filters.pipeline.ledger import Ledger
from filters.pipeline.observer import Observer
from filters.pipeline.plan import Plan, make_plan
from filters.pipeline.pool import WorkerPool
from filters.pipeline.resolve import Book, Collect, Deduplicate, Select, UniqueIds
from filters.pipeline.schedulers.submit import check_idle
from filters.pipeline.shards import read_rows
from filters.pipeline.state import read_state
from filters.pipeline.write import WriteAttributes, WriteQuarantine, WriteShards
from filters.read.digest import input_versions

__all__ = ["RunResult", "run_filter"]


def run_filter(
    config: FilterConfig | Plan | str | Path, *, force_new: bool = False, observer: Observer | None = None
) -> RunResult:
    """Read, deduplicate, score and shard everything the config names.

    With `dedup.scope: global` a run that was interrupted goes on where it was.

    Args:
        config: a config, a plan made from one, or the path of a YAML file.
        force_new: replace a finished run, or an unfinished one that is another, in the output folder.
        observer: told of the plan, of progress, and of what a user should know.

    Raises:
        FinesieveError: see `make_plan`; or the output folder is occupied, a worker died, too much was quarantined, the
            disk is full, the ledger does not add up. Nothing is published then; a run which `force_new` was to
            replace stays until the new one is complete.
    """
    observer = observer or Observer()
    if not isinstance(config, FilterConfig | Plan):
        config = FilterConfig.load(config)
    with ExitStack() as stack:
        plan = config if isinstance(config, Plan) else None
        settings = config.config if isinstance(config, Plan) else config
        whole = settings.dedup.scope == "global"
        kind = settings.executor.kind
        if kind == "slurm":
            from filters.pipeline.schedulers.submit import run_on_slurm

            return run_on_slurm(config, observer, force_new=force_new)
        pool = None
        if whole or (settings.executor.workers > 1 and not threads_will_do(settings)):
            # They import and load the model while this process plans.
            workers = settings.executor.workers if kind == "local" else 1
            pool = stack.enter_context(WorkerPool(workers, settings))
        plan = plan or make_plan(settings)
        if pool is None and settings.executor.workers > 1 and not plan.model.scorer.in_threads:
            pool = stack.enter_context(WorkerPool(settings.executor.workers, settings))
        observer.planned(plan)
        remote = settings.output.is_remote
        stack.enter_context(held(plan.output, settings.output.place_key, in_passing=remote))
        check_idle(plan.output)
        destination = None
        if remote:
            destination = Destination(settings.output)
            stack.enter_context(destination.held(force_new=force_new, notice=observer.notice))
        try:
            if whole:
                from filters.pipeline.phases.global_run import run_global

                assert pool is not None
                run_units = None
                if kind == "ray":
                    from filters.pipeline.schedulers.ray_tasks import connected, run_on_ray

                    stack.enter_context(connected(settings.executor.ray))
                    run_units = run_on_ray
                return run_global(
                    plan, pool, observer, force_new=force_new, run_units=run_units, destination=destination
                )
            return _stream(plan, pool, observer, destination, force_new=force_new)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise RunError(f"{plan.output}: cannot write: {error}. Nothing was published") from error
            raise


def _stream(
    plan: Plan, pool: WorkerPool | None, observer: Observer, destination: Destination | None, *, force_new: bool
) -> RunResult:
    check_free(plan.output, force_new, plan.config.output.place_key)
    work = plan.output / WORK
    if work.exists():
        if read_state(work) is not None and not force_new:
            raise RunError(
                f"{plan.output}: holds an unfinished run of dedup.scope: global. Remedy: go on with it by the same "
                "config, choose another output.path, or start afresh with --force-new"
            )
        observer.notice(
            f"{plan.output}: an interrupted run was here; a streaming run starts afresh (dedup.scope: global resumes)"
        )
        shutil.rmtree(work)
    work.mkdir()
    try:
        return _run_stream(plan, work, pool, observer, destination)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run_stream(
    plan: Plan, work: Path, pool: WorkerPool | None, observer: Observer, destination: Destination | None
) -> RunResult:
    config = plan.config
    versions = input_versions(plan.units, config.input.storage_options)
    spool, new = work / "spool", work / "new"
    for folder in (spool, new, new / "data", new / "attributes"):
        folder.mkdir()
    ledger = Ledger(plan.sources)
    quarantine = WriteQuarantine(new / "quarantine.jsonl")
    attributes = WriteAttributes(new / "attributes", config.input.slices)
    shards = WriteShards(new / "data", config.output)
    batches = unit_batches(config, plan.units, spool, plan.model, pool)
    collected = Collect(batches)
    steps = [
        collected,
        UniqueIds(),
        Deduplicate(config.dedup),
        Select(plan.min_score),
        Book(ledger, config.quarantine, observer.batch),
        quarantine,
        attributes,
        shards,
    ]
    if config.output.rejected:
        (new / "rejected").mkdir()
        steps.append(WriteShards(new / "rejected", config.output, rejected=True))
    with closing(batches):
        run_steps(steps)
    ledger.check(
        shard_rows=sum(read_rows(path) for path in shards.files),
        attribute_rows=sum(read_rows(path) for path in attributes.files),
        quarantine_rows=quarantine.rows,
    )
    return finish(
        plan,
        new,
        ledger,
        attributes.histograms,
        collected.readings,
        versions,
        destination=destination,
        observer=observer,
    )
