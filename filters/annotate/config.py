"""The schema of configs/judge.yaml: what `finesieve annotate` can be told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from filters.annotate.sampling import SampleConfig
from filters.config.filter import ExtractConfig, InputsConfig
from filters.config.yaml_file import PathText, Section, load_config

Mode = Literal["expected", "sample", "justify", "reward"]

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
    """Per million tokens of the prompt."""
    output: Annotated[float, Field(ge=0)] = 0.0
    """Per million tokens of the answer."""

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """Money for so many tokens."""
        return (tokens_in * self.input + tokens_out * self.output) / 1e6


class JudgeConfig(Section):
    """A language model behind one or several OpenAI-compatible servers."""

    name: Name
    """Under which its answers are stored. Another model, mode or temperature needs another name."""
    base_urls: Annotated[tuple[Annotated[str, AfterValidator(_http)], ...], Field(min_length=1)]
    """Servers of the same model, ending in /v1 as a rule. Load is spread; a dead one is dropped and tried again."""
    model: Annotated[str, Field(min_length=1)]
    served_as: tuple[str, ...] = ()
    """Other names by which the servers may call the model in their answers; any other name is refused."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; null: the server needs none."""
    mode: Mode = "expected"
    """expected: a score first, read from the log-probabilities of the scale's tokens; sample: the mean of `repeats`
    answers; justify: reasoning, then a score; reward: a reward model that answers attribute scores."""
    repeats: Count | None = None
    """Answers per page; null: 1, and 5 in mode sample. More than one needs a temperature above 0, and tells how far a
    judge agrees with itself only where it writes its answer: in mode expected the same distribution is read again."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """null: 1 where several answers are drawn, else 0."""
    top_logprobs: Annotated[int, Field(ge=2, le=100)] = 20
    """Candidates to ask for; fewer are asked of a server that refuses so many."""
    max_answer_tokens: Count | None = None
    """null: 8 (expected, sample), 512 (justify), 64 (reward)."""
    answer_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The key by which the server knows the limit on an answer; some hosted models want the second."""
    max_page_tokens: Annotated[int, Field(ge=64)] = 1500
    """A longer page is cut; at most what `context_tokens` leaves beside the rubric."""
    context_tokens: Annotated[int, Field(ge=256)] = 8192
    """What the server was started with, prompt and answer together."""
    tokenizer: PathText | None = None
    """The model's tokenizer.json, to count a page's tokens as the model does; null: an estimate."""
    max_concurrency: Annotated[int, Field(ge=1, le=4096)] = 64
    """Most requests in flight at each server; what it says 429 to is tried again later."""
    timeout_seconds: Positive = 120.0
    """Of a whole answer."""
    retries: Annotated[int, Field(ge=0, le=20)] = 6
    """After 429, 5xx, a timeout or a broken connection, with growing, jittered pauses."""
    price: PriceConfig = PriceConfig()
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further keys of the request, as the server knows them (chat_template_kwargs, guided_choice, ...)."""

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
    """Hard caps. Each request is reserved at its upper bound before it is sent, so that none is ever exceeded."""

    max_tokens: Count | None = None
    """Prompts and answers of all judges, over all runs on this store."""
    max_money: Positive | None = None
    """In the currency of the prices, over all runs on this store."""
    max_seconds: Positive | None = None
    """Of this run."""


class StopConfig(Section):
    """When failing requests stop the run: a server that is gone should not use up every page's retries."""

    window: Annotated[int, Field(ge=5)] = 50
    """The last so many pages of a judge ..."""
    max_failed_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """... of which this share has failed after all retries."""


class AnnotateConfig(InputsConfig):
    """Everything `finesieve annotate` does, from input to annotations. See configs/judge.yaml."""

    extract: ExtractConfig = ExtractConfig()
    sample: SampleConfig = SampleConfig()
    rubric: Annotated[PathText, Field(min_length=1)]
    """A file like configs/rubrics/edu.yaml."""
    language: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z -]{1,40}$")] | None = None
    """Of the pages, in English ("Danish"): the rubric tells the judge."""
    judges: Annotated[tuple[JudgeConfig, ...], Field(min_length=1)]
    store: Annotated[PathText, Field(min_length=1)]
    """SQLite file with every answer; a run goes on where the last one ended."""
    export: PathText | None = None
    """Folder for annotations.parquet and its card, written at the end."""
    pilot: Annotated[int, Field(ge=5, le=1000)] = 20
    """Documents each judge answers before the cost is forecast."""
    budget: BudgetConfig = BudgetConfig()
    stop: StopConfig = StopConfig()

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
