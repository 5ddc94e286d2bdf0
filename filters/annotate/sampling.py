"""Draws the documents that are annotated, in one pass, with known probabilities.

Every document gets a uniform number from the seed and its own text, and the lowest win. So with the same seed a larger
random sample contains a smaller one, whose answers are paid for. Copies are drawn at most once: the population is the
documents that are no exact or near duplicate of an earlier one. Which of them is the earlier one depends on the order
of the input; beyond that a sample depends on what the input holds, and not on its order, files or batches.

Inclusion probabilities are kept with the documents, so that a mean over the sample, each document weighted by the
inverse of its probability, estimates the mean over the population without bias (Horvitz and Thompson 1952), whatever
the design. For unequal probabilities the design is priority sampling with rank conditioning (Duffield, Lund and Thorup
2007; Cohen and Kaplan 2007).
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from filters.annotate.config import SampleConfig
from filters.annotate.store import Document
from filters.arrays import Float64, Int64
from filters.config.filter import ExtractConfig, InputConfig, model_at
from filters.errors import ConfigError, InputError

if TYPE_CHECKING:
    from filters.model import QualityModel
    from filters.read.batch import Batch

LENGTHS = (128, 512, 2048, 8192)
"""Upper ends of the strata by length, in estimated tokens."""
SCORE_STEP = 0.5
"""Width of the strata by score."""


@dataclass(frozen=True, slots=True)
class StratumCount:
    """A stratum: how many documents it has, and how many of them were drawn."""

    name: str
    population: int
    drawn: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What was drawn, and from what.

    Attributes:
        documents: in random order, so that what a run answers before a cap stops it is itself drawn by chance.
        design: as in the config.
        records: records read.
        blank: records without text.
        quarantined: records that could not be read.
        other_language: documents left out by `languages`.
        copies: exact and near duplicates of earlier documents.
        population: documents the sample was drawn from; records less all of the above.
        strata: of a stratified design, by name.
    """

    documents: tuple[Document, ...]
    design: str
    records: int
    blank: int
    quarantined: int
    other_language: int
    copies: int
    population: int
    strata: tuple[StratumCount, ...]

    def lines(self) -> list[str]:
        """The sample in words."""
        left = [
            (self.copies, "copies or near copies"),
            (self.blank, "without text"),
            (self.other_language, "in other languages"),
            (self.quarantined, "unreadable"),
        ]
        why = "; left out: " + ", ".join(f"{count:,} {name}" for count, name in left if count)
        found = [
            f"{self.records:,} records, {self.population:,} distinct documents"
            + (why if any(n for n, _ in left) else ""),
            f"{len(self.documents):,} drawn ({self.design})",
        ]
        return found + [f"  {part.name}: {part.drawn:,} of {part.population:,}" for part in self.strata]


def draw(
    inputs: Sequence[InputConfig],
    extract: ExtractConfig,
    config: SampleConfig,
    on_batch: Callable[[Batch], None] | None = None,
) -> Sample:
    """Read the inputs once and draw from them.

    Memory holds the sample's candidates and 200 bytes per distinct document, by which copies are known.

    Args:
        inputs: any of `finesieve filter`.
        extract: how text is taken out of HTML.
        config: what to draw.
        on_batch: told of every batch read, for progress.

    Raises:
        InputError: the input cannot be read, or holds nothing to draw.
        ConfigError: there are more strata than documents to draw.
        ModelError: a model of `config.models` cannot be loaded.
    """
    from filters.read.extract import extract as extract_text
    from filters.read.units import plan_units, read_unit

    sampler = Sampler(config)
    for unit in plan_units(inputs):
        for batch in read_unit(unit, inputs[unit.input]):
            extract_text(batch, extract)
            sampler.add(batch)
            if on_batch is not None:
                on_batch(batch)
    sample = sampler.sample()
    if not sample.documents:
        raise InputError(f"nothing to annotate in this input: {sample.lines()[0]}")
    return sample


class Sampler:
    """Draws from batches as they come.

    Args:
        config: what to draw.

    Raises:
        ModelError: a model cannot be loaded.
    """

    def __init__(self, config: SampleConfig) -> None:
        from filters.dedup.fingerprinter import Fingerprinter
        from filters.kernels.hash_sets import KeySet
        from filters.kernels.language import LanguageIdentifier

        self.config = config
        self._fingerprinter = Fingerprinter(True, config.near)
        self._seen = KeySet()
        self._models: list[QualityModel] = []
        if config.scorers:
            from filters.model import QualityModel

            self._models = [QualityModel.load(model_at(config, name)) for name in config.scorers]
        self._identifier = LanguageIdentifier.bundled()
        self._counts = dict.fromkeys(("records", "blank", "quarantined", "other_language", "copies", "population"), 0)
        self._strata: dict[str, _Lowest] = {}
        self._sizes: dict[str, int] = {}
        # active: one more than is drawn, because the next priority says what probability the drawn ones had
        share = config.random_share if config.design == "active" else 0.0
        self._random = _Lowest(max(1, round(config.size * share)))
        self._preferred = _Lowest(max(1, config.size - self._random.size) + 1)

    def add(self, batch: Batch) -> None:
        """Consider the documents of a batch; its `html`, if any, must be extracted."""
        import pyarrow as pa

        from filters.kernels.packed import PackedText

        alive = np.flatnonzero(batch.alive)
        packed = PackedText.from_arrow(batch.text.take(pa.array(alive)))
        counts = self._counts
        counts["records"] += batch.records
        counts["quarantined"] += len(batch.quarantined)
        counts["blank"] += len(batch) - len(alive)
        languages = self._identifier.identify(packed)[0]
        if self.config.languages:
            spoken = np.isin(languages.astype(str), self.config.languages)
            counts["other_language"] += int((~spoken).sum())
        else:
            spoken = np.ones(len(alive), np.bool_)
        prints = self._fingerprinter.fingerprint(packed)
        keys = np.concatenate([prints.exact[:, :1], prints.keys], axis=1)
        present = np.repeat((spoken & prints.has_signature)[:, None], keys.shape[1], axis=1)
        present[:, 0] = spoken  # a text without words has its exact hash alone
        distinct = spoken & ~self._seen.add(keys, present)
        counts["copies"] += int((spoken & ~distinct).sum())
        counts["population"] += int(distinct.sum())
        rows = np.flatnonzero(distinct)
        if not len(rows):
            return
        kept = PackedText.from_arrow(batch.text.take(pa.array(alive[rows])))
        scores = [model.score_packed(kept).astype(np.float64) for model in self._models]
        languages, texts, config = languages[rows], list(kept), self.config

        def document(k: int) -> Document:
            row = int(alive[rows[k]])
            columns = {name: column[row].as_py() for name, column in batch.columns.items()}
            for name, values in zip(config.scorers, scores, strict=True):
                columns[f"score:{name}"] = round(float(values[k]), 4)
            return Document(
                text=batch.text[row].as_py(),
                id=batch.id[row].as_py(),
                url=columns.pop("url", None),
                source=batch.source,
                position=int(batch.position[row]),
                language=languages[k],
                design=config.design,
                columns=columns,
            )

        chance, everyone = _uniform(texts, config.seed), np.arange(len(rows))
        if config.design == "active":
            weights = np.exp(self._preference(scores) / config.spread)
            self._random.offer(everyone, _uniform(texts, config.seed + 2**32), chance, weights, document)
            self._preferred.offer(everyone, chance / weights, chance, weights, document)
            return
        names = self._names(batch.source, languages, prints.tokens[rows], scores)
        for name in dict.fromkeys(names):
            members = np.flatnonzero(np.array(names, dtype=object) == name)
            self._sizes[name] = self._sizes.get(name, 0) + len(members)
            place = self._strata.setdefault(name, _Lowest(config.size))
            place.offer(members, chance, chance, np.ones(len(rows)), document)
        if len(self._strata) > config.size:
            raise ConfigError(
                f"sample: {len(self._strata):,} strata so far, and {config.size:,} documents to draw. Remedy: a "
                "larger sample.size, or fewer sample.strata"
            )
        # The share of a stratum only falls while more documents come, so what is beyond it can be let go.
        if sum(self._sizes.values()) > config.size:
            most = max(_shares(self._sizes, config.size).values())
            for place in self._strata.values():
                place.shrink(most)

    def _preference(self, scores: list[Float64]) -> Float64:
        """float64[n]: how much a document is preferred, in units of score; only differences matter."""
        if self.config.prefer == "uncertain":
            return -np.abs(scores[0] - self._models[0].keep.min_score)
        if self.config.prefer == "high":
            return scores[0]
        return np.abs(scores[0] - scores[1])

    def _names(
        self,
        source: str,
        languages: npt.NDArray[np.object_],
        tokens: npt.NDArray[np.int32],
        scores: list[Float64],
    ) -> list[str]:
        """Name of the stratum of each document; "" without strata."""
        ends = [f"{low}-{high - 1}" for low, high in itertools.pairwise((0, *LENGTHS))] + [f"{LENGTHS[-1]} and more"]
        parts: list[list[str]] = []
        for stratum in self.config.strata:
            if stratum == "language":
                values = [code or "unknown" for code in languages]
            elif stratum == "source":
                values = [source] * len(languages)
            elif stratum == "length":
                values = [ends[place] for place in np.searchsorted(LENGTHS, tokens, side="right")]
            else:
                lows = np.floor(scores[0] / SCORE_STEP) * SCORE_STEP
                values = [f"{low:.1f}-{low + SCORE_STEP:.1f}" for low in lows]
            parts.append([f"{stratum} {value}" for value in values])
        return [", ".join(names) for names in zip(*parts, strict=True)] if parts else [""] * len(languages)

    def sample(self) -> Sample:
        """What is drawn of all batches so far."""
        found = self._active() if self.config.design == "active" else self._equal()
        strata: tuple[StratumCount, ...] = ()
        if self.config.strata:
            drawn = _shares(self._sizes, self.config.size)
            strata = tuple(
                StratumCount(name, self._sizes[name], drawn[name]) for name in sorted(self._sizes, key=_by_number)
            )
        ordered = tuple(entry.document for entry in sorted(found, key=lambda entry: entry.chance))
        return Sample(documents=ordered, design=self.config.design, strata=strata, **self._counts)

    def _equal(self) -> Iterator[_Entry]:
        """Simple random samples of each stratum: probability n / N."""
        for name, count in _shares(self._sizes, self.config.size).items():
            for entry in self._strata[name].entries[:count]:
                drawn = replace(entry.document, probability=count / self._sizes[name], stratum=name or None)
                yield replace(entry, document=drawn)

    def _active(self) -> Iterator[_Entry]:
        """The union of a random and a priority sample, drawn independently of each other.

        Given everybody else's numbers, document i is in the priority sample of size k if u_i / w_i is below the k-th
        smallest priority of the others: with probability min(1, w_i t), t being that priority. For a document in the
        sample it is the (k+1)-th of all, for another one the k-th.
        """
        population = self._counts["population"]
        size = self._preferred.size - 1
        entries = self._preferred.entries
        preferred = {_origin(entry) for entry in entries[:size]}
        everybody = population <= size
        random = min(1.0, self._random.size / max(population, 1))
        union = {_origin(entry): entry for entry in (*self._random.entries, *entries[:size])}
        for key, entry in union.items():
            if everybody:
                priority = 1.0
            else:
                priority = min(1.0, entry.weight * entries[size if key in preferred else size - 1].priority)
            probability = 1 - (1 - random) * (1 - priority)
            yield replace(entry, document=replace(entry.document, probability=probability))


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    priority: float
    chance: float
    weight: float = field(compare=False)
    document: Document = field(compare=False)


def _origin(entry: _Entry) -> tuple[str | None, int | None]:
    """Source and position of a document, which identify it in its input."""
    return entry.document.source, entry.document.position


class _Lowest:
    """The `size` entries of lowest priority among all that were offered, in order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.entries: list[_Entry] = []

    def offer(
        self, rows: Int64, priorities: Float64, chances: Float64, weights: Float64, document: Callable[[int], Document]
    ) -> None:
        """Consider `rows` of the arrays; `document(row)` is called only for those that get a place."""
        for row in rows[np.argsort(priorities[rows], kind="stable")[: self.size]].tolist():
            if len(self.entries) >= self.size:
                if priorities[row] >= self.entries[-1].priority:
                    return
                self.entries.pop()
            entry = _Entry(float(priorities[row]), float(chances[row]), float(weights[row]), document(row))
            bisect.insort(self.entries, entry)

    def shrink(self, size: int) -> None:
        """Let go of all but the `size` lowest."""
        self.size = min(self.size, size)
        del self.entries[self.size :]


def _by_number(name: str) -> list[tuple[float, str]]:
    """A key that puts "length 512-2047" before "length 2048-8191"."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(float(part), "") if place % 2 else (-1.0, part) for place, part in enumerate(parts)]


def _uniform(texts: Sequence[bytes], seed: int) -> Float64:
    """float64[n] in (0, 1): a number from each text and the seed."""
    import xxhash

    hashes = np.array([xxhash.xxh3_64_intdigest(text, seed) for text in texts], np.uint64)
    return ((hashes >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _shares(sizes: dict[str, int], size: int) -> dict[str, int]:
    """How many to draw of each stratum: all of the small ones, and the same number, give or take one, of the others."""
    shares: dict[str, int] = {}
    left = size
    ordered = sorted(sizes, key=lambda name: (sizes[name], name))
    for place, name in enumerate(ordered):
        shares[name] = min(sizes[name], left // (len(ordered) - place))
        left -= shares[name]
    return shares
