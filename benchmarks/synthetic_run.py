"""A finished run with the side files of very many documents, and no texts: what `finesieve inspect` is measured on.

The run is a real one over a handful of pages; its side files are replaced by synthetic ones with the same columns, and
the counts in its manifest by theirs. Scores, lengths, hosts and clusters are drawn with a fixed seed, with the shape of
a crawl: most scores low, some languages, hosts and clusters of duplicates by a power law.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters import FilterConfig, run_filter
from filters.phases.rows import ATTRIBUTE_FIELDS, ATTRIBUTE_ROWS
from filters.scores.summary import SURVIVOR_COLUMNS, Histograms

ROW_GROUP = 150_000
HOSTS, SOURCES = 300_000, 800
LANGUAGES = ("en", "de", "ru", "fr", "es", "it", "da", "zh")
SLICES = {"topic": [f"topic {number:02d}" for number in range(24)]}
REASONS = np.array(
    [None, "low_score", "near_duplicate", "exact_duplicate", "language", "language_unsure"], dtype=object
)


def tables(documents: int, min_score: float) -> Iterator[pa.Table]:
    """Side files' rows, `ROW_GROUP` at a time."""
    generator = np.random.default_rng(20)
    hosts = np.array([f"host-{number:06d}.example" for number in range(HOSTS)], dtype=object)
    schema = pa.schema([*ATTRIBUTE_FIELDS, *(pa.field(name, pa.string()) for name in SLICES)])
    for start in range(0, documents, ROW_GROUP):
        n = min(ROW_GROUP, documents - start)
        score = np.minimum(generator.gamma(1.6, 0.5, n), 5).astype(np.float32)
        removed = generator.random(n)
        reason = np.select([removed < 0.06, removed < 0.15, removed < 0.18, removed < 0.2], [2, 3, 4, 5], -1)
        reason = np.where(reason < 0, np.where(score < np.float32(min_score), 1, 0), reason)
        scored = reason < 4
        copies = (reason == 2) | (reason == 3)
        own = np.arange(start, start + n)
        # Copies belong to clusters of earlier documents; few clusters are large.
        cluster = np.where(copies & (own > 0), (own * generator.random(n) ** 6).astype(np.int64), own)
        host = hosts[np.minimum((generator.pareto(0.9, n) * 40).astype(np.int64), HOSTS - 1)]
        tokens = np.maximum(generator.lognormal(6.4, 1.0, n), 1).astype(np.int32)
        columns = {
            "id": pa.array([f"{number:032x}" for number in own.tolist()]),
            "source": pa.array(
                [f"crawl/part-{number:05d}.warc.gz" for number in (own * SOURCES // documents).tolist()]
            ),
            "position": pa.array(own),
            "url": pa.array([f"https://{name}/page/{row}" for name, row in zip(host, own.tolist(), strict=True)]),
            "host": pa.array(host),
            "bytes": pa.array(tokens.astype(np.int64) * 4),
            "tokens": pa.array(tokens),
            "language": pa.array(np.array(LANGUAGES, dtype=object)[np.minimum(generator.geometric(0.5, n), 8) - 1]),
            "score": pa.array(score, mask=~scored),
            "exact_cluster": pa.array(own),
            "near_cluster": pa.array(cluster),
            "keep": pa.array(reason == 0),
            "reason": pa.array(REASONS[reason], pa.string()),
            "topic": pa.array(np.array(SLICES["topic"], dtype=object)[generator.integers(0, 24, n)]),
        }
        yield pa.table({field.name: columns.get(field.name, pa.nulls(n, field.type)) for field in schema}).cast(schema)


def build(folder: Path, documents: int, min_score: float = 1.5) -> Path:
    """Write the run to `folder`/run, unless it is there, and return its path."""
    run = folder / "run"
    marker = folder / f"{documents}.done"
    if marker.exists():
        return run
    folder.mkdir(parents=True, exist_ok=True)
    pages = folder / "pages.jsonl"
    pages.write_text("".join(json.dumps({"text": f"page number {n} of a handful"}) + "\n" for n in range(20)))
    output = {"path": str(run), "rejected": False}
    config = {"input": {"kind": "jsonl", "paths": [str(pages)]}, "keep": {"min_score": min_score}, "output": output}
    run_filter(FilterConfig.model_validate(config), force_new=True)
    for path in (run / "attributes").iterdir():
        path.unlink()
    histograms = Histograms(SLICES)
    reasons = dict.fromkeys([*REASONS[1:], None], 0)
    writer, rows, number = None, 0, 0
    for table in tables(documents, min_score):
        histograms.add(table.select([*SURVIVOR_COLUMNS, "language", *SLICES]))
        for found in table["reason"].value_counts().to_pylist():
            reasons[found["values"]] += found["counts"]
        if writer is None:
            writer = pq.ParquetWriter(
                run / "attributes" / f"attributes-{number:05d}.parquet", table.schema, compression="zstd"
            )
        writer.write_table(table)
        rows += table.num_rows
        if rows >= ATTRIBUTE_ROWS:
            writer.close()
            writer, rows, number = None, 0, number + 1
    if writer is not None:
        writer.close()
    manifest = json.loads((run / "manifest.json").read_text())
    account = {"records": documents, "kept": reasons.pop(None), "removed": reasons}
    account |= {"quarantined": {}, "skipped": 0, "renamed": 0}
    manifest["ledger"] = {"total": account, "sources": {"crawl": account}}
    manifest |= {"histogram": histograms.total.to_json(), "histograms": histograms.to_json(), "slices": list(SLICES)}
    (run / "manifest.json").write_text(json.dumps(manifest))
    marker.touch()
    return run


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=20_000_000)
    arguments = parser.parse_args()
    print(build(arguments.folder, arguments.documents))
