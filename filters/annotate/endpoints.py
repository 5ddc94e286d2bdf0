"""A judge's servers: one connection pool each, load spread over them, dead ones dropped and tried again."""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import random
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from filters.annotate.config import JudgeConfig
from filters.annotate.limiter import Limiter
from filters.errors import ConfigError, MissingExtraError

STRIKES = 3
"""So many broken requests in a row, and a server is dropped."""
FIRST_PAUSE = 1.0
"""Seconds until a dropped server is tried again; each further time waits twice as long, at most `LONGEST_PAUSE`."""
LONGEST_PAUSE = 60.0
LONGEST_WAIT = 900.0
"""Seconds of Retry-After that are waited for; a server that asks for more has run out of quota."""

Trouble = Literal["busy", "broken", "refused", "fatal", "bad_answer"]
"""busy: 429, 503, timeouts: send less. broken: 5xx, connections: perhaps dead. refused: this request, for good. fatal:
every request, for good. bad_answer: an answer that is no answer."""


class RequestError(Exception):
    """A request that brought no answer.

    Attributes:
        trouble: what kind it is, which decides what is done.
        cause: one word of snake case, for counting.
        message: what the server or the connection said, shortened.
        retry_after: seconds the server asked to wait, or None.
        billed: whether the server may have done the work.
    """

    def __init__(
        self, trouble: Trouble, cause: str, message: str, *, retry_after: float | None = None, billed: bool = False
    ) -> None:
        super().__init__(f"{cause}: {message}")
        self.trouble, self.cause, self.message = trouble, cause, message
        self.retry_after, self.billed = retry_after, billed


class JudgeStoppedError(Exception):
    """A judge that cannot go on; the message says why and what to do."""


class StoppingError(Exception):
    """The run is ending; nothing more is sent."""


class Endpoint:
    """One server of a judge.

    Attributes:
        url: its base address.
        limiter: how many requests it can take.
        fatal: why it is not tried any more, or None.
    """

    def __init__(self, url: str, judge: JudgeConfig, key: str) -> None:
        try:
            import openai
        except ImportError as error:
            raise MissingExtraError("finesieve annotate", "annotate", str(error)) from error
        try:
            transport = openai.DefaultAioHttpClient(timeout=judge.timeout_seconds)
        except (ImportError, RuntimeError) as error:
            raise MissingExtraError("finesieve annotate", "annotate", str(error)) from error
        self.url = url
        self.limiter = Limiter(judge.max_concurrency)
        self.fatal: str | None = None
        self.trouble = ""
        self.strikes = 0
        self.pauses = 0
        self.closed_until = 0.0
        self._timeout = judge.timeout_seconds
        self._client = openai.AsyncOpenAI(
            base_url=url, api_key=key, max_retries=0, timeout=judge.timeout_seconds, http_client=transport
        )
        self._errors = openai

    async def post(self, body: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """The server's answer to a chat completion request, as JSON, at most `timeout` seconds later.

        Raises:
            RequestError: there was none.
        """
        errors = self._errors
        limit = self._timeout if timeout is None else min(self._timeout, timeout)
        try:
            async with asyncio.timeout(limit):
                # The typed `chat.completions.create` spends more time on turning log-probabilities into objects than
                # everything else together: 820 requests a second on the core that does 1,370 like this.
                answer = await self._client.post("/chat/completions", body=body, cast_to=object)
        except TimeoutError as error:
            raise RequestError("busy", "timeout", f"no answer within {limit:.0f} s", billed=True) from error
        except errors.APIStatusError as error:
            raise _of_status(error.status_code, error.message, error.response.headers) from error
        except (errors.APIResponseValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RequestError("bad_answer", "malformed_reply", _short(str(error)), billed=True) from error
        except errors.APIConnectionError as error:
            raise _of_connection(error, limit) from error
        if not isinstance(answer, dict):
            raise RequestError("bad_answer", "malformed_reply", "the reply is no JSON object", billed=True)
        return answer

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    def succeeded(self) -> None:
        """It answers."""
        self.strikes = self.pauses = 0

    def struck(self, error: RequestError, now: float) -> None:
        """A request brought no answer: after `STRIKES` in a row the server is dropped for a while."""
        self.trouble = str(error)
        if error.retry_after is not None:
            self.closed_until = max(self.closed_until, now + error.retry_after)
        if error.trouble == "fatal":
            self.fatal = str(error)
        elif error.trouble == "broken":
            self.strikes += 1
            if self.strikes >= STRIKES and self.closed_until <= now:
                self.closed_until = now + min(FIRST_PAUSE * 2.0**self.pauses, LONGEST_PAUSE)
                self.pauses += 1

    def open(self, now: float) -> bool:
        """Whether a request may be sent to it now. A server that was dropped gets a single one to prove itself."""
        if self.fatal is not None or now < self.closed_until:
            return False
        return self.limiter.free and (self.strikes < STRIKES or self.limiter.in_flight == 0)


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to send one request to one server."""

    endpoint: Endpoint
    begun: float


class Endpoints:
    """All servers of a judge.

    Raises:
        ConfigError: the environment variable with the key is not set.
        MissingExtraError: the openai package, or its aiohttp transport, is not installed.
    """

    def __init__(self, judge: JudgeConfig) -> None:
        self.judge = judge
        key = "none"
        if judge.api_key_env is not None:
            key = os.environ.get(judge.api_key_env, "")
            if not key:
                raise ConfigError(
                    f"judges.{judge.name}.api_key_env: the environment variable {judge.api_key_env} is not set. "
                    "Remedy: export it, or leave api_key_env out for a server that needs no key"
                )
        self.all = [Endpoint(url, judge, key) for url in judge.base_urls]
        self.stopping = asyncio.Event()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._timer is not None:
            self._timer.cancel()
        for endpoint in self.all:
            await endpoint.close()

    def stop(self) -> None:
        """Send nothing more: whoever waits for a slot gets `StoppingError`."""
        self.stopping.set()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return sum(endpoint.limiter.in_flight for endpoint in self.all)

    @property
    def limit(self) -> int:
        """How many may be under way at the servers that are alive."""
        return sum(int(endpoint.limiter.limit) for endpoint in self.all if endpoint.fatal is None)

    async def acquire(self) -> Slot:
        """Wait for a server that can take a request: the one with most room.

        Raises:
            StoppingError: the run is ending.
            JudgeStoppedError: no server can be used any more.
        """
        while True:
            if self.stopping.is_set():
                raise StoppingError
            self._check_alive()
            now = time.monotonic()
            open_ = [endpoint for endpoint in self.all if endpoint.open(now)]
            if open_:
                endpoint = min(open_, key=lambda each: each.limiter.in_flight / each.limiter.limit)
                return Slot(endpoint, endpoint.limiter.begin())
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            self._wake_when_open(now)
            try:
                await future
            except asyncio.CancelledError:
                self._wake(1)
                raise

    def release(self, slot: Slot, error: RequestError | None) -> None:
        """A request has ended."""
        endpoint, now = slot.endpoint, time.monotonic()
        if error is None:
            endpoint.limiter.answered(slot.begun)
            endpoint.succeeded()
        else:
            if error.trouble == "busy":
                endpoint.limiter.overloaded(slot.begun)
            else:
                endpoint.limiter.failed()
            endpoint.struck(error, now)
        self._wake(2)

    def cancel(self, slot: Slot) -> None:
        """A slot that was not used."""
        slot.endpoint.limiter.failed()
        self._wake(1)

    def _check_alive(self) -> None:
        if all(endpoint.fatal is not None for endpoint in self.all):
            reasons = "; ".join(f"{endpoint.url}: {endpoint.fatal}" for endpoint in self.all)
            raise JudgeStoppedError(
                f"no server can be used: {reasons}. Remedy: check base_urls, model and the key, then start again"
            )
        tired = [each for each in self.all if each.fatal is None]
        if all(each.pauses > self.judge.retries and each.strikes >= STRIKES for each in tired):
            reasons = "; ".join(f"{each.url}: {each.trouble}" for each in tired)
            raise JudgeStoppedError(
                f"no server can be reached, tried {self.judge.retries} times more: {reasons}. Remedy: start the "
                "server, then start again; answers so far are kept"
            )

    def _wake(self, most: int) -> None:
        while most and self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                most -= 1

    def _wake_when_open(self, now: float) -> None:
        closed = [each.closed_until for each in self.all if each.fatal is None and each.closed_until > now]
        if not closed:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + min(closed) - now + 0.001
        if self._timer is not None and not self._timer.cancelled() and loop.time() < self._timer.when() <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(max(due - loop.time(), 0.0), self._wake, len(self._waiting) or 1)


def pause_before(attempt: int) -> float:
    """Seconds before retry number `attempt`, from 0, with full jitter; a server's Retry-After is kept by `acquire`."""
    return random.uniform(0, min(FIRST_PAUSE * 2.0**attempt, LONGEST_PAUSE))  # noqa: S311


def _of_connection(error: BaseException, limit: float) -> RequestError:
    """The transport calls connections that are refused or broken time-outs; the chain of causes tells."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    if any(isinstance(each, TimeoutError) for each in chain):
        return RequestError("busy", "timeout", f"no answer within {limit:.0f} s", billed=True)
    refused = any(isinstance(each, ConnectionRefusedError | socket.gaierror) for each in chain)
    said = f"{type(chain[-1]).__name__}: {chain[-1]}"
    return RequestError("broken", "connection", _short(said), billed=not refused)


def _of_status(status: int, message: str, headers: Any) -> RequestError:
    said = _short(message)
    retry_after = _retry_after(headers)
    if status == 429 or status == 503:
        if retry_after is not None and retry_after > LONGEST_WAIT:
            return RequestError("fatal", f"http_{status}", f"asks to wait {retry_after:,.0f} s: {said}")
        return RequestError("busy", f"http_{status}", said, retry_after=retry_after)
    if status == 408:
        return RequestError("busy", "http_408", said, retry_after=retry_after)
    if status >= 500 or status == 409:
        return RequestError("broken", f"http_{status}", said, retry_after=retry_after, billed=True)
    if status in (401, 402, 403, 404, 405, 407):
        return RequestError("fatal", f"http_{status}", said)
    return RequestError("refused", f"http_{status}", said)


def _retry_after(headers: Any) -> float | None:
    """Seconds from Retry-After (a number or a date) or retry-after-ms; None where there is none that makes sense."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, TypeError):
                continue
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def _short(text: str, limit: int = 300) -> str:
    """One printable line."""
    line = "".join(character if character.isprintable() else " " for character in text[: 4 * limit])
    line = " ".join(line.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
