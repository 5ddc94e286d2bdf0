"""One judge at work: many requests under way, each answer read and stored, each fault met with its remedy.

| fault | remedy |
|---|---|
| 429, 503, timeout | Retry-After honoured, tried again with growing, jittered pauses |
| 5xx, broken connection | tried again, perhaps at another server; a server that fails in a row is dropped for a while |
| 401, 403, 404, another model's name | that server is not used any more; without another one the judge stops |
| a reply that is no chat completion | tried again |
| a chat completion that nobody can read | tried again, then rejected with its cause |
| page too long for the server | cut shorter and asked again; the answer says how much was shown |
| log-probabilities refused, absent, or not those of the answer | fewer candidates, then mode `sample`, with a warning |
| a parameter refused | that server is not used any more; the message names the key that helps |
| any other 4xx | a failure of this page |
| an answer without a score | rejected with its cause: kept, counted, not asked again |
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from filters.annotate.budget import Budget, BudgetReachedError, JudgeProgress, Window
from filters.annotate.config import ANSWER_TOKENS, FALLBACK_REPEATS, JudgeConfig, Mode, StopConfig
from filters.annotate.endpoints import (
    LONGEST_PAUSE,
    STRIKES,
    Endpoint,
    Endpoints,
    JudgeStoppedError,
    RequestError,
    StoppingError,
)
from filters.annotate.page import MIN_TOKENS, Delimited, TokenCounter, delimit, estimate_tokens, token_counter
from filters.annotate.reading import (
    Reading,
    Reply,
    UnreadableError,
    goes_on,
    parse,
    read_expected,
    read_justified,
    read_reward,
    read_score,
)
from filters.annotate.rubric import VERSION, Message, Prompt, Rubric
from filters.annotate.store import LAST, Answer, Failure, Pending, Spending, Store
from filters.errors import ConfigError, FinesieveError
from filters.storage.remote import pause_before

FLUSH_SECONDS = 0.02
"""Answers wait so long to be written together: at 1,000 a second, 20 to a transaction."""
FLUSH_ROWS = 256
MARGIN_TOKENS = 64
"""Tokens that a chat template adds to the texts it joins."""
SHORTER = 0.6
"""What is left of a page that was too long for its server; done at most `CUTS` times."""
CUTS = 4
FEW_LOGPROBS = 5
"""What is asked of a server that refuses `top_logprobs`; TGI and several hosted ones stop there."""

SPARE_BYTES = 2**20
"""Bytes that a reply may have beside its tokens."""
BYTES_PER_CANDIDATE = 512
"""More than the JSON of a token's candidate takes, with its bytes."""

_NO_LOGPROBS = re.compile(r"log_?probs?", re.I)
_FILTERED = re.compile(r"content_filter|content management policy|moderation", re.I)
_PARAMETER = re.compile(
    r"unsupported|not supported|does(?: not|n't) support|unrecogni[sz]ed|unknown|unexpected|not (?:allowed|permitted)|"
    r"extra inputs|deprecated|too large|must be|invalid value",
    re.I,
)
"""How servers say that a parameter of the request, and not the page, is what they refuse."""


class Judge:
    """A judge with its servers, its prompt and its place in the store.

    Args:
        config: of the judge.
        rubric: what is asked.
        store: where answers go.
        budget: shared by all judges of the run.
        stop: when failing requests end it.
        run: number of the run in the store.
        warn: shown to the user.

    Raises:
        ConfigError: the rubric leaves no room for a page, does not fit the mode, or a key is missing.
        AnnotationsError: the store knows another judge of this name.
        MissingExtraError: the extra `annotate` is not installed.
    """

    def __init__(
        self,
        config: JudgeConfig,
        rubric: Rubric,
        store: Store,
        budget: Budget,
        stop: StopConfig,
        run: int,
        warn: Callable[[str], None],
    ) -> None:
        self.config, self.rubric, self.store, self.budget, self.run = config, rubric, store, budget, run
        self.prompt = Prompt(rubric, config.mode)
        self._count = token_counter(config.tokenizer)
        self.page_tokens = page_tokens(config, self.prompt, self._count)
        self._answer_tokens = answer_tokens(config, rubric)
        self.record = store.judge(config.name, "model", config.model, settings(config))
        self.rubric_number = store.rubric(rubric)
        self.endpoints = Endpoints(config)
        self.progress = JudgeProgress()
        self._warn = warn
        self._top = config.top_logprobs if self.record.logprobs is None else self.record.logprobs
        self._unaligned: Counter[str] = Counter()
        self._told_of_reasoning = False
        self._window = Window(stop)
        self._counted: tuple[int, ...] = ()
        self._answers: list[Answer] = []
        self._failures: list[Failure] = []
        self._unsaved = Spending()
        self._flush: asyncio.TimerHandle | None = None
        self._ended: BudgetReachedError | JudgeStoppedError | FinesieveError | None = None

    @property
    def mode(self) -> Mode:
        """How answers are read: that of the config, or `sample` where servers have no log-probabilities."""
        return "sample" if self.config.mode == "expected" and not self._top else self.config.mode

    @property
    def repeats(self) -> int:
        """Answers per page."""
        fell_back = self.mode != self.config.mode and self._temperature > 0
        return max(self.config.answers, FALLBACK_REPEATS) if fell_back else self.config.answers

    @property
    def _temperature(self) -> float:
        fell_back = self.mode != self.config.mode
        return 1.0 if fell_back and self.config.temperature is None else self.config.drawn_at

    async def ask(self, sample: int, until: int = LAST) -> None:
        """Have every document of a sample, up to place `until`, answered; what fails is left for another run.

        Raises:
            BudgetReachedError: a cap does not allow more.
            JudgeStoppedError: no server can be used, or most of a window of pages failed.
            StoppingError: `stop` was called.
            AnnotationsError: the store cannot be written.
        """
        repeats = 0
        while repeats != self.repeats:  # more of them once it fell back to another mode
            repeats = self.repeats
            most = self.config.max_concurrency * len(self.endpoints.all)
            open_ = self.recount(sample, until)
            jobs = self._jobs(sample, until)
            workers = [asyncio.ensure_future(self._work(jobs)) for _ in range(max(1, min(most, open_)))]
            self.progress.begin()
            try:
                await asyncio.gather(*workers)
            finally:
                self.progress.pause()
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
                self._save()
            if self._ended is not None:
                raise self._ended
            if self.endpoints.stopping.is_set():
                raise StoppingError

    async def close(self) -> None:
        """Write what has not been written, and close all connections."""
        self._save()
        await self.endpoints.close()

    def recount(self, sample: int, until: int = LAST) -> int:
        """Answers still to be had of a sample up to place `until`; `progress` knows it from then on."""
        state = (sample, until, self.repeats, self.progress.answered)
        if state != self._counted:  # a look at every answer, half a second at a million
            self.progress.wanted = self.store.sample_size(sample, until) * self.repeats
            answered = self.store.answered(sample, self.record.number, self.rubric_number, self.repeats, until)
            self.progress.before = answered - self.progress.answered
            self._counted = state
        return self.progress.left

    def _jobs(self, sample: int, until: int) -> Iterator[tuple[Pending, int]]:
        place, keys = 0, (sample, self.record.number, self.rubric_number, self.repeats)
        while chunk := self.store.pending(*keys, after=place, until=until):
            for pending in chunk:
                for repeat in pending.repeats:
                    yield pending, repeat
            place = chunk[-1].place

    async def _work(self, jobs: Iterator[tuple[Pending, int]]) -> None:
        for pending, repeat in jobs:
            if self.endpoints.stopping.is_set():
                return
            try:
                await self._one(pending, repeat)
            except StoppingError:
                return
            except (BudgetReachedError, JudgeStoppedError, FinesieveError) as error:
                self._end(error)
                return

    def _end(self, error: BudgetReachedError | JudgeStoppedError | FinesieveError) -> None:
        self._ended = self._ended or error
        self.endpoints.stop()

    # --- one answer

    async def _one(self, pending: Pending, repeat: int) -> None:
        attempts = failed = cuts = 0
        room = self.page_tokens
        page = delimit(pending.text, room, self._count)
        while True:
            endpoint = await self.endpoints.acquire()
            attempts += 1
            asked_logprobs = self._top
            body = self._body(self.prompt.messages(page))
            blank = Answer(
                pending.document,
                repeat,
                "rejected",
                "",
                mode=self.mode,
                endpoint=endpoint.url,
                attempts=attempts,
                text_cut=page.shown if page.truncated else None,
            )
            try:
                self._done(await self._request(endpoint, body, page, blank))
                return
            except RequestError as error:
                if error.trouble == "fatal":
                    continue  # another server, or `acquire` raises
                if error.trouble == "too_long" and cuts < CUTS and room > MIN_TOKENS:
                    cuts += 1
                    room = max(int(min(room, (self._count or estimate_tokens)(page.text)) * SHORTER), MIN_TOKENS)
                    page = delimit(pending.text, room, self._count)
                    continue
                if error.trouble == "refused":
                    if "top_logprobs" in body and _NO_LOGPROBS.search(error.message):
                        self._fewer_logprobs(asked_logprobs, endpoint.url, error.message)
                        continue
                    if _FILTERED.search(error.message):
                        self._done(replace(blank, raw=error.message, cause="content_filter"))
                        return
                failed += 1
                if error.trouble in ("refused", "too_long") or failed > self.config.retries:
                    if error.trouble == "unreadable":
                        self._done(replace(blank, raw=error.message, cause=error.cause), error)
                    else:
                        self._fail(Failure(pending.document, repeat, error.cause, attempts), error)
                    return
            self.progress.retries += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.endpoints.stopping.wait(), pause_before(failed - 1, LONGEST_PAUSE))

    async def _request(self, endpoint: Endpoint, body: dict[str, Any], page: Delimited, blank: Answer) -> Answer:
        """Send one request and account for it, whatever becomes of it; the answer is `blank`, filled in."""
        reserved, spent = None, Spending()
        begun, failure = time.monotonic(), None
        sent = False
        try:
            most = self.prompt.most_tokens(page)
            reserved = await self.budget.reserve(most, self._answer_tokens, self.config.price)
            if self.endpoints.stopping.is_set():  # while it waited for its reservation
                raise StoppingError
            begun, spent = time.monotonic(), reserved  # of unknown fate from now on
            most_bytes = SPARE_BYTES + self._answer_tokens * (2 + self._top) * BYTES_PER_CANDIDATE
            received = await endpoint.post(body, most_bytes, self.budget.seconds_left())
            answer = self._read(parse(received), reserved, blank)
            spent, sent = Spending(1, answer.tokens_in, answer.tokens_out, answer.cost), True
            return replace(answer, seconds=round(time.monotonic() - begun, 4))
        except RequestError as error:
            failure, key = error, self._key_of(error)
            if key is not None:
                failure = RequestError("fatal", error.cause, f"{error.message} -> set judges.{self.config.name}.{key}")
            spent = spent if error.billed else Spending(1)
            raise failure from None
        finally:
            if reserved is not None:
                self.budget.settle(reserved, spent)
                self._unsaved += spent
                self.progress.spent += spent
            self.endpoints.release(endpoint, failure, sent=sent)

    def _key_of(self, error: RequestError) -> str | None:
        """The key of the config that helps where a server refuses a parameter of every request; None: no such thing."""
        said = error.message
        if error.trouble != "refused" or not _PARAMETER.search(said):
            return None
        config = self.config
        if config.mode != "reward":
            if re.search(rf"\b{config.answer_limit}\b", said):
                if re.search(r"too large|at most|less than", said, re.I):
                    return "max_answer_tokens: a lower limit on the answer"
                other = "max_completion_tokens" if config.answer_limit == "max_tokens" else "max_tokens"
                return f"answer_limit: {other}"
            if re.search(r"\btemperature\b", said):
                return "temperature: a value that this model allows"
        extra = next((key for key in config.extra_body if re.search(rf"\b{re.escape(key)}\b", said)), None)
        return None if extra is None else f"extra_body: leave out {extra}"

    def _body(self, messages: list[Message]) -> dict[str, Any]:
        config = self.config
        body: dict[str, Any] = {"model": config.model, "messages": messages}
        if config.mode != "reward":
            body |= {config.answer_limit: self._answer_tokens, "temperature": self._temperature}
        if self.mode == "expected":
            body |= {"logprobs": True, "top_logprobs": self._top}
        return body | config.extra_body

    # --- reading

    def _read(self, raw: dict[str, Any], reserved: Spending, blank: Answer) -> Answer:
        names = (self.config.model, *self.config.served_as)
        reply = Reply.of(raw, names, reserved.tokens_in, reserved.tokens_out)
        readable = self.mode != "expected" or self._see_logprobs(reply, blank.endpoint)
        answer = replace(
            blank,
            raw=reply.written,
            mode=self.mode if readable else "sample",
            model=reply.model,
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            cost=self.config.price.of(reply.tokens_in, reply.tokens_out),
        )
        try:
            return replace(answer, status="ok", **asdict(self._reading(reply, answer.mode)))
        except UnreadableError as error:
            return replace(answer, cause=error.cause)

    def _reading(self, reply: Reply, mode: str) -> Reading:
        if reply.finish == "content_filter":
            raise UnreadableError("content_filter")
        if reply.finish == "length":
            empty = not reply.text.strip()
            if empty and not self._told_of_reasoning:
                self._told_of_reasoning = True
                self._warn(
                    f"judge {self.config.name}: an answer was cut off before it began; a model that reasons first "
                    "needs max_answer_tokens"
                )
            if empty or mode == "justify" or goes_on(reply.text, self.rubric.scale):
                raise UnreadableError("cut_off")
        if mode == "reward":
            return read_reward(reply.text, self.rubric)
        if mode == "justify":
            return read_justified(reply.text, self.rubric)
        written = read_score(reply.text, self.rubric)
        return read_expected(reply.tokens, self.rubric) if mode == "expected" else written

    # --- log-probabilities

    def _see_logprobs(self, reply: Reply, url: str) -> bool:
        """Whether an answer can be read in mode expected, which the first answers show for the servers as a whole.

        An answer without log-probabilities of its own among others that have them is read as it is written; several in
        a row from one server are no accident.
        """
        if not reply.text.strip():
            return True  # an empty answer has no tokens, and tells nothing
        if reply.has_alternatives:
            self._unaligned[url] = 0
            if self.record.logprobs != self._top:
                self._learn(self._top)
            return True
        self._unaligned[url] += 1
        if self.record.logprobs is None or self._unaligned[url] >= STRIKES:
            self._fall_back(url, "its answers hold no log-probabilities of their own tokens' alternatives")
        return False

    def _fewer_logprobs(self, asked: int, url: str, message: str) -> None:
        if asked != self._top:
            return  # another request has found out meanwhile
        if self._top > FEW_LOGPROBS:
            self._top = FEW_LOGPROBS
        else:
            self._fall_back(url, message)

    def _fall_back(self, url: str, why: str) -> None:
        self._learn(0)
        self._warn(
            f"judge {self.config.name}: {url} cannot do mode expected ({why}); falling back to mode sample with "
            f"{self.repeats} answers per page"
        )

    def _learn(self, candidates: int) -> None:
        self._top = candidates
        self.store.learn_logprobs(self.record.number, candidates)
        self.record = replace(self.record, logprobs=candidates)

    # --- keeping

    def _done(self, answer: Answer, error: RequestError | None = None) -> None:
        """Keep an answer; `error` says that nobody could read the reply."""
        if answer.expected is not None:
            self.progress.scores[round(answer.expected)] += 1
        else:
            self.progress.rejected[str(answer.cause)] += 1
        self._answers.append(answer)
        self._note(error)

    def _fail(self, failure: Failure, error: RequestError) -> None:
        self.progress.failed[failure.cause] += 1
        self._failures.append(failure)
        self._note(error)

    def _note(self, error: RequestError | None) -> None:
        if len(self._answers) >= FLUSH_ROWS:
            self._save()
        elif self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._save)
        failed = self._window.add(None if error is None else error.cause)
        if error is not None:
            self.progress.words[error.cause] = error.message
            if failed is not None:
                raise JudgeStoppedError(
                    f"{failed} (the last one: {error.message}). Remedy: look at the server, then start again; "
                    "answers so far are kept"
                )

    def _save(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        answers, failures, spent = self._answers, self._failures, self._unsaved
        if not answers and not failures and not spent.requests:
            return
        try:
            self.store.save(self.run, self.record.number, self.rubric_number, answers, failures, spent)
        except FinesieveError as error:  # what was paid for stays, and is tried again when the run ends
            self._end(error)
        else:
            self._answers, self._failures, self._unsaved = [], [], Spending()


def settings(config: JudgeConfig) -> dict[str, Any]:
    """What a judge's answers depend on, beside the rubric: a change needs another name."""
    return {
        "mode": config.mode,
        "temperature": config.drawn_at,
        "max_page_tokens": config.max_page_tokens,
        "tokenizer": config.tokenizer is not None,
        "prompt": VERSION,
        "extra_body": config.extra_body,
    }


def answer_tokens(config: JudgeConfig, rubric: Rubric) -> int:
    """Room for an answer, in tokens."""
    if config.max_answer_tokens is not None:
        return config.max_answer_tokens
    lines = len(rubric.attributes) if config.mode in ("expected", "sample") else 0
    return ANSWER_TOKENS[config.mode] * max(lines, 1)


def page_tokens(config: JudgeConfig, prompt: Prompt, count_tokens: TokenCounter | None) -> int:
    """Room for a page, in tokens.

    Raises:
        ConfigError: there is none.
    """
    fixed = (count_tokens or estimate_tokens)(prompt.fixed_text)
    answer = answer_tokens(config, prompt.rubric)
    room = config.context_tokens - fixed - answer - MARGIN_TOKENS
    if room < MIN_TOKENS:
        raise ConfigError(
            f"judges.{config.name}.context_tokens: {config.context_tokens} leave no room for a page beside the rubric "
            f"{prompt.rubric.name} ({fixed} tokens) and the answer ({answer}). Remedy: start the server with more "
            "context, or shorten the rubric's examples"
        )
    return min(config.max_page_tokens, room)
