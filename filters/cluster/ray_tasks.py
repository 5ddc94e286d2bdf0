"""Units's phases done by tasks on a Ray cluster.

datatrove's executor places the tasks (`RayPipelineExecutor`), and returns as if all was well when some failed
(datatrove 0.10.1); what was done is therefore looked up in the work folder.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait

from filters.cluster.phase_step import RunPhase, failures
from filters.config.filter import ExecutorConfig, RayConfig
from filters.errors import MissingExtraError, RunError
from filters.phases.phase import Job, Phase
from filters.run.units import Task, unfinished

_SHOWN = 3
POLL = 2.0
"""Seconds between two looks at how far a phase is."""


@contextlib.contextmanager
def connected(config: RayConfig) -> Iterator[None]:
    """A connection to the cluster.

    Raises:
        MissingExtraError: Ray is not installed.
        RunError: there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("executor.kind ray", "ray", str(error)) from error
    already = ray.is_initialized()
    if not already:
        try:
            if config.address == "local":
                ray.init(include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
            else:
                ray.init(address=config.address, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RunError(
                f"executor.ray.address {config.address!r}: no Ray cluster to be reached: {str(error).splitlines()[0]}. "
                "Remedy: start one (ray start --head), or set executor.ray.address: local"
            ) from error
    try:
        yield
    finally:
        if not already:
            ray.shutdown()


def run_on_ray(job: Job, phase: Phase, todo: list[int], on_unit: Callable[[Task], None]) -> None:
    """Do these units of a phase.

    Args:
        job: of the run; its work folder is seen by all nodes of the cluster.
        phase: whose units.
        todo: the units that are not done yet.
        on_unit: called for each of them that is done.

    Raises:
        RunError: units were not done; names causes. Those that were done stay done.
    """
    from datatrove.executor.ray import RayPipelineExecutor
    from loguru import logger

    logger.disable("datatrove")
    config = job.config.executor
    tasks = min(config.tasks, phase.units(job))
    executor = RayPipelineExecutor(
        [RunPhase(phase.name, job.work.resolve(), config.workers)],
        tasks=tasks,
        workers=config.ray.parallel or tasks,
        cpus_per_task=config.workers,
        mem_per_cpu_gb=config.ray.memory_per_cpu / 2**30,
        logging_dir=str((job.work / "logs" / phase.name / f"{time.time_ns()}").resolve()),
        skip_completed=False,
    )
    _check_fits(config)
    waiting = set(todo)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(executor.run)
        ended = False
        while not ended:
            ended = bool(wait([running], timeout=POLL).done)
            for unit in [unit for unit in waiting if job.entry_path(phase.name, unit).exists()]:
                waiting.discard(unit)
                on_unit((phase.name, unit))
        running.result()
    left = unfinished(job, phase, todo)
    if left:
        causes = failures(job.work, phase.name) or ["a task ended without a word (out of memory, a lost node?)"]
        raise RunError(
            f"phase {phase.name}: {len(left)} of {len(todo)} units were not done:\n"
            + "\n".join(f"  {cause}" for cause in causes[:_SHOWN])
            + "\nNothing was published; what is done is kept, and the same command goes on from there"
        )


def _check_fits(config: ExecutorConfig) -> None:
    """Refuse tasks that no node can ever take: Ray would wait for one.

    Raises:
        RunError: says what a task asks for, and what the largest node has.
    """
    import ray

    cpus, memory = config.workers, config.workers * config.ray.memory_per_cpu
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("memory", 0) >= memory for node in nodes):
        most = max((node.get("CPU", 0) for node in nodes), default=0)
        largest = max((node.get("memory", 0) for node in nodes), default=0)
        raise RunError(
            f"no node of the Ray cluster has {cpus} CPUs and {memory / 2**30:.1f} GiB for a task; the most there is "
            f"are {most:g} CPUs and {largest / 2**30:.1f} GiB. Remedy: lower executor.workers or "
            "executor.ray.memory_per_cpu"
        )
