"""A judge's servers: one connection pool each, load spread over them, dead ones dropped and tried again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
import urllib.request
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from filters.annotate.config import JudgeConfig
from filters.errors import ConfigError, MissingExtraError
from filters.storage import remote
from filters.terminal import printable

STRIKES = 3
"""So many broken requests in a row, and a server is dropped."""
FIRST_REQUESTS = 4
"""Most requests in flight until a server has answered once: a wrong key or model must not cost more."""
LONGEST_PAUSE = 60.0
"""Seconds until a dropped server is tried again, at most."""
LONGEST_WAIT = 900.0
"""Seconds of Retry-After that are waited for; a server that asks for more has run out of quota."""

MOST_ERROR_BYTES = 2**16
"""Bytes of an error's body that are read."""

Trouble = Literal["busy", "broken", "too_long", "refused", "fatal", "bad_answer", "unreadable"]
"""busy: 429, 503, timeouts: try again later. broken: 5xx, connections: perhaps dead. too_long: the page does not fit.
refused: this request, for good. fatal: every request, for good. bad_answer: a reply that is no answer. unreadable: an
answer, and nobody can read it."""

_TOO_LONG = re.compile(
    "|".join(
        (
            r"context_length_exceeded|reduce_message_length|exceed_context_size|ContextWindowExceeded",
            r"maximum (?:context|prompt|input|model) length",
            r"\b(?:inputs?|prompt|request(?:ed)?|messages?)\b.{0,80}"
            r"\b(?:exceed(?:s|ed)?|longer than|too (?:long|large) for)\b.{0,60}?"
            r"\b(?:context (?:size|length|window|limit)|number of tokens|tokens? limit|allowed length|"
            r"max(?:imum)? (?:input |prompt )?length)",
            r"\b(?:prompt|inputs?|messages) (?:(?:is|are) )?too long\b",
            r"`inputs`.{0,40}must (?:have less than|be <=) ?[0-9]+",
            r"reduce (?:the length of )?(?:the |your )?(?:input )?(?:messages?|prompt)\b",
            r"request too large for",
            r"context (?:length|size|window)\b.{0,20}\b(?:only|exceed(?:s|ed))\b",
            r"too many (?:input |prompt )?tokens|range of input length",
        )
    ),
    re.IGNORECASE | re.DOTALL,
)
"""How servers say that a page does not fit; who says what stands in tests/annotate/test_endpoints.py."""


class RequestError(Exception):
    """A request that brought no answer.

    Attributes:
        trouble: what kind it is, which decides what is done.
        cause: one word of snake case, for counting.
        message: what the server or the connection said: one printable line.
        retry_after: seconds the server asked to wait, or None.
        billed: whether the server may have done the work.
    """

    def __init__(
        self, trouble: Trouble, cause: str, message: str, *, retry_after: float | None = None, billed: bool = False
    ) -> None:
        self.trouble, self.cause, self.message = trouble, cause, printable(message, 300)
        super().__init__(f"{cause}: {self.message}")
        self.retry_after, self.billed = retry_after, billed


class JudgeStoppedError(Exception):
    """A judge that cannot go on; the message says why and what to do."""


class StoppingError(Exception):
    """The run is ending; nothing more is sent."""


class Endpoint:
    """One server of a judge.

    Attributes:
        url: its base address.
        in_flight: requests begun and not ended, at most `max_concurrency`.
        fatal: why it is not tried any more, or None.
    """

    def __init__(self, url: str, judge: JudgeConfig, key: str | None) -> None:
        try:
            import aiohttp
        except ImportError as error:
            raise MissingExtraError("finesieve annotate", "annotate", str(error)) from error
        self.url = url
        self.in_flight = 0
        self.fatal: str | None = None
        self.trouble = ""
        self.answered = False
        self.strikes = 0
        self.pauses = 0
        self.closed_until = 0.0
        self._most = judge.max_concurrency
        self._timeout = judge.timeout_seconds
        parts = urlsplit(url)
        bypassed = urllib.request.proxy_bypass(parts.netloc)
        self._proxy = None if bypassed else urllib.request.getproxies().get(parts.scheme)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        )

    async def post(self, body: dict[str, Any], most_bytes: int, timeout: float | None = None) -> bytes:
        """The body of the server's answer to a chat completion request.

        Args:
            body: of the request.
            most_bytes: a longer answer is none.
            timeout: seconds, at most those of the config.

        Raises:
            RequestError: there was no answer.
        """
        import aiohttp

        limit = self._timeout if timeout is None else min(self._timeout, timeout)
        try:
            async with (
                asyncio.timeout(limit),
                self._session.post(
                    f"{self.url}/chat/completions", json=body, allow_redirects=False, proxy=self._proxy
                ) as response,
            ):
                fine = response.status < 300
                content = bytearray()
                async for part in response.content.iter_any():
                    content += part
                    if len(content) > (most_bytes if fine else MOST_ERROR_BYTES):
                        break
                if fine and len(content) > most_bytes:
                    said = f"more than {most_bytes:,} bytes came, which no answer of this length needs"
                    raise RequestError("unreadable", "endless_reply", said, billed=True)
                if fine:
                    return bytes(content)
                raise refusal(response.status, bytes(content[:MOST_ERROR_BYTES]), response.headers)
        except TimeoutError as error:
            raise RequestError("busy", "timeout", f"no answer within {limit:.0f} s", billed=True) from error
        except aiohttp.ClientConnectorError as error:
            raise RequestError("broken", "connection", f"{type(error).__name__}: {error}") from error
        except aiohttp.ClientResponseError as error:  # header lines without end, a status line that is none
            raise RequestError("unreadable", "odd_reply", error.message, billed=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise RequestError("broken", "connection", f"{type(error).__name__}: {error}", billed=True) from error

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()

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
                self.closed_until = now + remote.pause_before(self.pauses, LONGEST_PAUSE)
                self.pauses += 1

    def open(self, now: float) -> bool:
        """Whether a request may be sent to it now. A server that was dropped gets a single one to prove itself."""
        if self.fatal is not None or now < self.closed_until:
            return False
        allowed = 1 if self.strikes >= STRIKES else self._most if self.answered else FIRST_REQUESTS
        return self.in_flight < min(allowed, self._most)


class Endpoints:
    """All servers of a judge.

    Raises:
        ConfigError: the environment variable with the key is not set, or holds no key.
        MissingExtraError: the aiohttp package is not installed.
    """

    def __init__(self, judge: JudgeConfig) -> None:
        self.judge = judge
        name, key = judge.api_key_env, None
        if name is not None:
            key = os.environ.get(name, "").strip()
            if not key or not key.isascii() or not key.isprintable():
                said = (
                    f"{name} holds characters that no key has. Remedy: export the key again"
                    if key
                    else f"the environment variable {name} is not set. Remedy: export it, or leave api_key_env out for "
                    "a server that needs no key"
                )
                raise ConfigError(f"judges.{judge.name}.api_key_env: {said}")
        self.all = [Endpoint(url, judge, key) for url in judge.base_urls]
        self.stopping = asyncio.Event()
        self._changed = asyncio.Event()

    async def close(self) -> None:
        """Close all connections."""
        for endpoint in self.all:
            await endpoint.close()

    def stop(self) -> None:
        """Send nothing more: whoever waits for a server gets `StoppingError`."""
        self.stopping.set()
        self._changed.set()

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return sum(endpoint.in_flight for endpoint in self.all)

    @property
    def limit(self) -> int:
        """How many may be under way at the servers that are alive."""
        return self.judge.max_concurrency * sum(endpoint.fatal is None for endpoint in self.all)

    async def acquire(self) -> Endpoint:
        """Wait for a server that may take a request, the one with the fewest in flight; `release` ends it.

        Raises:
            StoppingError: the run is ending.
            JudgeStoppedError: no server can be used any more.
        """
        while not self.stopping.is_set():
            self._check_alive()
            now = time.monotonic()
            open_ = [endpoint for endpoint in self.all if endpoint.open(now)]
            if open_:
                endpoint = min(open_, key=lambda each: each.in_flight)
                endpoint.in_flight += 1
                return endpoint
            closed = [each.closed_until - now for each in self.all if each.fatal is None and each.closed_until > now]
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(closed) + 0.001 if closed else None)
        raise StoppingError

    def release(self, endpoint: Endpoint, error: RequestError | None = None, *, sent: bool = True) -> None:
        """A request has ended, or (`sent` is False) was given up before its answer came."""
        endpoint.in_flight -= 1
        if error is not None:
            endpoint.struck(error, time.monotonic())
        elif sent:
            endpoint.answered = True
            endpoint.strikes = endpoint.pauses = 0
        self._changed.set()

    def _check_alive(self) -> None:
        alive = [endpoint for endpoint in self.all if endpoint.fatal is None]
        if not alive:
            reasons = "; ".join(f"{endpoint.url}: {endpoint.fatal}" for endpoint in self.all)
            raise JudgeStoppedError(
                f"no server can be used: {reasons}. Remedy: check base_urls, model and the key, then start again"
            )
        if all(each.pauses > self.judge.retries and each.strikes >= STRIKES for each in alive):
            reasons = "; ".join(f"{each.url}: {each.trouble}" for each in alive)
            raise JudgeStoppedError(
                f"no server can be reached, tried {self.judge.retries} times more: {reasons}. Remedy: start the "
                "server, then start again; answers so far are kept"
            )


def refusal(status: int, body: bytes | dict[str, Any], headers: Mapping[str, str] | None = None) -> RequestError:
    """What a reply means that is no answer, by its status and the server's words in its body."""
    try:
        said = _words(json.loads(body) if isinstance(body, bytes) else body)
    except (ValueError, RecursionError):
        assert isinstance(body, bytes)
        said = body.decode(errors="replace")
    headers = headers or {}
    retry_after, cause = remote.retry_after(headers), f"http_{status}"
    if 300 <= status < 400:
        to = headers.get("location", "").partition("?")[0]
        said = f"redirects to {to}, which is not followed; if that is the server, name it in base_urls"
        return RequestError("fatal", cause, said)
    if status not in (401, 402, 403, 404) and _TOO_LONG.search(said[:4000]):
        return RequestError("too_long", "too_long", said)
    if status < 300:
        return RequestError("bad_answer", "malformed_reply", f"no chat completion: {said}", billed=True)
    if status in (408, 429, 503):
        if retry_after is not None and retry_after > LONGEST_WAIT:
            return RequestError("fatal", cause, f"asks to wait {retry_after:,.0f} s: {said}")
        return RequestError("busy", cause, said, retry_after=retry_after)
    if status >= 500 or status == 409:
        return RequestError("broken", cause, said, retry_after=retry_after, billed=True)
    if status in (401, 402, 403, 404, 405, 407):
        return RequestError("fatal", cause, said)
    return RequestError("refused", cause, said)


def _words(body: object, depth: int = 4) -> str:
    """The message in the JSON of an error, with its code, in whatever form a server gives it."""
    if isinstance(body, list) and body and depth:
        return _words(body[0], depth - 1)
    if isinstance(body, dict) and depth:
        codes = [f"({code[:80]})" for code in (body.get("code"), body.get("type")) if isinstance(code, str)]
        for key in ("error", "message", "detail", "msg", "error_msg"):
            if body.get(key):
                return " ".join((_words(body[key], depth - 1), *codes))
        return f"an object of {', '.join(str(key)[:40] for key in list(body)[:8]) or 'nothing'}"
    return body if isinstance(body, str) else type(body).__name__
