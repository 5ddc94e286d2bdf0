"""Documents per second of each step of a filter run, and of datatrove's own block for the same job, in one process.

    python -m benchmarks.pipeline [--documents 8000] [--stock-documents 600] [--repeats 5]

One core. datatrove's blocks get fewer documents; the figure is documents per second either way.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import fasttext
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.filters import FastTextClassifierFilter
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.hashing import HashConfig
from loguru import logger

from benchmarks.corpus import build
from benchmarks.measure import Report, Row, Side, arguments, bind_to_one_core, clocked, in_turn, ratios, speed
from filters import FilterConfig, run_filter
from filters.config.filter import LanguageConfig
from filters.phases.rows import OWN_FIELDS
from filters.read.batch import Batch
from filters.read.units import plan_units
from filters.run.heuristics import RegexTokenizer
from filters.run.steps import Fingerprint, IdentifyLanguage, ReadUnits, Score
from filters.run.writers import ShardWriter

Work = Callable[[], int]

# datatrove insists on the distribution name fasttext-numpy2-wheel; any binding does.
FastTextClassifierFilter._requires_dependencies = []


def count(stream: Iterable[Any]) -> int:
    """Run a stream to its end; its number of documents."""
    return sum(len(item) if isinstance(item, Batch) else 1 for item in stream)


class Bench:
    """One corpus, and every step on it as a function that returns how many documents it did."""

    def __init__(self, folder: Path, documents: int, stock_documents: int) -> None:
        self.folder, self.documents, self.stock_documents = folder, documents, stock_documents
        self.dump = folder / "dump.parquet"
        self.kind = build(self.dump, documents)
        self.config = FilterConfig.model_validate(
            {
                "input": {"kind": "parquet", "paths": [str(self.dump)], "id_key": "id"},
                "keep": {"min_score": 0.0},
                "output": {"path": str(folder / "run")},
            }
        )
        self.units = plan_units(self.config.reads)
        texts = pq.read_table(self.dump)["text"].to_pylist()
        self.classifier = self._train(texts)
        self.stock = [Document(text=text, id=str(row)) for row, text in enumerate(texts[:stock_documents])]
        self.batches = list(ReadUnits(self.units, self.config.reads).run())
        self.blocks = [
            Fingerprint(self.config.dedup, None),
            Score({"score": "edu-en", "keep": f"{self.classifier}#__label__keep"}),
        ]
        self.language = IdentifyLanguage(LanguageConfig())

    def _train(self, texts: list[str]) -> Path:
        """A fastText model of the size people use: dim 100, word bigrams, 2 million buckets."""
        lines = self.folder / "train.txt"
        flat = [" ".join(text.split()) for text in texts[:600]]
        lines.write_text("".join(f"__label__{'keep' if len(t) % 2 else 'drop'} {t}\n" for t in flat))
        model = fasttext.train_supervised(
            str(lines), dim=100, wordNgrams=2, bucket=2_000_000, epoch=1, thread=1, verbose=0
        )
        path = self.folder / "model.bin"
        model.save_model(str(path))
        return path

    def read(self) -> int:
        return count(ReadUnits(self.units, self.config.reads).run())

    def read_stock(self) -> int:
        return count(ParquetReader(str(self.folder), glob_pattern="dump.parquet").run())

    def language_ours(self) -> int:
        return count(self.language.run(self._fresh()))

    def fingerprint(self) -> int:
        return count(self.blocks[0].run(self._fresh()))

    def minhash_stock(self) -> int:
        config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(precision=64))
        signature = MinhashDedupSignature(str(self.folder / "sigs"), config=config, language=RegexTokenizer("en"))
        count(signature.run(self._stock()) or ())
        return self.stock_documents

    def score_edu(self) -> int:
        return count(self.blocks[1].run(self._fresh()))

    def score_fasttext(self) -> int:
        return count(self.blocks[2].run(self._fresh()))

    def score_stock(self) -> int:
        stock = FastTextClassifierFilter(str(self.classifier), keep_labels=("keep", 0.0), newline_replacement=" ")
        stock._model = getattr(self, "_stock_model", None)
        done = count(stock.run(self._stock()))
        self._stock_model = stock.model
        return done

    def shard(self) -> int:
        schema = pa.schema([field for field in OWN_FIELDS if field.name in ("id", "text")])
        with ShardWriter(self._empty("shards") / "shard.parquet", schema) as writer:
            for batch in self.batches:
                writer.write(pa.table({"id": batch.id, "text": batch.text}))
        return self.documents

    def shard_stock(self) -> int:
        with ParquetWriter(str(self._empty("stock")), compression="zstd") as writer:
            for document in self._stock():
                writer.write(document)
        return self.stock_documents

    def whole(self) -> int:
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        return run_filter(self.config).ledger.total.records

    def _fresh(self) -> list[Batch]:
        for batch in self.batches:
            batch.reason[:] = None
        return self.batches

    def _stock(self) -> list[Document]:
        return [Document(text=document.text, id=document.id) for document in self.stock]

    def _empty(self, name: str) -> Path:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / name).mkdir()
        return self.folder / name


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, documents=8000, stock_documents=600, repeats=5)
    logger.remove()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.documents, options.stock_documents)
        report = Report(
            "pipeline", f"{options.documents:,} documents of about 3,200 characters, {bench.kind}", bind_to_one_core()
        )
        steps: dict[str, tuple[Work, str, Work | None]] = {
            "read Parquet": (bench.read, "ParquetReader", bench.read_stock),
            "language": (bench.language_ours, "", None),
            "fingerprint (exact + MinHash + tokens)": (
                bench.fingerprint,
                "MinhashDedupSignature, regex tokenizer",
                bench.minhash_stock,
            ),
            "score edu-en": (bench.score_edu, "", None),
            "score a fastText .bin": (bench.score_fasttext, "FastTextClassifierFilter", bench.score_stock),
            "write Parquet zstd": (bench.shard, "ParquetWriter zstd", bench.shard_stock),
            "finesieve filter, whole, 1 worker": (bench.whole, "", None),
        }
        sides: dict[str, Side] = {}
        for name, (ours, _, theirs) in steps.items():
            sides[name] = lambda ours=ours: clocked(ours)  # type: ignore[misc]
            if theirs is not None:
                sides[f"{name}: block"] = lambda theirs=theirs: clocked(theirs)  # type: ignore[misc]
        timings = in_turn(sides, options.repeats)
    for name, (_, block, _) in steps.items():
        theirs_timings = timings.get(f"{name}: block")
        found = ratios(timings[name], theirs_timings) if theirs_timings else speed(timings[name])
        report.add(Row(row=f"step.{name}", what=name, against=block, **found))
    report.write(options.results)


if __name__ == "__main__":
    main()
