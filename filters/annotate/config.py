"""The schema of configs/judge.yaml: what `finesieve annotate` can be told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from filters.config.filter import ExtractConfig, InputsConfig, ModelText, NearConfig
from filters.config.languages import LanguageCode
from filters.config.yaml_file import PathText, Section, load_config

Mode = Literal["expected", "sample", "justify", "reward"]
Stratum = Literal["language", "source", "length", "score"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

ANSWER_TOKENS: dict[Mode, int] = {"expected": 8, "sample": 8, "justify": 512, "reward": 64}
"""Room for an answer where `max_answer_tokens` is not set; a rubric of several attributes gets it for each."""
FALLBACK_REPEATS = 5
"""Answers per page where a server has no log-probabilities, and of mode `sample` by default."""


def _http(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:  # a port above 65535 raises
        raise ValueError(f"{url!r} is no address of a server; write it like http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise ValueError("an address must not hold a password; name an environment variable in api_key_env")
    return url.rstrip("/")


class PriceConfig(Section):
    """What a judge costs, in any one currency for the whole config."""

    input: Annotated[float, Field(ge=0)] = 0.0
    """Price of a million tokens of prompts."""
    output: Annotated[float, Field(ge=0)] = 0.0
    """Price of a million tokens of answers."""

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """Money for so many tokens."""
        return (tokens_in * self.input + tokens_out * self.output) / 1e6


class JudgeConfig(Section):
    """A language model behind one or several OpenAI-compatible servers."""

    name: Name
    """Name under which its answers are stored. Another model, mode or temperature needs another name."""
    base_urls: Annotated[tuple[Annotated[str, AfterValidator(_http)], ...], Field(min_length=1)]
    """Servers of the same model, which usually end in /v1. They share the load; a dead one is dropped and tried
    again."""
    model: Annotated[str, Field(min_length=1)]
    """Name of the model, as the servers know it."""
    served_as: tuple[str, ...] = ()
    """Other names that the servers may give the model in their answers; an answer of any other model is refused."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key. null: the server needs no key."""
    mode: Mode = "expected"
    """How the judge answers. expected: the score first, read from the log-probabilities of the scale's tokens. sample:
    the mean of `repeats` answers. justify: reasoning, then a score. reward: a reward model answers attribute scores."""
    repeats: Count | None = None
    """Answers for each page. null: 5 in mode sample, otherwise 1. More than one needs a temperature above 0. Repeats
    show how far a judge agrees with itself, except in mode expected, where they read the same distribution again."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Temperature of the requests. null: 1 if several answers are drawn, otherwise 0."""
    top_logprobs: Annotated[int, Field(ge=2, le=100)] = 20
    """Number of candidates for each token to ask for. A server that refuses this number is asked for fewer."""
    max_answer_tokens: Count | None = None
    """Most tokens of an answer. null: 8 (expected, sample), 512 (justify), 64 (reward)."""
    answer_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Name of the limit on an answer in a request; some hosted models need max_completion_tokens."""
    max_page_tokens: Annotated[int, Field(ge=64)] = 1500
    """Most tokens of a page; a longer page is cut. What `context_tokens` leaves beside the rubric is a limit too."""
    context_tokens: Annotated[int, Field(ge=256)] = 8192
    """Context length that the server was started with, for prompt and answer together."""
    tokenizer: PathText | None = None
    """The model's tokenizer.json, to count a page's tokens as the model does. null: tokens are estimated."""
    max_concurrency: Annotated[int, Field(ge=1, le=4096)] = 64
    """Most requests in flight at each server. A request that it answers with 429 is tried again later."""
    timeout_seconds: Positive = 120.0
    """Most seconds for a whole answer."""
    retries: Annotated[int, Field(ge=0, le=20)] = 6
    """How often a request is made again after 429, 5xx, a timeout or a broken connection, with growing random
    pauses."""
    price: PriceConfig = PriceConfig()
    """What the judge costs; needed for forecasts and for `budget.max_money`."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """More keys of each request, as the server knows them (chat_template_kwargs, guided_choice, ...)."""

    @property
    def answers(self) -> int:
        """Answers asked per page."""
        return self.repeats or (FALLBACK_REPEATS if self.mode == "sample" else 1)

    @property
    def drawn_at(self) -> float:
        """Temperature of a request."""
        if self.temperature is not None:
            return self.temperature
        return 1.0 if self.mode != "expected" and self.answers > 1 else 0.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.answers > 1 and (self.drawn_at == 0 or self.mode == "reward"):
            why = "of a reward model" if self.mode == "reward" else "at temperature 0"
            raise ValueError(
                f"repeats: {self.answers} answers {why} are one answer, asked {self.answers} times; set repeats: 1, or "
                "mode: sample with a temperature above 0"
            )
        return self


class BudgetConfig(Section):
    """Hard caps. Each request is reserved at its upper bound before it is sent, so that no cap is ever exceeded."""

    max_tokens: Count | None = None
    """Most tokens of prompts and answers, for all judges and all runs on this store. null: no cap."""
    max_money: Positive | None = None
    """Most money, in the currency of the prices, for all runs on this store. null: no cap."""
    max_seconds: Positive | None = None
    """Most seconds for this run. null: no cap."""


class StopConfig(Section):
    """When failing requests stop the run, so that a server that is gone does not use up the retries of every page."""

    window: Annotated[int, Field(ge=5)] = 50
    """Number of a judge's latest pages that are looked at."""
    max_failed_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of these pages that may fail after all retries; a larger one stops the run."""


class SampleConfig(Section):
    """Which documents of the input are annotated. Of copies and near copies, one can be drawn."""

    size: Annotated[int, Field(ge=1)] = 1000
    """Number of documents to draw."""
    design: Literal["random", "stratified", "active"] = "random"
    """random: every document has the same chance. stratified: each stratum gives an equal share, or all it has. active:
    documents that `prefer` names are drawn more often; `random_share` of the sample is drawn without regard to it."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the draw. The same seed draws the same documents from the same input."""
    strata: tuple[Stratum, ...] = ()
    """stratified: what strata are made of: language, source (input file), length (in tokens), score (of the first
    model). Several are combined."""
    prefer: Literal["uncertain", "high", "disagreement"] = "uncertain"
    """active: what is drawn more often. uncertain: scores near the keep rule of the first model. high: high scores.
    disagreement: scores of two models that differ."""
    models: tuple[ModelText, ...] = ("edu-en",)
    """Models, as in `model` of a filter config, for strata by score and for the design active (disagreement needs
    two)."""
    spread: Annotated[float, Field(gt=0, le=5)] = 0.5
    """active: a document that is closer to what is preferred by this many points of score is drawn 2.7 times as
    often."""
    random_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """active: share of the sample that is drawn at random, so that every document has a chance."""
    languages: tuple[LanguageCode, ...] = ()
    """Draw only documents in these languages (ISO 639-1 codes). Empty: in all languages."""
    near: NearConfig | None = NearConfig()
    """What counts as a near copy. null: only equal texts are copies."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.design == "stratified") != bool(self.strata):
            raise ValueError(
                "design stratified needs `strata`, for example [language, length]"
                if not self.strata
                else f"`strata` belongs to design stratified, and the design is {self.design}"
            )
        if len(set(self.strata)) != len(self.strata):
            raise ValueError("strata: one is named twice")
        needed = 2 if self.design == "active" and self.prefer == "disagreement" else 1
        if len(self.models) < needed:
            raise ValueError(f"models: {needed} needed" + (" to disagree" if needed == 2 else ""))
        return self

    @property
    def scorers(self) -> tuple[str, ...]:
        """The models whose scores the design needs."""
        if self.design == "active":
            return self.models[: 2 if self.prefer == "disagreement" else 1]
        return self.models[:1] if "score" in self.strata else ()


class AnnotateConfig(InputsConfig):
    """A config of `finesieve annotate`: everything from the input to the annotations."""

    extract: ExtractConfig = ExtractConfig()
    """How the main text is extracted from HTML."""
    sample: SampleConfig = SampleConfig()
    """The sample of documents that the judges score."""
    rubric: Annotated[PathText, Field(min_length=1)]
    """File with the rubric, such as configs/rubrics/edu.yaml."""
    language: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z -]{1,40}$")] | None = None
    """Language of the pages, by its English name ("Danish"); the judge is told. null: the judge is not told."""
    judges: Annotated[tuple[JudgeConfig, ...], Field(min_length=1)]
    """The language models that score the pages."""
    store: Annotated[PathText, Field(min_length=1)]
    """SQLite file that keeps every answer; a run continues where the last one ended."""
    export: PathText | None = None
    """Folder for annotations.parquet and its card, written at the end. null: nothing is exported."""
    pilot: Annotated[int, Field(ge=5, le=1000)] = 20
    """Number of documents that each judge answers before the cost is forecast."""
    budget: BudgetConfig = BudgetConfig()
    """Hard caps on tokens, money and time."""
    stop: StopConfig = StopConfig()
    """When failing requests stop the run."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [judge.name for judge in self.judges]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"judges: two are called {twice[0]!r}; answers are stored by name")
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file and apply `key.path=value` overrides.

        Raises:
            ConfigError: names the file, the line where it is known, the key, and what is allowed.
        """
        return load_config(cls, path, overrides)
