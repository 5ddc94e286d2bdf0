"""The steps of an input unit, from reading to scores, as datatrove blocks: adapters from batches to their rooms."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datatrove.pipeline.base import PipelineStep

from filters.config.filter import (
    DecontaminateConfig,
    DedupConfig,
    ExtractConfig,
    FilterConfig,
    HeuristicConfig,
    InputConfig,
    LanguageConfig,
)
from filters.errors import ModelError
from filters.read.batch import Batch
from filters.read.unit import Reading, Unit
from filters.storage.remote import is_local

if TYPE_CHECKING:
    from datatrove.pipeline.filters.base_filter import BaseFilter

    from filters.dedup.fingerprinter import Fingerprinter
    from filters.kernels.language import LanguageIdentifier
    from filters.kernels.packed import PackedText
    from filters.model import QualityModel
    from filters.read.benchmark import Benchmark


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
    guarded = None if config.keep.whatever_score else config.models["score"]
    return [
        ReadUnits(units, config.reads),
        *by_address,
        *([Extract(config.extract)] if any(one.kind == "warc" for one in config.reads) else []),
        *([IdentifyLanguage(config.language, guarded)] if config.language else []),
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


Batches = Iterable[Batch]
KILLED_WORKER = "killed_worker"
"""Cause of documents in quarantine that kill the process which works on them."""


class ReadUnits(PipelineStep):
    """Read the input: rank r of w takes units r, r + w, ... so that one task per unit reads exactly one."""

    type = "FINESIEVE"
    name = "Read"

    def __init__(self, units: Sequence[Unit], inputs: Sequence[InputConfig]) -> None:
        super().__init__()
        self.units = units
        self.inputs = inputs

    def run(self, data: Batches | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches of this rank's units, in order; after a local file's one with what was read."""
        from filters.read.batch import quarantined_only
        from filters.read.units import read_unit

        for unit in self.units[rank::world_size]:
            reading = Reading()
            batches = read_unit(unit, self.inputs[unit.input], reading)
            while True:
                with self.track_time("batch"):
                    batch = next(batches, None)
                if batch is None:
                    break
                self.stat_update("records", value=batch.records, unit="batch")
                yield batch
            if reading.stamp is not None:
                last = quarantined_only(unit.source, ())
                last.reading = Reading(reading.stamp, reading.digest)
                yield last


class SetAside(PipelineStep):
    """Quarantine the documents that are known to kill workers, before anything is done with them."""

    type = "FINESIEVE"
    name = "Set aside"

    def __init__(self, killers: Mapping[int, str]) -> None:
        super().__init__()
        self.killers = killers

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches without them."""
        positions = np.fromiter(self.killers, dtype=np.int64, count=len(self.killers))
        for batch in data:
            rows = np.flatnonzero(np.isin(batch.position, positions)).tolist()
            if rows:
                content = batch.text if batch.html is None else batch.html
                first = [content[row].as_py() for row in rows]
                causes = [f"{KILLED_WORKER}: {self.killers[int(batch.position[row])]}" for row in rows]
                batch.quarantine(rows, causes, [raw if isinstance(raw, bytes) else raw.encode() for raw in first])
            yield batch


class _BatchStep(PipelineStep):
    """A step that changes batches in place."""

    type = "FINESIEVE"

    @abstractmethod
    def apply(self, batch: Batch) -> None:
        """Work on one batch."""

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the same batches, changed in place."""
        for batch in data:
            with self.track_time("batch"):
                self.apply(batch)
            yield batch


class Extract(_BatchStep):
    """Main text of HTML payloads."""

    name = "Extract"

    def __init__(self, config: ExtractConfig) -> None:
        super().__init__()
        self.config = config

    def apply(self, batch: Batch) -> None:
        """Set `text` where the batch carries payloads."""
        if batch.html is not None:
            from filters.read.extract import extract

            extract(batch, self.config)


class IdentifyLanguage(_BatchStep):
    """Attributes `language` (object[n], None where unknown) and `language_score` (float32[n]).

    Args:
        config: what is kept.
        model: what will score the documents, as for `QualityModel.load`; None: no language is unmeasured.
    """

    name = "Language"

    def __init__(self, config: LanguageConfig, model: str | None = None) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self._identifier: LanguageIdentifier | None = None
        self._measured: tuple[str, ...] = ()

    def apply(self, batch: Batch) -> None:
        """Identify, then remove what is not in `keep`, not sure enough, or nothing the model was measured on."""
        from filters.kernels.language import LanguageIdentifier
        from filters.kernels.packed import PackedText
        from filters.model.folder import measured_languages

        if self._identifier is None:
            self._identifier = LanguageIdentifier.bundled()
            self._measured = () if self.model is None else measured_languages(self.model)
        alive = batch.alive
        codes = np.full(len(batch), None, dtype=object)
        scores = np.zeros(len(batch), dtype=np.float32)
        codes[alive], scores[alive] = self._identifier.identify(
            PackedText.from_arrow(batch.text.filter(pa.array(alive)))
        )
        batch.attributes |= {"language": codes, "language_score": scores}
        if self.config.keep:
            wanted = np.fromiter((code in self.config.keep for code in codes), dtype=bool, count=len(batch))
            batch.remove(~wanted, "language")
        batch.remove(scores < self.config.min_score, "language_unsure")
        if self.config.unmeasured == "drop" and self._measured:
            known = (None, *self._measured)
            batch.remove(np.fromiter((code not in known for code in codes), bool, len(batch)), "language_unmeasured")


class ApplyHeuristic(_BatchStep):
    """One of datatrove's heuristic filters."""

    def __init__(self, config: HeuristicConfig) -> None:
        super().__init__()
        self.config = config
        self.name = config.name
        self._filter: BaseFilter | None = None

    def apply(self, batch: Batch) -> None:
        """Remove what the filter drops."""
        from filters.run.heuristics import apply_filter, load_filter

        if self._filter is None:
            self._filter = load_filter(self.config)
        apply_filter(self._filter, self.config.name, batch)


class Decontaminate(_BatchStep):
    """Remove documents that repeat n words in a row of a benchmark.

    n-grams that more than `max_documents` different texts of a batch have are passed over: of documents that are read
    together, about a thousand, the output must not depend on who reads the others.
    """

    name = "Decontaminate"

    def __init__(self, config: DecontaminateConfig) -> None:
        super().__init__()
        self.config = config
        self._benchmarks: tuple[Benchmark, ...] | None = None

    def apply(self, batch: Batch) -> None:
        """Look for the n-grams of every benchmark."""
        from filters.kernels.packed import PackedText
        from filters.read.benchmark import read_benchmarks

        if self._benchmarks is None:
            self._benchmarks = read_benchmarks(self.config)
        for benchmark in self._benchmarks:
            alive = batch.alive
            found = np.zeros(len(batch), dtype=bool)
            found[alive] = benchmark.ngrams.found_in(PackedText.from_arrow(batch.text.filter(pa.array(alive))))
            most = self.config.max_documents
            if most is not None and found.sum() > most:
                texts = batch.text.filter(pa.array(found))
                times = benchmark.ngrams.tally(PackedText.from_arrow(texts.unique()))
                found[found] = benchmark.ngrams.found_in(PackedText.from_arrow(texts), times, most)
            batch.remove(found, "contaminated")


class Fingerprint(_BatchStep):
    """Attributes `exact` (uint64[n, 2]), `keys` (uint64[n, bands]), `has_signature` (bool[n]), `tokens` (int32[n]).

    Rows of removed documents are zero; there is no `keys` where near duplicates are not looked for.
    """

    name = "Fingerprint"

    def __init__(self, config: DedupConfig, tokenizer: str | None) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self._fingerprinter: Fingerprinter | None = None

    def apply(self, batch: Batch) -> None:
        """Hash the documents that are alive."""
        from filters.dedup.fingerprinter import Fingerprinter
        from filters.kernels.packed import PackedText

        if self._fingerprinter is None:
            self._fingerprinter = Fingerprinter(self.config.exact, self.config.near, self.tokenizer)
        alive = batch.alive
        found = self._fingerprinter.fingerprint(PackedText.from_arrow(batch.text.filter(pa.array(alive))))
        for name, values in (
            ("exact", found.exact),
            ("keys", found.keys),
            ("has_signature", found.has_signature),
            ("tokens", found.tokens),
        ):
            if values.ndim == 2 and not values.shape[1]:
                continue
            column = np.zeros((len(batch), *values.shape[1:]), dtype=values.dtype)
            column[alive] = values
            batch.attributes[name] = column


def load_models(names: Mapping[str, str]) -> dict[str, QualityModel]:
    """Load models by column; one that stands there twice once.

    Raises:
        ModelError: see `QualityModel.load`; names the column of a further score.
    """
    from filters.model import QualityModel

    loaded: dict[str, QualityModel] = {}
    for column, name in names.items():
        try:
            loaded[name] = loaded.get(name) or QualityModel.load(name)
        except ModelError as error:
            raise error if column == "score" else ModelError(f"scores.{column}: {error}") from error
    return {column: loaded[name] for column, name in names.items()}


def predicted(models: Mapping[str, QualityModel], packed: PackedText) -> dict[str, npt.NDArray[Any]]:
    """What models say of n texts, by column: float32[n], of labels object[n]. What models share is done once."""
    from filters.model import predict_together

    distinct = {model.digest: model for model in models.values()}
    found = dict(zip(distinct, predict_together(list(distinct.values()), packed), strict=True))
    columns: dict[str, npt.NDArray[Any]] = {}
    for column, model in models.items():
        one = found[model.digest]
        if one.label is None:
            columns[column] = one.score
        else:
            columns[column] = np.array(model.labels, dtype=object)[one.label]
            columns[f"{column}_score"] = one.score
    return columns


class Score(_BatchStep):
    """An attribute for each model: float32[n], NaN for removed documents; for `score` on the judge's 0-5 scale.

    A model that tells labels apart gives string[n] and, with "_score" at the end of its name, their probabilities.

    Args:
        models: loaded models, or names as for `QualityModel.load`, loaded in the process that runs the step.
    """

    name = "Score"

    def __init__(self, models: Mapping[str, QualityModel] | Mapping[str, str]) -> None:
        super().__init__()
        self.models = models
        self._loaded: dict[str, QualityModel] | None = None

    def apply(self, batch: Batch) -> None:
        """Score the documents that are alive; what models share is done once."""
        from filters.kernels.packed import PackedText

        if self._loaded is None:
            names = {column: model for column, model in self.models.items() if isinstance(model, str)}
            self._loaded = load_models(names) | {
                column: model for column, model in self.models.items() if not isinstance(model, str)
            }
        alive = batch.alive
        packed = PackedText.from_arrow(batch.text.filter(pa.array(alive)))
        for column, values in predicted(self._loaded, packed).items():
            text = values.dtype == np.object_
            spread = np.full(len(batch), None if text else np.nan, dtype=values.dtype)
            spread[alive] = values
            batch.attributes[column] = spread
