"""Limits the requests per second to a host, over all workers of this machine, and pauses while a host is busy."""

from __future__ import annotations

import email.utils
import fcntl
import hashlib
import math
import os
import random
import struct
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FIRST_PAUSE = 1.0
"""Seconds before the first retry at most; each further retry waits up to twice as long, at most `LONGEST_PAUSE`."""
LONGEST_PAUSE = 300.0
LONGEST_ASKED = 3_600.0
"""Most seconds that a Retry-After is waited for before the server is asked again."""
_BUSY = {429, 503}
_BUSY_CODES = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"}
_NEXT = struct.Struct("<d")

clock = time.time
"""Seconds since 1970, as all processes see them."""
sleep = time.sleep


class Pace:
    """The pace at which one host is asked, kept in a file that all processes of this user on this machine share.

    Args:
        address: of a file on the host.
        per_second: most requests; None: as many as are made.
    """

    def __init__(self, address: str, per_second: float | None = None) -> None:
        parts = urlsplit(address)
        host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        name = hashlib.sha256(host.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self._folder = Path(tempfile.gettempdir()) / f"finesieve-pace-{os.getuid()}"
        self._path = self._folder / name
        self._between = 0.0 if per_second is None else 1 / per_second

    def wait(self) -> None:
        """Wait for this request's turn."""
        now = clock()
        turn = self._move(lambda due: max(due, now) + self._between) - self._between
        if turn > now:
            sleep(turn - now)

    def hold(self, seconds: float) -> None:
        """Have nobody ask the host for so long."""
        until = clock() + seconds
        self._move(lambda due: max(due, until))

    def _move(self, change: Any) -> float:
        """Set the time before which nobody may ask, and return it."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:  # no place that is shared: each process goes at its own pace
            return float(change(0.0))
        with os.fdopen(handle, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            stored = file.read(_NEXT.size)
            due = _NEXT.unpack(stored)[0] if len(stored) == _NEXT.size else 0.0
            if not math.isfinite(due) or due > clock() + 2 * LONGEST_ASKED:
                due = 0.0  # the clock was set back
            due = float(change(due))
            file.seek(0)
            file.write(_NEXT.pack(due))
        return due


def pause_before(attempt: int, most: float | None = None) -> float:
    """Seconds to wait before retry number `attempt`, counted from 0: half of them by chance, so that workers that
    failed together do not come back together; at most `most` (None: `LONGEST_PAUSE`)."""
    longest = min(FIRST_PAUSE * 2.0**attempt, LONGEST_PAUSE if most is None else most)
    return random.uniform(longest / 2, longest)  # noqa: S311


def pause_after(error: BaseException, attempt: int, pace: Pace | None) -> None:
    """Wait before a failed request is made again: at least as long as the server asks for. While it is busy, the other
    workers do not ask it either."""
    asked = retry_after(_headers(error))
    seconds = max(pause_before(attempt), min(asked or 0.0, LONGEST_ASKED))
    if pace is not None and (asked is not None or _is_busy(error)):
        pace.hold(seconds)
    sleep(seconds)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait, by retry-after-ms or Retry-After (a number of seconds or an HTTP date); None
    where there is neither that makes sense."""
    values = {name.lower(): str(value).strip() for name, value in headers.items()}
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = values.get(name)
        if not value:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - clock()
            except (ValueError, OverflowError, TypeError):
                continue
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    return None


def _causes(error: BaseException) -> list[BaseException]:
    return [each for each in (error, error.__cause__, error.__context__) if each is not None]


def _headers(error: BaseException) -> Mapping[str, str]:
    """Headers of the reply that caused an error, as aiohttp and botocore keep them."""
    for each in _causes(error):
        headers = getattr(each, "headers", None)
        if isinstance(headers, Mapping):
            return headers
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return dict(response.get("ResponseMetadata", {}).get("HTTPHeaders", {}))
    return {}


def _is_busy(error: BaseException) -> bool:
    for each in _causes(error):
        if getattr(each, "status", None) in _BUSY:
            return True
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status in _BUSY or response.get("Error", {}).get("Code") in _BUSY_CODES
    return False
