"""Made-up annotations: the more a page is made of words of a lesson, the higher the judge's score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LESSON = ["photosynthesis", "light", "energy", "leaf", "plants", "cells", "sugar", "water", "because", "therefore"]
SPAM = ["buy", "cheap", "discount", "click", "offer", "shipping", "cart", "casino", "bonus", "deal"]
FILLER = [f"word{number}" for number in range(200)]


def columns(rows: int = 240, seed: int = 0) -> dict[str, list[Any]]:
    """Columns of an annotations file; every host has three pages."""
    rng = np.random.default_rng(seed)
    share = rng.random(rows)
    texts = []
    for p in share:
        lesson = rng.choice(LESSON, size=60)
        spam = rng.choice(SPAM, size=60)
        words = np.where(rng.random(60) < p, lesson, spam)
        texts.append(" ".join(np.r_[words, rng.choice(FILLER, size=20)]))
    expected = np.round(np.clip(4 * share**2 + rng.normal(0, 0.2, rows), 0, 5), 1)
    return {
        "id": [f"page-{row}" for row in range(rows)],
        "url": [f"https://www.host{row // 3}.example/{row}" for row in range(rows)],
        "text": texts,
        "score": np.rint(expected).astype(int).tolist(),
        "expected_score": expected.tolist(),
        "natural_weight": (0.5 + rng.random(rows)).tolist(),
    }


def write(path: Path, data: dict[str, list[Any]]) -> Path:
    """Write columns as Parquet."""
    pq.write_table(pa.table(data), path)
    return path
