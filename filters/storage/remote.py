"""Remote files through fsspec: requests made again after a while, dropped connections resumed.

The requests per second to a host are limited over all workers of this machine, and pause while a host is busy.
"""

from __future__ import annotations

import contextlib
import email.utils
import fcntl
import hashlib
import io
import math
import os
import random
import struct
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from filters.errors import FinesieveError, InputError, MissingExtraError

READ_SIZE = 1 << 20
"""Bytes asked of a remote file at once when its size is not known and bytes have to be skipped."""
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError")
"""botocore's, by name: s3fs is an extra."""

T = TypeVar("T")


def is_local(address: str) -> bool:
    """Whether an address is a path of this machine."""
    return "://" not in address


def file_system(address: str, storage_options: Mapping[str, Any]) -> tuple[Any, str]:
    """The fsspec file system of an address and the path in it.

    Raises:
        MissingExtraError: the protocol needs a package that is not installed.
        InputError: there is no such protocol.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address, **storage_options)
    except ImportError as error:
        extra = "s3" if address.startswith(("s3:", "s3a:")) else address.partition(":")[0]
        raise MissingExtraError(f"reading {address}", extra, str(error)) from error
    except ValueError as error:
        raise InputError(f"{address}: no file system for this address: {error}") from error
    except OSError as error:  # an archive that is opened at once
        raise InputError(f"{address}: cannot be opened: {describe(error)}") from error
    return system, path


def retrying(
    action: Callable[[], T],
    retries: int,
    what: str = "",
    failure: Callable[[Exception, int], FinesieveError] | None = None,
    pace: Pace | None = None,
    *,
    waits: bool = False,
) -> T:
    """The result of `action`, tried again after growing pauses when it fails.

    Args:
        action: one request.
        retries: how often it is made again.
        what: name of the input, for the error.
        failure: makes another error out of the last exception and the number of retries.
        pace: of the host that is asked.
        waits: `action` waits for its turn by itself.

    Raises:
        InputError: `what` does not exist or may not be read, or failed `retries` + 1 times.
    """
    for attempt in range(retries + 1):
        try:
            if pace is not None and not waits:
                pace.wait()
            return action()
        except FinesieveError:
            raise
        except Exception as error:  # each fsspec back end has its own family of network errors
            if is_final(error) or attempt == retries:
                if failure is not None:
                    raise failure(error, retries) from error
                raise InputError(f"{what}: {explain(error, retries)}") from error
            pause_after(error, attempt, pace)
    raise AssertionError("unreachable")


def is_final(error: BaseException) -> bool:
    """Whether an error says that the file is not there or not to be read, so that asking again is no use.

    fsspec's HTTP file system reports whatever goes wrong as FileNotFoundError, an unreachable host and a busy server
    too; what really happened is the error's cause. (botocore's errors, which s3fs translates, carry a `response`.)
    """
    cause = error.__cause__
    if (
        isinstance(error, FileNotFoundError)
        and not isinstance(cause, FileNotFoundError | None)
        and not hasattr(cause, "response")
    ):
        return getattr(cause, "status", None) in (401, 403, 404, 410)
    return isinstance(error, FileNotFoundError | PermissionError) or type(error).__name__ in _NO_CREDENTIALS


def explain(error: BaseException, retries: int) -> str:
    """What went wrong with a request to a server, and what to do about it."""
    text = describe(error)
    if not is_final(error):
        return f"failed after {retries} retries: {text}. Remedy: is the server up, and reachable from here?"
    if isinstance(error, FileNotFoundError):
        return f"no such file, folder or bucket: {text}. Remedy: correct the address"
    return (
        f"access denied: {text}. Remedy: correct the credentials (environment, or storage_options), or have access "
        "granted to them"
    )


def describe(error: BaseException) -> str:
    """Type and message, of the cause where that says more."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class ResumingFile(io.RawIOBase):
    """A remote file that opens itself again at the byte it had reached when the connection drops.

    A server that ignores Range requests is read from the start again up to that byte. Seeking backwards needs Range.

    Args:
        address: any fsspec address.
        storage_options: given to fsspec as they are.
        retries: how often in a row a read may fail before it is given up.
        per_second: most requests to the host, of all workers together; None: as many as are made.
    """

    def __init__(
        self, address: str, storage_options: Mapping[str, Any], retries: int, per_second: float | None = None
    ) -> None:
        super().__init__()
        self.address = address
        self.retries = retries
        self._pace = Pace(address, per_second)
        self._system, self._path = file_system(address, storage_options)
        self._position = 0
        self._handle: Any = None
        self._streaming = False
        self._size: int | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position in the file, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position and return it."""
        if whence == io.SEEK_END:
            if self._size is None:
                self._size = retrying(self._stored_size, self.retries, self.address, pace=self._pace)
            offset += self._size
        elif whence == io.SEEK_CUR:
            offset += self._position
        if offset != self._position:
            self._drop()
        self._position = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        """Read up to `len(buffer)` bytes into `buffer`; how many were read."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes; b"" only at the end of the file.

        Raises:
            InputError: names the address and the byte reached, after the last retry.
        """
        if size is None or size < 0:
            return self.readall()
        if size == 0:
            return b""
        return retrying(lambda: self._read_once(size), self.retries, failure=self._failed, pace=self._pace, waits=True)

    def _failed(self, error: Exception, retries: int) -> InputError:
        if is_final(error):
            return InputError(f"{self.address}: {explain(error, 0)}")
        return InputError(
            f"{self.address}: reading failed at byte {self._position:,} after {retries} retries ({describe(error)}). "
            "Nothing is wrong with the run so far: start it again, or raise input.retries"
        )

    def close(self) -> None:
        """Close the connection and the file."""
        self._drop()
        super().close()

    def _read_once(self, size: int) -> bytes:
        try:
            return self._read(size)
        except InputError:
            raise
        except Exception:
            self._drop()
            raise

    def _read(self, size: int) -> bytes:
        if self._handle is None:
            self._reopen()
        try:
            data = bytes(self._handle.read(size))
        except ValueError as error:
            # fsspec's HTTP file notices only at its second block that the server ignores Range.
            if self._streaming or "range" not in str(error):
                raise
            self._streaming = True
            self._drop()
            self._reopen()
            data = bytes(self._handle.read(size))
        if not data and self._size is not None and self._position < self._size:
            raise ConnectionError(f"the stream ended at byte {self._position:,} of {self._size:,}")
        self._position += len(data)
        return data

    def _reopen(self) -> None:
        # Block size 0 is fsspec's way to ask the HTTP file system for a plain stream.
        options = {"block_size": 0} if self._streaming else {}
        self._pace.wait()
        self._handle = self._system.open(self._path, "rb", **options)
        cache: Any = getattr(self._handle, "cache", None)
        if hasattr(cache, "fetcher"):  # each block that a file system asks for is a request
            cache.fetcher = self._paced(cache.fetcher)
        size = getattr(self._handle, "size", None)
        if isinstance(size, int):
            if self._size is not None and size != self._size:
                raise InputError(f"{self.address}: its size changed from {self._size:,} to {size:,} while being read")
            self._size = size
        if not self._position:
            return
        try:
            self._handle.seek(self._position)
        except (ValueError, OSError):
            left = self._position
            while left:
                skipped = len(self._handle.read(min(left, READ_SIZE)))
                if not skipped:
                    raise ConnectionError(f"the stream ended before byte {self._position:,}") from None
                left -= skipped

    def _paced(self, fetch: Callable[..., bytes]) -> Callable[..., bytes]:
        def paced(*args: Any, **options: Any) -> bytes:
            self._pace.wait()
            return fetch(*args, **options)

        return paced

    def _stored_size(self) -> int:
        size = self._system.info(self._path).get("size")
        if size is None:
            raise InputError(f"{self.address}: the server does not tell its size, which this format needs")
        return int(size)

    def _drop(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(Exception):  # closing a broken connection
                handle.close()


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
