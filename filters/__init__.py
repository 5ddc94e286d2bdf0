"""finesieve: train an educational-quality classifier from an LLM judge's labels and filter web dumps with it.

The names below are the stable Python API; they load on first use, so that `import filters` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filters.config import FilterConfig
    from filters.model import QualityModel
    from filters.pipeline.run import run_filter

__all__ = ["FilterConfig", "QualityModel", "run_filter"]

_ROOMS = {"FilterConfig": "filters.config", "QualityModel": "filters.model", "run_filter": "filters.pipeline.run"}


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module 'filters' has no attribute {name!r}")
