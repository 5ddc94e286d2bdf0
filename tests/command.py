"""The command `finesieve` in the process of a test; a process of its own would import for a second each time."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from filters.cli.main import main


@dataclass(frozen=True)
class Ended:
    """How the command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def finesieve(*arguments: str | Path, status: int = 0, stdin: str = "", cwd: Path | None = None) -> Ended:
    """Run the command in a folder; it must end with `status`. An exception that it lets through is the test's."""
    given, out, err = (io.TextIOWrapper(io.BytesIO(text), encoding="utf-8") for text in (stdin.encode(), b"", b""))
    returncode = 0
    with (
        mock.patch.multiple(sys, argv=["finesieve", *map(str, arguments)], stdin=given, stdout=out, stderr=err),
        contextlib.chdir(cwd or Path.cwd()),
        _signals_as_they_were(),
    ):
        try:
            main()
        except SystemExit as ended:
            returncode = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    for stream in (out, err):
        stream.seek(0)
    done = Ended(returncode, out.read(), err.read())
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@contextlib.contextmanager
def _signals_as_they_were() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
