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


def build(path: Path, documents: int) -> str:
    """Write a Parquet file (id, text) of `documents` documents of about `CHARACTERS` characters; say what it is.

    Pages are cut to that length; when they run out, they come again with their sentences in another order, so that
    they are neither copies nor nonsense.
    """
    if SHARED.is_dir():
        texts = [text for name in PAGES for text in pq.read_table(SHARED / name, columns=["text"])["text"].to_pylist()]
        kind = "real web pages"
    else:
        texts = _python_docs()
        kind = "documentation of installed packages"
    pool = [text[start : start + CHARACTERS] for text in texts for start in range(0, len(text), CHARACTERS)]
    pool = [text for text in pool if len(text) > CHARACTERS // 2]
    generator = np.random.default_rng(0)
    while len(pool) < documents:
        sentences = pool[int(generator.integers(len(pool)))].split(". ")
        pool.append(". ".join(sentences[row] for row in generator.permutation(len(sentences))))
    table = pa.table({"id": [str(row) for row in range(documents)], "text": pool[:documents]})
    pq.write_table(table, path, compression="zstd", row_group_size=5000)
    return kind


def _python_docs() -> list[str]:
    from filters.config import InputConfig
    from filters.read.reader import read_unit
    from filters.read.units import plan_units

    config = InputConfig(kind="python-docs")
    batches = (batch for unit in plan_units(config) for batch in read_unit(unit, config))
    return [text for batch in batches for text in batch.text.to_pylist() if text]


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
