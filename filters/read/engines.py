"""Engines that take the main text out of HTML, and the process of its own in which they do.

They are native code: it can neither be interrupted in a thread, nor its crash be caught, nor its memory be limited. So
each worker has a child that is handed one page after the other. One that takes too long or too much is killed by the
kernel, costs its page only, and is replaced when the next page comes.

This module is all that the child loads.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = 2 << 30
"""Bytes of address space a page may take: some hundred times the largest that real pages take."""
PATIENCE = 10
"""The time of a page is processor time. An engine that waits is given up after so many times as long ..."""
LEAST_PATIENCE = 60.0
"""... and at least so many seconds: it may still be loading, on a busy machine."""

_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
"""The child's C library (glibc) keeps a page's memory for the next one, which would cost a page fault every 4 KiB."""

Engine = Callable[[str], str]

_LIST = re.compile(r"<(/?)ul\b", re.IGNORECASE)
_ITEM = re.compile(r"<li\b", re.IGNORECASE)
_LINK = re.compile(r"<a\b", re.IGNORECASE)
_LIST_LEVELS = 3
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML may not hold (XML 1.0, 2.2)."""
_REFERENCE = re.compile(r"&#(?:[xX]([0-9a-fA-F]+)|([0-9]+));?")
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*>", re.IGNORECASE)

_REQUEST = struct.Struct("<dQ")  # seconds, bytes of the page
_ANSWER = struct.Struct("<cQ")  # b"t" for text or b"e" for an error, bytes


class ExtractionError(Exception):
    """An engine could make nothing of a page."""


class ExtractionTimeoutError(ExtractionError):
    """An engine took longer than it may."""


class EngineMissingError(Exception):
    """An engine cannot be imported."""


def resiliparse() -> Engine:
    """resiliparse's main content, lists and paragraphs kept apart."""
    from resiliparse.extract.html2text import extract_plain_text

    def text_of(page: str) -> str:
        page = sheltered_lists(page)
        return str(extract_plain_text(page, preserve_formatting=True, main_content=True, alt_texts=False))

    return text_of


def sheltered_lists(page: str) -> str:
    """The page with its bulleted lists moved out of reach of a rule of resiliparse.

    It takes any <ul> within three levels of <body> for navigation, though there it is as often the content of a page
    without layout elements. A list with fewer links than every second item is wrapped to lie deeper. This works on
    the source because resiliparse's DOM queries take quadratic time.
    """
    parts = []
    done = start = depth = 0
    for match in _LIST.finditer(page):
        if not match[1]:
            start = start if depth else match.start()
            depth += 1
        elif depth:
            depth -= 1
            end = page.find(">", match.end(), match.end() + 100) + 1
            if depth == 0 and end:
                body = page[start:end]
                if 2 * len(_LINK.findall(body)) < len(_ITEM.findall(body)):
                    parts += [page[done:start], "<div>" * _LIST_LEVELS, body, "</div>" * _LIST_LEVELS]
                    done = end
    return "".join([*parts, page[done:]]) if parts else page


def trafilatura() -> Engine:
    """trafilatura's main content, without comments of readers."""
    try:
        from trafilatura import extract as extract_text
    except ImportError as error:
        raise EngineMissingError(str(error)) from error
    for room in ("core", "utils"):
        logging.getLogger(f"trafilatura.{room}").addFilter(_gave_up)

    def text_of(page: str) -> str:
        page = of_xml_characters(page)
        return (extract_text(page, include_comments=False, deduplicate=False) or "") if page.strip() else ""

    return text_of


def _gave_up(record: logging.LogRecord) -> bool:
    """Raise what trafilatura only logs: it returns None both for a page without text and for one it failed on.

    Raises:
        ExtractionError: it failed.
    """
    error = sys.exc_info()[1]
    # A page that it does not want, it leaves by an error without a message.
    if error is not None and str(error) and "empty" not in str(error).lower():
        raise ExtractionError(f"trafilatura: {type(error).__name__}: {error}")
    return True


def of_xml_characters(page: str) -> str:
    """The page without what XML cannot hold, as characters and as references to them, and without an XML declaration:
    lxml gives up a page with any of these."""

    def referred(match: re.Match[str]) -> str:
        digits = (match[1] or match[2]).lstrip("0")
        code = int(digits or "0", 16 if match[1] else 10) if len(digits) < 8 else sys.maxunicode + 1
        return "" if not code or code > sys.maxunicode or _FORBIDDEN.match(chr(code)) else match[0]

    page = _DECLARATION.sub("", page.replace("\f", " "), count=1)
    return _REFERENCE.sub(referred, _FORBIDDEN.sub("", page))


ENGINES: dict[str, Callable[[], Engine]] = {"resiliparse": resiliparse, "trafilatura": trafilatura}


class Child:
    """A process that extracts one page after the other.

    Args:
        program: Python code that calls `serve`.
    """

    def __init__(self, program: str) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self._socket, other = socket.socketpair()
        self._answers = self._socket.makefile("rb")
        try:
            with other:
                self._process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-P", "-c", program, str(other.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=_ALLOCATION | os.environ | {"PYTHONPATH": path},
                    pass_fds=[other.fileno()],
                )
        except BaseException:  # no memory, no processes left
            self._answers.close()
            self._socket.close()
            raise
        self.alive = True

    def text_of(self, page: bytes, seconds: float) -> str:
        """The text of a page in UTF-8.

        Raises:
            ExtractionTimeoutError: it took `seconds` of processor time.
            ExtractionError: the engine failed or died.
            EngineMissingError: the engine cannot be imported.
        """
        self._socket.settimeout(max(seconds * PATIENCE, LEAST_PATIENCE))
        try:
            self._socket.sendall(_REQUEST.pack(seconds, len(page)))
            self._socket.sendall(page)
            kind, size = _ANSWER.unpack(self._read(_ANSWER.size))
            answer = self._read(size).decode("utf-8", "surrogatepass")
        except TimeoutError:
            self.close()
            raise ExtractionTimeoutError("the engine waits for something") from None
        except (EOFError, ConnectionError):
            raise self._end(seconds) from None
        except BaseException:
            self.close()
            raise
        if kind == b"m":
            self.close()
            raise EngineMissingError(answer)
        if kind == b"e":
            raise ExtractionError(answer)
        return answer

    def _read(self, size: int) -> bytes:
        data = self._answers.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def _end(self, seconds: float) -> ExtractionError:
        self.alive = False
        code = self._process.wait()
        self.close()
        if code == -signal.SIGPROF:
            return ExtractionTimeoutError(f"more than {seconds:g} s (extract.seconds)")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return ExtractionError(f"the engine {how}: a crash of native code, or out of memory")

    def close(self) -> None:
        """End the process at once."""
        self.alive = False
        self._process.kill()
        self._process.wait()
        self._answers.close()
        self._socket.close()


_idle: dict[tuple[int, str], list[Child]] = {}
_lock = threading.Lock()


@contextmanager
def child(program: str) -> Iterator[Child]:
    """A child that runs `program`, for this thread alone meanwhile; a dead one is not used again."""
    key = os.getpid(), program
    with _lock:
        waiting = _idle.setdefault(key, [])
        taken = waiting.pop() if waiting else None
    taken = taken or Child(program)
    try:
        yield taken
    finally:
        if taken.alive:
            with _lock:
                waiting.append(taken)


def program_of(engine: str) -> str:
    """The program of a child with one of `ENGINES`."""
    return f"from filters.read.engines import ENGINES, serve; serve(ENGINES[{engine!r}])"


def serve(load: Callable[[], Engine]) -> None:
    """Answer requests until they end; a page that takes more processor time than it may ends the process.

    They come through the socket whose descriptor is the first argument of the program.
    """
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the child.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    stream = socket.socket(fileno=int(sys.argv[1])).makefile("rwb")
    engine: Engine | None = None
    while header := stream.read(_REQUEST.size):
        seconds, size = _REQUEST.unpack(header)
        page = stream.read(size)
        try:
            if engine is None:
                engine = load()
                _limit_memory()
            signal.setitimer(signal.ITIMER_PROF, seconds)
            try:
                kind, answer = b"t", engine(page.decode("utf-8", "surrogatepass"))
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        except EngineMissingError as error:
            kind, answer = b"m", str(error)
        except ExtractionError as error:
            kind, answer = b"e", str(error)
        except MemoryError:  # what it still holds would be the next page's trouble
            os._exit(os.EX_OSERR)
        except Exception as error:  # whatever an extractor raises on odd markup costs this page only
            kind, answer = b"e", f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        data = answer.encode("utf-8", "surrogatepass")
        stream.write(_ANSWER.pack(kind, len(data)) + data)
        stream.flush()


def _limit_memory() -> None:
    """Let this process take `MEMORY` more than it has."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # a system without /proc
        return
    most = pages * resource.getpagesize() + MEMORY
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
