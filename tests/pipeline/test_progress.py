"""Progress: one line that fits on a terminal, plain lines when piped."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from filters.pipeline import progress as module
from filters.pipeline.progress import progress
from filters.read.batch import Batch


def batch(source: str, n: int = 500, input_bytes: int = 10**6) -> Batch:
    return Batch(
        source=source,
        position=np.arange(n, dtype=np.int64),
        id=pa.array([str(row) for row in range(n)]),
        text=pa.array(["text"] * n, pa.large_string()),
        reason=np.full(n, None, dtype=object),
        records=n,
        input_bytes=input_bytes,
    )


@pytest.mark.parametrize("total", [10**7, None])
def test_piped_lines_are_plain_and_say_how_far(monkeypatch: pytest.MonkeyPatch, total: int | None) -> None:
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.0)
    file = io.StringIO()
    with progress(Console(file=file, width=80), total, 10) as on_batch:
        for number in range(5):
            on_batch(batch(f"file-{number}"))
    lines = file.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("2,500 docs, 5.0 MB, ")
    assert "100.0% kept" in lines[-1]
    assert ("50% done" if total else "40% done") in lines[-1]
    assert "\x1b" not in file.getvalue()


def test_nothing_is_printed_for_a_short_run() -> None:
    file = io.StringIO()
    with progress(Console(file=file, width=80), 10**7, 1) as on_batch:
        on_batch(batch("a"))
    assert file.getvalue() == ""


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_live_line_never_wraps(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    with progress(console, 10**9, 1) as on_batch:
        for _ in range(30):
            on_batch(batch("a", 5000, 10**8))
    assert file.getvalue().count("\n") == 1  # when it ends
