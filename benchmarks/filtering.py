"""The job measured end to end: exact and near deduplication, a fastText classifier of the user's own, shards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import fasttext
import numpy as np
import pyarrow.parquet as pq

from benchmarks.corpus import build
from benchmarks.measure import Timing, clocked
from filters import FilterConfig, run_filter
from filters.run.finish import RunResult

LABEL = "__label__keep"
THRESHOLD = 0.5
FEW_BUCKETS = 20_000
"""For a classifier that is read in no time, where reading 800 MB would hide what is measured."""


class Job:
    """A corpus, a classifier, and the filter over them.

    Args:
        folder: for everything; emptied by whoever made it.
        documents: of the corpus.
        bucket: rows for n-grams of the classifier; 2 million are what people use, and 800 MB on disk.
    """

    def __init__(self, folder: Path, documents: int, bucket: int = 2_000_000) -> None:
        self.folder, self.documents = folder, documents
        self.dump = folder / "parquet" / "dump.parquet"
        self.dump.parent.mkdir()
        self.kind = build(self.dump, documents)
        print(f"  corpus: {self.corpus}", flush=True)
        self.model = folder / "model.bin"
        train(pq.read_table(self.dump)["text"].slice(0, 1500).to_pylist(), self.model, bucket)
        self.result: RunResult | None = None

    @property
    def corpus(self) -> str:
        return f"{self.documents:,} documents of about 3,200 characters, {self.kind}"

    def config(self, kind: str, paths: list[Path], **more: Any) -> FilterConfig:
        """The config of the job; `more` replaces sections."""
        return FilterConfig.model_validate(
            {
                "input": {
                    "kind": kind,
                    "paths": [str(path) for path in paths],
                    **({} if kind == "warc" else {"id_key": "id"}),
                },
                "model": f"{self.model}#{LABEL}",
                "keep": {"min_score": THRESHOLD},
                "output": {"path": str(self.folder / "run")},
                **more,
            }
        )

    def run(self, kind: str = "parquet", *paths: Path, **more: Any) -> Timing:
        """Filter, loading the model included; the result is in `result`."""
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        config = self.config(kind, list(paths) or [self.dump], **more)

        def work() -> int:
            self.result = run_filter(config)
            return int(self.result.ledger.total.records)

        return clocked(work)

    def kept(self) -> set[str]:
        """Ids of the documents the last run kept."""
        assert self.result is not None
        return {i for shard in self.result.shards for i in pq.read_table(shard, columns=["id"])["id"].to_pylist()}


def train(texts: list[str], path: Path, bucket: int) -> None:
    """Write a fastText model: dim 100, word bigrams, two labels."""
    lines = path.with_suffix(".txt")
    lines.write_text(labelled(texts, ("drop", "keep")), encoding="utf-8")
    model = fasttext.train_supervised(
        str(lines), dim=100, wordNgrams=2, bucket=bucket, lr=1.0, epoch=5, thread=1, verbose=0
    )
    model.save_model(str(path))


def labelled(texts: list[str], labels: tuple[str, ...]) -> str:
    """Lines as fastText trains on them, with equally frequent labels that words do tell: how long they are."""
    flat = [" ".join(text.split()) for text in texts]
    lengths = np.array([len(text) / (text.count(" ") + 1) for text in flat])
    order = lengths.argsort(kind="stable").argsort(kind="stable") * len(labels) // len(flat)
    return "".join(f"__label__{labels[rank]} {text}\n" for rank, text in zip(order, flat, strict=True))
