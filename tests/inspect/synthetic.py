"""Finished runs with made-up scores, for tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.phases.rows import ATTRIBUTE_FIELDS
from filters.scores.histogram import Histogram
from filters.scores.summary import Histograms, survivors


def write_run(
    path: Path,
    documents: int,
    *,
    seed: int,
    min_score: float = 1.5,
    shift: Mapping[str, float] | None = None,
    host_shift: Mapping[str, float] | None = None,
    danish: float = 0.2,
    row_group: int = 700,
    files: int = 2,
) -> Path:
    """A run folder with side files and a manifest, and a seventh of its documents removed as copies."""
    generator = np.random.default_rng(seed)
    language = np.where(generator.random(documents) < danish, "da", "en").astype(object)
    host = np.array([f"host-{number}.example" for number in generator.integers(0, 40, documents)], dtype=object)
    score = generator.gamma(2, 0.5, documents)
    for value, amount in (shift or {}).items():
        score[language == value] += amount
    for value, amount in (host_shift or {}).items():
        score[host == value] += amount
    score = np.round(score.clip(0, 5), 3).astype(np.float32)
    copy = np.arange(documents) % 7 == 6
    keep = ~copy & (score >= np.float32(min_score))
    reason = np.where(copy, "near_duplicate", np.where(keep, None, "low_score")).astype(object)
    topic = generator.choice(np.array(["history", "sport", None], dtype=object), documents)
    numbers = np.arange(documents)
    columns = {
        "id": [f"id-{number}" for number in numbers],
        "source": [f"file-{number * 12 // documents}" for number in numbers],
        "position": numbers,
        "url": [f"https://{name}/{number}" for number, name in enumerate(host)],
        "host": host,
        "bytes": generator.integers(50, 5000, documents),
        "tokens": generator.integers(10, 1200, documents).astype(np.int32),
        "language": language,
        "score": pa.array(score),
        "near_cluster": np.where(copy, numbers - 6, numbers),
        "exact_cluster": numbers,
        "keep": keep,
        "reason": reason,
    }
    fields = [*ATTRIBUTE_FIELDS, pa.field("topic", pa.string())]
    columns["topic"] = topic
    table = pa.table(
        {
            field.name: pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.nulls(documents, field.type)
            for field in fields
        }
    )
    histograms = Histograms(("topic",))
    histograms.add(table)
    (path / "attributes").mkdir(parents=True)
    for number in range(files):
        part = table.slice(number * documents // files, (number + 1) * documents // files - number * documents // files)
        pq.write_table(part, path / "attributes" / f"attributes-{number:05d}.parquet", row_group_size=row_group)
    removed = {"low_score": int((reason == "low_score").sum()), "near_duplicate": int(copy.sum())}
    account = {"records": documents, "kept": int(keep.sum()), "removed": removed, "quarantined": {}}
    account |= {"skipped": 0, "renamed": 0}
    manifest = {
        "model": {"name": "made up", "digest": "0" * 64, "reliability": None},
        "keep": {"min_score": min_score},
        "ledger": {"total": account, "sources": {}},
        "histogram": histograms.total.to_json(),
        "slices": ["topic"],
        "histograms": histograms.to_json(),
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def add_score(path: Path, name: str, seed: int = 0) -> Path:
    """Give a run's documents one more score: a probability that goes with the score; null where there is none."""
    generator, histogram = np.random.default_rng(seed), Histogram()
    for file in sorted((path / "attributes").glob("*.parquet")):
        table = pq.read_table(file)
        scores = table["score"].to_numpy().astype(np.float32) / 5 * generator.random(table.num_rows).astype(np.float32)
        pq.write_table(table.append_column(name, pa.array(scores, from_pandas=True)), file)
        found = survivors(table)
        histogram.add(scores[found.rows], tokens=found.tokens, text_bytes=found.text_bytes)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest |= {"scores": {name: {"name": "made up", "digest": "1" * 64, "labels": []}}}
    (path / "manifest.json").write_text(json.dumps(manifest | {"score_histograms": {name: histogram.to_json()}}))
    return path
