"""`run_filter`: a run by the executor its config names; jobs of a cluster are handed over, followed and read back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filters.cluster.phase_step import failures
from filters.config.filter import FilterConfig, RayConfig
from filters.errors import ConfigError, RunError
from filters.run.destination import Destination
from filters.run.engine import RunUnits, check_vacant, prepare, run_here
from filters.run.finish import RunResult
from filters.run.folder import MANIFEST, SUBMITTED, WORK, held
from filters.run.ledger import Ledger
from filters.run.plan import Observer, Plan, make_plan
from filters.scores.histogram import Histogram
from filters.storage.location import Location, location


def run_filter(
    config: FilterConfig | Plan | str | Path, *, force_new: bool = False, observer: Observer | None = None
) -> RunResult:
    """Read, deduplicate, score and shard everything the config names; a run that was interrupted goes on.

    Args:
        config: a config, a plan made from one, or the path of a YAML file.
        force_new: replace a finished run, or an unfinished one that is another, in the output folder.
        observer: told of the plan, of progress, and of what a user should know.

    Raises:
        FinesieveError: see `filters.run.engine.run_here`; or the cluster cannot be reached or refuses.
    """
    from filters.cluster.executors import check_idle, run_on_slurm

    observer = observer or Observer()
    if not isinstance(config, FilterConfig | Plan):
        config = FilterConfig.load(config)
    executor = (config.config if isinstance(config, Plan) else config).executor
    if executor.kind == "slurm":
        return run_on_slurm(config, observer, force_new=force_new)
    spread = (lambda: _on_ray(executor.ray)) if executor.kind == "ray" else None
    return run_here(config, observer, force_new=force_new, check_idle=check_idle, spread=spread)


@contextmanager
def _on_ray(config: RayConfig) -> Iterator[RunUnits]:
    from filters.cluster.ray_tasks import connected, run_on_ray

    with connected(config):
        yield run_on_ray


POLL = 3.0
"""Seconds between two looks at the queue."""
VANISHED = 30.0
"""Jobs that left the queue so many seconds ago without a manifest have failed (a shared file system may lag)."""
_SHOWN = 3


def check_idle(output: Path) -> None:
    """Refuse to touch a run that has jobs in a queue.

    Raises:
        RunError: names the jobs.
    """
    work = output / WORK
    if not (work / SUBMITTED).exists():
        return
    from filters.cluster.slurm import Submission

    submission = Submission.load(work / SUBMITTED)
    alive = submission.states()
    if alive:
        ids = " ".join(job for phase in alive for job in submission.jobs[phase])
        raise RunError(
            f"{output}: jobs {ids} of this run are still in Slurm's queue. Remedy: wait (finesieve status {output}), "
            f"or: scancel {ids}"
        )


def submit_run(config: FilterConfig | Plan, observer: Observer, *, force_new: bool = False) -> Plan:
    """Plan a run and hand its phases to Slurm; return as soon as they are in the queue.

    Raises:
        FinesieveError: see `make_plan`; or the executor is another, the output folder holds something else, jobs of
            this run are in the queue already, Slurm refuses.
    """
    from filters.cluster.slurm import check_commands, submit

    kind = (config.config if isinstance(config, Plan) else config).executor.kind
    if kind != "slurm":
        raise ConfigError(
            f"--submit hands a run over to Slurm, and executor.kind is {kind}. Remedy: set executor.kind: slurm, or "
            "leave --submit out"
        )
    check_commands()
    settings = (config.config if isinstance(config, Plan) else config).output
    with ExitStack() as stack:
        stack.enter_context(held(settings.place, settings.place_key, in_passing=settings.is_remote))
        check_idle(settings.place)
        check_vacant(settings, force_new=force_new)
        plan = config if isinstance(config, Plan) else make_plan(config)
        observer.planned(plan)
        destination = Destination(settings) if settings.is_remote else None
        if destination is not None:
            stack.enter_context(destination.held(force_new=force_new, notice=observer.notice))
        submission = submit(prepare(plan, observer, force_new=force_new), plan.output / WORK / SUBMITTED)
        if destination is not None:
            destination.park()
    jobs = [job for some in submission.jobs.values() for job in some]
    observer.notice(
        f"{len(submission.jobs)} phases submitted, jobs {jobs[0]} to {jobs[-1]}. "
        f"Follow them: finesieve status {plan.config.output.path}"
    )
    return plan


def run_on_slurm(config: FilterConfig | Plan, observer: Observer, *, force_new: bool = False) -> RunResult:
    """Submit a run and wait for its end.

    Raises:
        FinesieveError: as `submit_run`; or a task failed. What is done is kept, and the same command goes on.
    """
    from filters.cluster.slurm import Submission
    from filters.cluster.status import read_status

    plan = submit_run(config, observer, force_new=force_new)
    submission = Submission.load(plan.output / WORK / SUBMITTED)
    gone_since: float | None = None
    while (plan.output / WORK / SUBMITTED).exists():
        for phase in read_status(plan.output).phases:
            if phase.done and phase.units:
                observer.phase(phase.name, phase.done, phase.units)
        if submission.states():
            gone_since = None
        else:
            gone_since = gone_since or time.monotonic()
            if time.monotonic() - gone_since > VANISHED:
                raise _failed(plan.output, submission.jobs)
        time.sleep(POLL)
    return load_result(location(plan.config.output.path, plan.config.output.storage_options))


def load_result(path: Location) -> RunResult:
    """A finished run, read back from its folder."""
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    shards = [path / entry["path"] for entry in manifest["files"] if entry["path"].startswith("data/")]
    histogram = Histogram.from_json(manifest["histogram"])
    return RunResult(path, Ledger.from_json(manifest["ledger"]), histogram, shards, manifest)


def _failed(output: Path, phases: dict[str, list[str]]) -> RunError:
    lines = []
    for phase in phases:
        causes = failures(output / WORK, phase)
        lines += [f"  phase {phase}: {cause}" for cause in causes[:_SHOWN]]
        if len(causes) > _SHOWN:
            lines.append(f"  phase {phase}: {len(causes) - _SHOWN} more tasks failed")
    why = "\n".join(lines) or "  no task left word: killed by Slurm (time, memory), or a node was lost"
    return RunError(
        f"{output}: the jobs of this run have ended, and it is not finished:\n{why}\n"
        f"Logs: {output / WORK / 'logs'}. What is done is kept, and the same command goes on from there"
    )
