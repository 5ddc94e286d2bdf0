"""Fixtures for tests that ask a judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.annotate import endpoints
from filters.annotate.config import AnnotateConfig
from filters.storage import remote
from tests.annotate.judge_server import MODEL, JudgeServer

RUBRIC = """
name: test
version: "1"
scale: {min: 0, max: 5}
label: Educational score
prompt: How much does a reader learn from this page? Say it in points.
"""


@pytest.fixture
def serve() -> Iterator[Callable[..., JudgeServer]]:
    """Starts servers, and stops them at the end."""
    started: list[JudgeServer] = []

    def start(*arguments: Any, **options: Any) -> JudgeServer:
        started.append(JudgeServer(*arguments, **options))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries a hundred times shorter."""
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(endpoints, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., AnnotateConfig]:
    """Makes a config over so many pages and one judge; keys of the judge and of the config can be given."""

    def make(
        url: str | list[str], pages: int = 40, judge: dict[str, Any] | None = None, words: int = 20, **others: Any
    ) -> AnnotateConfig:
        rubric = tmp_path / "rubric.yaml"
        if not rubric.exists():
            rubric.write_text(RUBRIC)
        source = tmp_path / f"pages-{pages}.parquet"
        subjects = ("rivers", "fractions", "Vikings", "cells", "verbs", "volcanoes", "maps", "metals", "poems", "trade")
        texts = [
            f"Page number {n} says things of {subjects[n % 10]} and {subjects[n // 10 % 10]}: {hash_words(n, words)}."
            for n in range(pages)
        ]
        pq.write_table(pa.table({"text": texts, "id": [str(n) for n in range(pages)]}), source)
        settings = {
            "input": {"kind": "parquet", "paths": [str(source)], "id_key": "id"},
            "sample": {"size": pages, "near": None},
            "rubric": str(rubric),
            "judges": [
                {
                    "name": "judge",
                    "base_urls": [url] if isinstance(url, str) else url,
                    "model": MODEL,
                    "price": {"input": 1, "output": 2},
                    "timeout_seconds": 600,
                    **(judge or {}),
                }
            ],
            "store": str(tmp_path / "store.sqlite"),
        }
        return AnnotateConfig.model_validate(settings | others)

    return make


def hash_words(number: int, count: int) -> str:
    """So many words that differ from number to number, so that no two pages are copies."""
    words = []
    for _ in range(count):
        number = (number * 1103515245 + 12345) % 2**31
        words.append("".join(chr(97 + number // 26**place % 26) for place in range(5)))
    return " ".join(words)
