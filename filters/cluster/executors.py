"""`run_filter`: a run by the executor its config names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filters.config.filter import FilterConfig, RayConfig
from filters.run.engine import RunUnits, run_here
from filters.run.finish import RunResult
from filters.run.observer import Observer
from filters.run.plan import Plan


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
    from filters.cluster.submit import check_idle, run_on_slurm

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
