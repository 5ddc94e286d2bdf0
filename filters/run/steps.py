"""The steps of an input unit, from reading to scores, as a pipeline of datatrove blocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from datatrove.pipeline.base import PipelineStep

from filters.config.filter import FilterConfig
from filters.read.batch import Batch
from filters.read.unit import Unit
from filters.run.blocks import (
    ApplyHeuristic,
    Decontaminate,
    Extract,
    Fingerprint,
    IdentifyLanguage,
    ReadUnits,
    Score,
    SetAside,
)
from filters.storage.remote import is_local

if TYPE_CHECKING:
    from filters.model import QualityModel


def unit_steps(
    config: FilterConfig, units: Sequence[Unit], models: Mapping[str, QualityModel] | None = None
) -> list[PipelineStep]:
    """What is done to each unit by itself: everything up to the scores. Loads nothing yet.

    Args:
        config: of the run.
        units: of the input.
        models: the models of the config by column, where they are loaded already.
    """
    by_address = [ApplyHeuristic(heuristic) for heuristic in config.heuristics if heuristic.name == "url"]
    by_text = [ApplyHeuristic(heuristic) for heuristic in config.heuristics if heuristic.name != "url"]
    return [
        ReadUnits(units, config.reads),
        *by_address,
        *([Extract(config.extract)] if any(one.kind == "warc" for one in config.reads) else []),
        *([IdentifyLanguage(config.language, config.models["score"])] if config.language else []),
        *by_text,
        *([Decontaminate(config.decontaminate)] if config.decontaminate else []),
        Fingerprint(config.dedup, config.tokenizer),
        Score(models or config.models),
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
    batches: Iterator[Batch] = iter([batch])
    for step in unit_steps(config, ())[1:]:
        batches = step.run(batches)
    deque(batches, maxlen=0)


def unit_batches(
    steps: Sequence[PipelineStep], unit: int, units: int, set_aside: Mapping[int, str] | None = None
) -> Iterator[Batch]:
    """The batches of an input unit, all steps done.

    Args:
        steps: as `unit_steps` gives them.
        unit: its number.
        units: how many the steps know of.
        set_aside: position -> cause of documents that are quarantined before anything is done with them.
    """
    read, *others = steps
    batches: Iterator[Batch] = read.run(None, rank=unit, world_size=units)
    if set_aside:
        batches = SetAside(set_aside).run(batches)
    for step in others:
        batches = step.run(batches)
    yield from batches


def threads_will_do(config: FilterConfig) -> bool:
    """Whether the workers of a run can be threads of one process, which start at once and share the model.

    So it is where the steps spend their time in kernels and Arrow, and where reading is no waiting. Extraction and
    heuristics are Python; the scorer of a model says of itself whether it is.
    """
    quick = all(
        one.kind in ("parquet", "jsonl") and one.paths_file is None and all(map(is_local, one.paths))
        for one in config.reads
    )
    return quick and not config.heuristics and config.executor.kind == "local"
