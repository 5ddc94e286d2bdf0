"""One judge at work: many requests under way, each answer read and stored, each fault met with its remedy.

| fault | remedy |
|---|---|
| 429, 503, timeout | fewer requests at once, Retry-After honoured, tried again with jitter |
| 5xx, broken connection | tried again, perhaps at another server; a server that fails in a row is dropped for a while |
| 401, 403, 404, another model's name | that server is not used any more; without another one the judge stops |
| a reply that is no chat completion | tried again |
| page too long for the server | cut shorter and asked again |
| log-probabilities refused or absent | fewer candidates asked, then mode `sample` instead, with a warning |
| any other 4xx | a failure of this page |
| an answer without a score | rejected with its cause: kept, counted, not asked again |
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from filters.annotate.budget import Budget, BudgetReachedError, Reservation
from filters.annotate.config import ANSWER_TOKENS, FALLBACK_REPEATS, JudgeConfig, Mode, StopConfig
from filters.annotate.endpoints import (
    Endpoints,
    JudgeStoppedError,
    RequestError,
    Slot,
    StoppingError,
    pause_before,
)
from filters.annotate.page import MIN_TOKENS, TokenCounter, delimit, estimate_tokens
from filters.annotate.prompt import VERSION, Message, Prompt
from filters.annotate.reading import (
    Reading,
    UnreadableError,
    read_expected,
    read_justified,
    read_reward,
    read_score,
)
from filters.annotate.records import Answer, Failure, Pending, Spending
from filters.annotate.reply import Reply
from filters.annotate.rubric import Rubric
from filters.annotate.store import LAST, Store
from filters.annotate.tally import Tally, Window
from filters.annotate.tokens import token_counter
from filters.errors import ConfigError, FinesieveError

FLUSH_SECONDS = 0.02
"""Answers wait so long to be written together: at 1,000 a second, 20 to a transaction."""
FLUSH_ROWS = 256
MARGIN_TOKENS = 64
"""Of a chat template, beside the texts it joins."""
SHORTER = 0.6
"""What is left of a page that was too long for its server; done at most `CUTS` times."""
CUTS = 4
FEW_LOGPROBS = 5
"""What is asked of a server that refuses `top_logprobs`; TGI and several hosted ones stop there."""

_TOO_LONG = re.compile(
    r"context|too long|too many tokens|maximum.{0,20}length|exceeds?.{0,40}(size|limit|length)", re.I
)
_NO_LOGPROBS = re.compile(r"log_?probs?", re.I)
_FILTERED = re.compile(r"content_filter|content management policy|moderation", re.I)


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
        self.record = store.judge(config.name, "model", config.model, settings(config))
        self.rubric_number = store.rubric(rubric)
        self.endpoints = Endpoints(config)
        self.tally = Tally()
        self._warn = warn
        self._top = config.top_logprobs if self.record.logprobs is None else self.record.logprobs
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
        if self.mode == "sample" and self.config.mode == "expected":
            return max(self.config.answers, FALLBACK_REPEATS)
        return self.config.answers

    async def ask(self, sample: int, until: int = LAST) -> None:
        """Have every document of a sample, up to place `until`, answered; what fails is left for another run.

        Raises:
            BudgetReachedError: a cap does not allow more.
            JudgeStoppedError: no server can be used, or most of a window of pages failed.
            StoppingError: `stop` was called.
            AnnotationsError: the store cannot be written.
        """
        while True:
            repeats = self.repeats
            self.recount(sample, until)
            jobs = self._jobs(sample, until)
            most = sum(endpoint.limiter.most for endpoint in self.endpoints.all)
            open_ = self.tally.left
            workers = [asyncio.ensure_future(self._work(jobs)) for _ in range(max(1, min(most, open_)))]
            self.tally.begin()
            try:
                await asyncio.gather(*workers)
            finally:
                self.tally.pause()
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
                self._save()
            if self._ended is not None:
                raise self._ended
            if self.endpoints.stopping.is_set():
                raise StoppingError
            if repeats == self.repeats:
                return

    def stop(self) -> None:
        """Send nothing more; requests under way are waited for."""
        self.endpoints.stop()

    async def close(self) -> None:
        """Write what has not been written, and close all connections."""
        if self._flush is not None:
            self._flush.cancel()
        await self.endpoints.close()

    def recount(self, sample: int, until: int = LAST) -> int:
        """Answers still to be had of a sample up to place `until`; the tally knows it from then on."""
        state = (sample, until, self.repeats, self.tally.answered)
        if state != self._counted:  # a look at every answer, half a second at a million
            self.tally.wanted = self.store.sample_size(sample, until) * self.repeats
            answered = self.store.answered(sample, self.record.number, self.rubric_number, self.repeats, until)
            self.tally.before = answered - self.tally.answered
            self._counted = state
        return self.tally.left

    def _jobs(self, sample: int, until: int) -> Iterator[tuple[Pending, int]]:
        place = 0
        while True:
            chunk = self.store.pending(
                sample, self.record.number, self.rubric_number, self.repeats, after=place, until=until
            )
            if not chunk:
                return
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
        if self._ended is None:
            self._ended = error
        self.endpoints.stop()

    # --- one answer

    async def _one(self, pending: Pending, repeat: int) -> None:
        attempts = failed = cuts = 0
        room = self.page_tokens
        page = delimit(pending.text, room, self._count)
        while True:
            slot = await self.endpoints.acquire()
            attempts += 1
            asked_logprobs = self._top
            body = self._body(self.prompt.messages(page))
            try:
                answer = await self._request(
                    slot, body, self.prompt.most_tokens(page), pending.document, repeat, attempts
                )
            except RequestError as error:
                if error.trouble == "refused":
                    if "top_logprobs" in body and _NO_LOGPROBS.search(error.message):
                        self._fewer_logprobs(asked_logprobs, slot.endpoint.url, error.message)
                        continue
                    if _FILTERED.search(error.message):
                        self._done(
                            Answer(
                                pending.document,
                                repeat,
                                "rejected",
                                error.message,
                                cause="content_filter",
                                mode=self.mode,
                                endpoint=slot.endpoint.url,
                                attempts=attempts,
                            )
                        )
                        return
                    if _TOO_LONG.search(error.message) and cuts < CUTS and room > MIN_TOKENS:
                        cuts += 1
                        room = max(int(min(room, (self._count or estimate_tokens)(page.text)) * SHORTER), MIN_TOKENS)
                        page = delimit(pending.text, room, self._count)
                        continue
                if error.trouble == "fatal":
                    continue  # another server, or `acquire` raises
                failed += 1
                if error.trouble == "refused" or failed > self.config.retries:
                    self._fail(Failure(pending.document, repeat, error.cause, attempts), error)
                    return
                self.tally.retries += 1
                await self._pause(pause_before(failed - 1))
                continue
            self._done(answer)
            return

    async def _request(
        self, slot: Slot, body: dict[str, Any], tokens_in: int, document: int, repeat: int, attempts: int
    ) -> Answer:
        """Send one request and account for it, whatever becomes of it."""
        price = self.config.price
        try:
            reservation = await self.budget.reserve(tokens_in, self._answer_tokens(), price)
        except BaseException:
            self.endpoints.cancel(slot)
            raise
        begun = time.monotonic()
        try:
            if self.endpoints.stopping.is_set():  # while it waited for its reservation
                raise StoppingError
            reply = await slot.endpoint.post(body, self.budget.seconds_left())
            answer = self._read(reply, reservation, document, repeat, slot.endpoint.url)
        except RequestError as error:
            self._settle(reservation, reservation.spending() if error.billed else Spending(1))
            self.endpoints.release(slot, error)
            raise
        except BaseException as error:
            unsent = isinstance(error, StoppingError)
            self._settle(reservation, Spending() if unsent else reservation.spending())
            self.endpoints.cancel(slot)
            raise
        self._settle(reservation, Spending(1, answer.tokens_in, answer.tokens_out, answer.cost))
        self.endpoints.release(slot, None)
        return replace(answer, seconds=round(time.monotonic() - begun, 4), attempts=attempts)

    def _settle(self, reservation: Reservation, spent: Spending) -> None:
        self.budget.settle(reservation, spent)
        self._unsaved += spent
        self.tally.spent += spent

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.endpoints.stopping.wait(), seconds)
        if self.endpoints.stopping.is_set():
            raise StoppingError

    def _answer_tokens(self) -> int:
        return answer_tokens(self.config, self.rubric)

    def _body(self, messages: list[Message]) -> dict[str, Any]:
        config = self.config
        body: dict[str, Any] = {"model": config.model, "messages": messages}
        if config.mode != "reward":
            fallback = self.mode != config.mode and config.temperature is None
            body[config.answer_limit] = self._answer_tokens()
            body["temperature"] = 1.0 if fallback else config.drawn_at
        if self.mode == "expected":
            body |= {"logprobs": True, "top_logprobs": self._top}
        return body | config.extra_body

    # --- reading

    def _read(self, raw: dict[str, Any], reservation: Reservation, document: int, repeat: int, url: str) -> Answer:
        names = (self.config.model, *self.config.served_as)
        reply = Reply.of(raw, names, reservation.tokens_in, reservation.tokens_out)
        if self.config.mode == "expected" and self._top:
            self._see_logprobs(reply, url)
        answer = Answer(
            document,
            repeat,
            "rejected",
            reply.text,
            mode=self.mode,
            model=reply.model,
            endpoint=url,
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            cost=self.config.price.of(reply.tokens_in, reply.tokens_out),
        )
        try:
            reading = self._reading(reply)
        except UnreadableError as error:
            return replace(answer, cause=error.cause)
        return replace(
            answer,
            status="ok",
            score=reading.score,
            expected=reading.expected,
            entropy=reading.entropy,
            coverage=reading.coverage,
            distribution=reading.distribution,
            attributes=reading.attributes,
        )

    def _reading(self, reply: Reply) -> Reading:
        if reply.finish == "content_filter":
            raise UnreadableError("content_filter")
        if self.mode == "expected":
            return read_expected(reply.tokens, self.rubric)
        if self.mode == "reward":
            return read_reward(reply.text, self.rubric)
        if self.mode == "justify":
            if reply.finish == "length":
                raise UnreadableError("cut_off")
            return read_justified(reply.text, self.rubric)
        return read_score(reply.text, self.rubric)

    # --- log-probabilities

    def _see_logprobs(self, reply: Reply, url: str) -> None:
        """Learn from the first answers whether the servers give log-probabilities of alternatives."""
        if reply.has_alternatives:
            if self.record.logprobs != self._top:
                self._learn(self._top)
        elif reply.text.strip():  # an empty answer has no tokens, and tells nothing
            self._fall_back(url, "its answers hold no log-probabilities of alternatives")

    def _fewer_logprobs(self, asked: int, url: str, message: str) -> None:
        if asked != self._top:
            return  # another request has found out meanwhile
        if self._top > FEW_LOGPROBS:
            self._top = FEW_LOGPROBS
        else:
            self._fall_back(url, message)

    def _fall_back(self, url: str, why: str) -> None:
        self._top = 0
        self._learn(0)
        self._warn(
            f"judge {self.config.name}: {url} cannot do mode expected ({why}); falling back to mode sample with "
            f"{self.repeats} answers per page"
        )

    def _learn(self, candidates: int) -> None:
        self.store.learn_logprobs(self.record.number, candidates)
        self.record = self.store.judge(self.config.name, "model", self.config.model, settings(self.config))

    # --- keeping

    def _done(self, answer: Answer) -> None:
        if answer.status == "ok":
            assert answer.expected is not None
            self.tally.scores[round(answer.expected)] += 1
        else:
            self.tally.rejected[str(answer.cause)] += 1
        self._answers.append(answer)
        self._window.add(None)
        self._save_soon()

    def _fail(self, failure: Failure, error: RequestError) -> None:
        self.tally.failed[failure.cause] += 1
        self._failures.append(failure)
        self._window.add(failure.cause)
        self._save_soon()
        if self._window.full:
            raise JudgeStoppedError(
                f"{self._window} (the last one: {error.message}). Remedy: look at the server, then start again; "
                "answers so far are kept"
            )

    def _save_soon(self) -> None:
        if len(self._answers) >= FLUSH_ROWS:
            self._save()
        elif self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._save)

    def _save(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        answers, failures, spent = self._answers, self._failures, self._unsaved
        if not answers and not failures and not spent.requests:
            return
        self._answers, self._failures, self._unsaved = [], [], Spending()
        try:
            self.store.save(self.run, self.record.number, self.rubric_number, answers, failures, spent)
        except FinesieveError as error:
            self._end(error)


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
