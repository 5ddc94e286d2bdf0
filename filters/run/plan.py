"""Resolves a filter run before it starts: inputs, units, steps and model; and the interface it reports progress to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.config.filter import FilterConfig
from filters.errors import ConfigError
from filters.phases.rows import ATTRIBUTE_FIELDS, OWN_FIELDS, REJECTED_FIELDS, SCHEMA, rule_of
from filters.read.jsonl import check_keys
from filters.read.unit import Unit
from filters.read.units import plan_units
from filters.run.steps import load_models
from filters.scores.rules import COLUMNS, DECIDED, Kind

if TYPE_CHECKING:
    from filters.model import QualityModel
    from filters.read.benchmark import Benchmark


@dataclass(frozen=True)
class Plan:
    """A config with its inputs found and its model loaded.

    Attributes:
        config: as validated.
        units: pieces of input a worker takes at a time, in input order.
        models: what scores the documents, by the column of the score; that of `score` decides.
        min_score: the keep rule, from the config or else the model.
        output: the folder the run is made in: its own, or where output.path is an address, that of `output.work`.
        benchmarks: what `decontaminate` removes documents for.
        not_taken: a line for each input folder that holds files that are not read: how many, and of which suffix;
            and one for files that are named more than once.
    """

    config: FilterConfig
    units: list[Unit]
    models: Mapping[str, QualityModel]
    min_score: float
    output: Path
    benchmarks: tuple[Benchmark, ...] = ()
    not_taken: tuple[str, ...] = ()

    @property
    def model(self) -> QualityModel:
        """The model of the column `score`."""
        return self.models["score"]

    @property
    def scores(self) -> dict[str, Kind]:
        """Columns of the further models, and what they hold."""
        return score_columns(self.models)

    @property
    def in_threads(self) -> bool:
        """Whether threads of one process can score side by side."""
        return all(model.scorer.in_threads for model in self.models.values())

    @property
    def sources(self) -> dict[str, int | None]:
        """Stored bytes of each input file, in input order; None where unknown."""
        sizes: dict[str, int | None] = {}
        for unit in self.units:
            before = sizes.get(unit.source, 0)
            sizes[unit.source] = None if unit.size is None or before is None else before + unit.size
        return sizes

    @property
    def input_bytes(self) -> int | None:
        """Stored bytes of all input, None if any size is unknown."""
        sizes = list(self.sources.values())
        return None if any(size is None for size in sizes) else sum(size or 0 for size in sizes)

    def steps(self) -> list[tuple[str, str]]:
        """(step, what it will do) in the order documents meet them."""
        config, rows = self.config, []
        rows += [("read", f"{one.kind}, text key {one.text_key!r}") for one in config.reads]
        rows += [(f"heuristic {h.name}", "by address") for h in config.heuristics if h.name == "url"]
        if any(one.kind == "warc" for one in config.reads):
            rows.append(("extract", f"main text by {config.extract.engine}"))
        if config.language:
            keep = ", ".join(config.language.keep) or "annotate only"
            rows.append(("language", f"{keep}; at least {config.language.min_score:g}"))
            measured = ", ".join(self.model.metadata.measured_on)
            unmeasured = "keep" if config.keep.whatever_score else config.language.unmeasured
            what = f"{unmeasured} what {self.model.name} was not measured on (it was on {measured})"
            rows.append(("", what if measured else f"{self.model.name} does not say what languages it was measured on"))
        elif self.model.metadata.measured_on:
            only = ", ".join(self.model.metadata.measured_on)
            rows.append(
                ("language", f"not identified; scores are measured on {only} alone (language: {{}} drops others)")
            )
        rows += [(f"heuristic {h.name}", f"words by {h.tokenizer}") for h in config.heuristics if h.name != "url"]
        rows += [
            ("decontaminate", f"{b.path}: {b.ngrams.size} words in a row of its {b.items:,} items")
            for b in self.benchmarks
        ]
        if config.tokens.tokenizer is not None:
            rows.append(("tokens", f"counted by {config.tokens.tokenizer}"))
        near = config.dedup.near
        rows.append(("deduplicate", "exact: xxh3-128 of normalised text" if config.dedup.exact else "exact: off"))
        if near:
            rows.append(("", f"near: MinHash, {near.shingle}-word shingles, {near.bands} bands x {near.rows} rows"))
            rows.append(("", f"near: removed where {near.measure} to a kept document is at least {near.similarity:g}"))
        if near or config.dedup.exact:
            stays = {"best": "the best", "first": "the first", "none": "none"}[config.dedup.keep]
            rows.append(("", f"of copies {stays} stays"))
        rows += [("", f"against {run}") for run in config.dedup.against]
        rows.append(("score", f"{self.model.name} (digest {self.model.digest[:12]})"))
        rows += [("", f"{name}: {self.models[name].name} (digest {self.models[name].digest[:12]})") for name in
                 config.scores]  # fmt: skip
        rows.append(("keep", self._keep_rule()))
        if config.output.repeat:
            rows.append(("repeat", f"by {config.output.repeat.by}, {config.output.repeat.max} times at most"))
        if config.output.buckets:
            rows.append(("buckets", ", ".join(config.output.buckets.names)))
        size = config.output.shard_size
        shards = "64 to 512 MiB" if size is None else f"{size / 2**20:.0f} MiB"
        rows.append(("shard", f"{config.output.format}, {shards} of text a shard"))
        return rows

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "sources": self.sources,
            "units": len(self.units),
            "input_bytes": self.input_bytes,
            "not_taken": list(self.not_taken),
            "steps": [list(step) for step in self.steps()],
            "model": {"name": self.model.name, "digest": self.model.digest},
            "scores": stated_scores(self.models),
            "min_score": self.min_score,
            "executor": self.config.executor.model_dump(mode="json"),
            "output": str(self.output),
        }

    def _keep_rule(self) -> str:
        keep = self.config.keep
        shares = keep.quota.shares if keep.quota else {}
        quota = "".join(f"; {value} at most {share:.0%} of it" for value, share in shares.items())
        if keep.by is not None:
            quota = f"; best by {' '.join(keep.by.split())}{quota}"
        if keep.where is not None:
            quota += f"; only where {' '.join(keep.where.split())}"
        if keep.fraction is not None:
            return f"the best {100 * keep.fraction:g} % of the documents that survive deduplication{quota}"
        if keep.tokens is not None:
            return f"the best documents, {keep.tokens:,.0f} tokens at most{quota}"
        if keep.buckets is not None:
            return f"buckets {', '.join(keep.buckets)}{quota}"
        if keep.where is not None and keep.min_score is None:
            return quota.removeprefix("; only ")
        origin = "config" if keep.min_score is not None else "the model's own rule"
        return f"score >= {self.min_score:g} ({origin}){quota}"


def make_plan(config: FilterConfig) -> Plan:
    """Find the inputs and load the model.

    Raises:
        ConfigError: a heuristic's options do not fit it, a tokenizer is none, `keep.where` or `keep.by` is no rule, or
            a quota names what the input cannot have.
        InputError: a pattern that matches nothing, a file that does not exist, a benchmark that cannot be read.
        ModelError: the model cannot be loaded.
        MissingExtraError: a heuristic needs a package that is not installed.
        RunError: a run in dedup.against is none, or its fingerprints do not fit.
    """
    from filters.dedup.earlier_runs import open_earlier

    not_taken: list[str] = []
    units = plan_units(config.reads, not_taken.append)
    check_keys(units, config.reads, not_taken.append)
    models = load_models(config.models)
    model, scores = models["score"], score_columns(models)
    check_scores(config, models)
    if (rule := rule_of(config, scores)) is not None:
        for path in rule.lists:
            rule.read(path)
    if config.heuristics:
        from filters.run.heuristics import load_filter  # all of datatrove's filters

        for heuristic in config.heuristics:
            load_filter(heuristic)
    if config.tokenizer is not None:
        from filters.kernels.tokens import load_tokenizer

        load_tokenizer(config.tokenizer, "tokens.tokenizer")
    open_earlier(config.dedup)
    min_score = model.keep.min_score if config.keep.min_score is None else config.keep.min_score
    plan = Plan(config, units, models, min_score, config.output.place, _benchmarks(config), tuple(not_taken))
    check_quota(config, plan.sources)
    return plan


def score_columns(models: Mapping[str, QualityModel]) -> dict[str, Kind]:
    """Columns of models beside `score`, and what they hold."""
    found: dict[str, Kind] = {}
    for name, model in models.items():
        if name != "score":
            found |= {name: "text", f"{name}_score": "float"} if model.labels else {name: "float"}
    return found


def stated_scores(models: Mapping[str, QualityModel]) -> dict[str, dict[str, Any]]:
    """What a manifest says of models beside that of `score`."""
    return {
        name: {"name": model.name, "digest": model.digest, "labels": list(model.labels)}
        for name, model in models.items()
        if name != "score"
    }


def taken_columns(config: FilterConfig) -> set[str]:
    """Names of columns that no score can have."""
    taken = {field.name for field in (*OWN_FIELDS, *ATTRIBUTE_FIELDS, *REJECTED_FIELDS, *SCHEMA)}
    return taken | {*COLUMNS, *DECIDED, *config.slices, *(name for one in config.reads for name in one.columns)}


def check_scores(config: FilterConfig, models: Mapping[str, QualityModel]) -> None:
    """Refuse a deciding model without scores, and scores that are called like another column.

    Raises:
        ConfigError: names the key.
    """
    if "score" in models and (labels := models["score"].labels):
        first = next(iter(config.scores.items()), None)
        leads = first is not None and first[1] == config.model
        key = f"scores.{first[0]}" if first is not None and leads else "model"
        remedy = "name a model that gives a score before it, as in scores: {edu: edu-en, ...}"
        raise ConfigError(
            f"{key}: {models['score'].name} tells labels apart ({', '.join(labels[:3])}, ...) and gives no score, by "
            f"which a run decides. Remedy: {remedy if leads else 'model: a model that gives a score'}"
        )
    taken = taken_columns(config)
    for name, model in models.items():
        for column in score_columns({name: model}):
            if column in taken:
                raise ConfigError(
                    f"scores.{name}: a column {column!r} is there already. Remedy: give the score another name"
                )
            taken.add(column)
        wanted = () if config.language is None else config.language.keep
        language = model.metadata.language
        if name != "score" and language is not None and wanted and language not in wanted:
            raise ConfigError(
                f"scores.{name}: {model.name} is for texts in {language!r}, and language.keep lets only "
                f"{', '.join(wanted)} through. Remedy: a model for these languages"
            )


def _benchmarks(config: FilterConfig) -> tuple[Benchmark, ...]:
    if config.decontaminate is None:
        return ()
    from filters.read.benchmark import read_benchmarks

    return read_benchmarks(config.decontaminate)


def check_quota(config: FilterConfig, sources: Iterable[str]) -> None:
    """Refuse quotas that no document can have.

    Raises:
        ConfigError: languages that are not identified, or an input file that is none of `sources`.
    """
    quota, known = config.keep.quota, list(sources)
    if quota is None:
        return
    if quota.by == "language" and config.language is None:
        raise ConfigError("keep.quota: by: language needs the section `language`, which identifies it")
    unknown = [value for value in quota.shares if quota.by == "source" and value not in known]
    if unknown:
        raise ConfigError(
            f"keep.quota.shares: {unknown[0]!r} is no input file. The first of them is {known[0]!r}: "
            "write sources as --dry-run shows them"
        )


class Observer:
    """Told what a run does as it does it; does nothing by itself. Subclass what you want to hear of."""

    def planned(self, plan: Plan) -> None:
        """The inputs are found and the model is loaded; the work begins."""

    def notice(self, text: str) -> None:
        """Something a user should know: what a killed run left behind, what is resumed, what was set aside."""

    def phase(self, name: str, done: int, units: int) -> None:
        """So many units of a phase are done; called at its begin and after each unit."""

    def read(self, records: int, input_bytes: int) -> None:
        """So many more records of the input, and stored bytes, have been read and scored."""
