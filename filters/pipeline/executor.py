"""The unit pipeline of a run, and how the units of a streaming run are done: in order, never far ahead."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datatrove.pipeline.base import PipelineStep

from filters.config import FilterConfig
from filters.errors import RunError
from filters.pipeline.blocks import (
    ApplyHeuristic,
    Decontaminate,
    Extract,
    Fingerprint,
    IdentifyLanguage,
    ReadUnits,
    Score,
)
from filters.pipeline.phases.phase import Job
from filters.pipeline.pool import WorkerPool
from filters.pipeline.spool import WriteSpool, handed_over, read_spool, spool_path
from filters.pipeline.threads import OrderedMap
from filters.read.batch import Batch
from filters.read.remote import is_local
from filters.read.units import Unit

if TYPE_CHECKING:
    from filters.model import QualityModel

LOOKAHEAD = 2
"""Units a worker may be ahead of the ordered half: bounds the disk the spool takes."""

SPOOL = "spool"
"""What a worker of a streaming run does with a unit."""


def unit_steps(config: FilterConfig, units: Sequence[Unit], model: QualityModel | None = None) -> list[PipelineStep]:
    """What is done to each unit by itself: everything up to the scores. Loads nothing yet.

    Args:
        config: of the run.
        units: of the input.
        model: the model of the config, where it is loaded already.
    """
    by_address = [ApplyHeuristic(heuristic) for heuristic in config.heuristics if heuristic.name == "url"]
    by_text = [ApplyHeuristic(heuristic) for heuristic in config.heuristics if heuristic.name != "url"]
    return [
        ReadUnits(units, config.input),
        *by_address,
        *([Extract(config.extract)] if config.input.kind == "warc" else []),
        *([IdentifyLanguage(config.language)] if config.language else []),
        *by_text,
        *([Decontaminate(config.decontaminate)] if config.decontaminate else []),
        Fingerprint(config.dedup),
        Score(model or config.model),
    ]


def warm(config: FilterConfig) -> None:
    """Load the model and the kernels of a config into this process, by means of a document of one line."""
    text = "A fraction names a part of a whole."
    batch = Batch(
        source="",
        position=np.zeros(1, np.int64),
        id=pa.array([""]),
        text=pa.array([text], pa.large_string()),
        reason=np.full(1, None, dtype=object),
        columns={"url": pa.nulls(1, pa.string())},
    )
    _through(unit_steps(config, ())[1:], batch)


def run_steps(steps: list[PipelineStep], rank: int = 0, world_size: int = 1) -> None:
    """Run datatrove steps as a pipeline, in this process. Errors travel as exceptions."""
    data: Any = None
    for step in steps:
        data = step.run(data, rank, world_size)
    deque(data or (), maxlen=0)


def spool_unit(job: Job, unit: int) -> None:
    """Write the spool file of an input unit; model and kernels stay loaded for the next one."""
    run_steps(_spooling(job), unit, len(job.units))


@functools.lru_cache(maxsize=1)
def _spooling(job: Job) -> list[PipelineStep]:
    return [*unit_steps(job.config, job.units), WriteSpool(job.work)]


def _through(steps: Sequence[PipelineStep], batch: Batch) -> Batch:
    batches: Iterator[Batch] = iter([batch])
    for step in steps:
        batches = step.run(batches)
    (done,) = batches
    return done


def threads_will_do(config: FilterConfig) -> bool:
    """Whether the workers of a streaming run can be threads of one process, which start at once and share the model.

    So it is where the steps spend their time in kernels and Arrow, and where reading is no waiting: one thread reads at
    a time. Extraction and heuristics are Python; the scorer of a model says of itself whether it is.
    """
    given = config.input
    quick = given.kind in ("parquet", "jsonl") and given.paths_file is None and all(map(is_local, given.paths))
    return quick and not config.heuristics and config.dedup.scope == "stream" and config.executor.kind == "local"


def unit_batches(
    config: FilterConfig, units: list[Unit], work: Path, model: QualityModel, pool: WorkerPool | None = None
) -> Generator[Batch, None, None]:
    """Batches of all units behind the unit pipeline, in input order.

    Args:
        config: of the run.
        units: of the input.
        work: folder for the spool of a pool; exists.
        model: of the config; the processes of a pool load their own.
        pool: does the work, and the spool file of a unit is deleted once it is read; without one, threads of this
            process do, as many as there are workers, and with one worker the calling thread: a worker is to keep one
            core busy and not more.

    Raises:
        FinesieveError: a unit failed, or a worker died.
    """
    if pool is not None:
        yield from _spooled(_run_units(config, units, work, pool), work)
        return
    read = ReadUnits(units, config.input).run()
    functions = [_unit_half(unit_steps(config, units, model)[1:]) for _ in range(config.executor.workers)]
    if len(functions) == 1:
        yield from map(functions[0], read)
        return
    with closing(iter(OrderedMap(read, functions, lambda batch: int(batch.text.nbytes)))) as batches:
        yield from batches


def _unit_half(steps: Sequence[PipelineStep]) -> Callable[[Batch], Batch]:
    return lambda batch: handed_over(_through(steps, batch))


def _spooled(ready: Iterable[int], work: Path) -> Iterator[Batch]:
    for unit in ready:
        path = spool_path(work, unit)
        yield from read_spool(path)
        path.unlink()


def _run_units(config: FilterConfig, units: list[Unit], work: Path, pool: WorkerPool) -> Iterator[int]:
    """Have a pool run the unit pipeline for all units; their numbers, in order, as their spool files are complete."""
    job = Job(work, config, tuple(units), min_score=0.0)
    job.save()
    idle = list(range(len(pool)))
    running: dict[int, int] = {}
    done: set[int] = set()
    issued = collected = 0
    while collected < len(units):
        while idle and issued < len(units) and issued < collected + LOOKAHEAD * len(pool):
            worker = idle.pop()
            running[worker] = issued
            pool.send(worker, {"work": str(work), "phase": SPOOL, "unit": issued})
            issued += 1
        if collected in done:
            done.remove(collected)
            yield collected
            collected += 1
            continue
        worker, answer = pool.receive()
        unit = running.pop(worker, -1)
        if answer is None:
            where = f" while it worked on {units[unit].source}" if unit >= 0 else ""
            raise RunError(f"worker {worker} {pool.end_of(worker, where)}. Nothing was published")
        if "error" in answer:
            raise pool.failure(worker, units[answer["unit"]].source, answer)
        done.add(answer["unit"])
        idle.append(worker)
