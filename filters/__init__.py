"""finesieve: train an educational-quality classifier from an LLM judge's labels and filter web dumps with it.

The names below are the stable Python API; they load on first use, so that `import filters` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filters.cluster.executors import run_filter
    from filters.config.filter import FilterConfig
    from filters.model import QualityModel
    from filters.scores.finished_run import Run
    from filters.scores.threshold import Target

    __version__: str

__all__ = ["FilterConfig", "QualityModel", "Run", "Target", "__version__", "run_filter"]

_ROOMS = {
    "FilterConfig": "filters.config.filter",
    "QualityModel": "filters.model",
    "Run": "filters.scores.finished_run",
    "Target": "filters.scores.threshold",
    "run_filter": "filters.cluster.executors",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("finesieve")
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"finesieve has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
