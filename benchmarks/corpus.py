"""Documents to measure on: real web pages where they are present, else the documentation of installed packages."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PAGES = ("web/unlabelled.parquet", "annotations/edu-en-train.parquet", "annotations/legal-en.parquet")
CHARACTERS = 3200
"""Length of a document: what web pages have on average."""
LONGEST_SENTENCE = 400
ROW_GROUP = 5000


def build(path: Path, documents: int) -> str:
    """Write a Parquet file (id, text) of `documents` documents of about `CHARACTERS` characters; say what it is.

    Pages are cut to that length; when they run out, they come again with their sentences in another order, so that
    they are neither copies nor nonsense.
    """
    pool, kind = _pool()
    generator = np.random.default_rng(0)
    while len(pool) < documents:
        sentences = pool[int(generator.integers(len(pool)))].split(". ")
        pool.append(". ".join(sentences[row] for row in generator.permutation(len(sentences))))
    table = pa.table({"id": [str(row) for row in range(documents)], "text": pool[:documents]})
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP)
    return kind


def vary(path: Path, documents: int, seed: int = 0, copies: float = 0.0) -> str:
    """Write a Parquet file (id, text) of any number of documents, each of sentences drawn at random; say what it is.

    Sentences are those of the pages `build` takes, cut at `LONGEST_SENTENCE` characters, as many to a document as make
    `CHARACTERS` on average. Of a share `copies`, each is one of the row group with a sentence replaced; no other two
    documents are near duplicates, and memory does not grow with their number.
    """
    pool, kind = _pool()
    sentences = [sentence[:LONGEST_SENTENCE] + ". " for text in pool for sentence in text.split(". ") if sentence]
    each = max(1, round(CHARACTERS * len(sentences) / sum(map(len, sentences))))
    column = pa.array(sentences, pa.large_string())
    generator = np.random.default_rng(seed)
    schema = pa.schema([("id", pa.string()), ("text", pa.large_string())])
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as writer:
        for first in range(0, documents, ROW_GROUP):
            n = min(ROW_GROUP, documents - first)
            rows = generator.integers(len(sentences), size=(n, each))
            if copies:
                chosen = generator.choice(n, round(n * copies), replace=False)
                others = np.setdiff1d(np.arange(n), chosen)
                rows[chosen] = rows[generator.choice(others, len(chosen))]
                place = generator.integers(each, size=len(chosen))
                rows[chosen, place] = generator.integers(len(sentences), size=len(chosen))
            drawn = column.take(pa.array(rows.reshape(-1)))
            _, offsets, data = drawn.buffers()
            starts = np.frombuffer(offsets, np.int64)[: n * each + 1 : each].copy()
            texts = pa.LargeStringArray.from_buffers(n, pa.py_buffer(starts), data)
            writer.write_table(pa.table([[str(row) for row in range(first, first + n)], texts], schema), ROW_GROUP)
    return f"documents of {each} random sentences of {kind}" + (f", {copies:.0%} near copies" if copies else "")


def _pool() -> tuple[list[str], str]:
    """Texts of at most `CHARACTERS` characters, and what they are."""
    if SHARED.is_dir():
        texts = [text for name in PAGES for text in pq.read_table(SHARED / name, columns=["text"])["text"].to_pylist()]
        kind = "real web pages"
    else:
        from examples.python_docs import documents, packages

        texts = [text for package in packages().values() for _, text in documents(package) if text]
        kind = "documentation of installed packages"
    pool = [text[start : start + CHARACTERS] for text in texts for start in range(0, len(text), CHARACTERS)]
    return [text for text in pool if len(text) > CHARACTERS // 2], kind


def machine() -> dict[str, Any]:
    """Facts a reader needs to make sense of absolute figures."""
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    packages = ("finesieve", "datatrove", "pyarrow", "numba", "numpy")
    return {
        "processor": model,
        "system": f"{platform.system()} {platform.machine()}",
        "python": sys.version.split()[0],
        "packages": {package: version(package) for package in packages},
    }
