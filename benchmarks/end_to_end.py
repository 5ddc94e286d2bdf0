"""`finesieve filter` from end to end beside what else does that job: datatrove's recipe, dolma, pyarrow's copy.

    python benchmarks/end_to_end.py [--documents 40000] [--stock-documents 300] [--repeats 5]

One worker each. Every repeat runs ours and theirs in turn; a ratio is the median of the ratios of the repeats. Peers
live in environments of their own (benchmarks/.peers), import and load their models before the clock starts (ours are
timed with both), and get fewer documents where they are slow; the stock recipe is linear in them. Results:
benchmarks/results/end_to_end.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import fasttext
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from corpus import SHARED, build, machine
from loguru import logger
from peer import Peer

from filters import FilterConfig, run_filter

RESULTS = Path(__file__).parent / "results" / "end_to_end.json"
DATATROVE = [
    "datatrove[io,processing]==0.10.1",
    "spacy>=3.8",
    "tokenizers>=0.20",
    "trafilatura==1.11.0",
    "lxml-html-clean",
]
DOLMA = ["--no-deps", "dolma==1.2.1"]
WARC = SHARED / "warc" / "wcxb-dev-00.warc.gz"
TWO_WORKERS = 160_000
"""Documents for the comparison of workers: enough that starting one is a small part."""


@dataclass(frozen=True)
class Row:
    """A comparison; each side returns its seconds per document.

    Attributes:
        target: what the ratio theirs/ours is to reach ("at least"), or, with `at_most`, ours/theirs.
    """

    name: str
    peer: str
    ours: Callable[[], float]
    theirs: Callable[[], float]
    target: float
    at_most: bool = False


class Bench:
    """One corpus in every format, and what is run on it."""

    def __init__(self, folder: Path, documents: int, stock_documents: int) -> None:
        self.folder, self.documents, self.stock_documents = folder, documents, stock_documents
        self.dump = folder / "parquet" / "dump.parquet"
        self.dump.parent.mkdir()
        self.kind = build(self.dump, documents)
        self.table = pq.read_table(self.dump)
        rows = self.table.to_pylist()
        lines = b"".join(json.dumps({**row, "source": "bench"}).encode() + b"\n" for row in rows)
        (folder / "documents").mkdir()
        self.gzip, self.zstd = folder / "documents" / "dump.jsonl.gz", folder / "dump.jsonl.zst"
        self.gzip.write_bytes(gzip.compress(lines, 6))
        self.zstd.write_bytes(zstandard.ZstdCompressor(level=3).compress(lines))
        self.model = self._train([row["text"] for row in rows])
        self.kept: dict[str, set[str]] = {}

    def _train(self, texts: list[str]) -> Path:
        """A fastText model of the size people use, of a label that words do tell: whether they are long."""
        flat = [" ".join(text.split()) for text in texts[:1500]]
        lengths = [len(text) / max(text.count(" "), 1) for text in flat]
        middle = statistics.median(lengths)
        path = self.folder / "train.txt"
        path.write_text(
            "".join(f"__label__{'keep' if n > middle else 'drop'} {t}\n" for n, t in zip(lengths, flat, strict=True))
        )
        model = fasttext.train_supervised(
            str(path), dim=100, wordNgrams=2, bucket=2_000_000, epoch=3, thread=1, verbose=0
        )
        model.save_model(str(self.folder / "model.bin"))
        return self.folder / "model.bin"

    def filter(self, kind: str, path: Path, workers: int = 1, **more: Any) -> float:
        """Seconds per document of a whole run."""
        output = self.folder / "run"
        shutil.rmtree(output, ignore_errors=True)
        config = FilterConfig.model_validate(
            {
                "input": {"kind": kind, "paths": [str(path)], **({} if kind == "warc" else {"id_key": "id"})},
                "model": f"{self.model}#__label__keep",
                "keep": {"min_score": 0.5},
                "output": {"path": str(output)},
                "executor": {"workers": workers},
                **more,
            }
        )
        start = time.perf_counter()
        result = run_filter(config)
        seconds = time.perf_counter() - start
        self.kept["ours"] = {
            i for shard in result.shards for i in pq.read_table(shard, columns=["id"])["id"].to_pylist()
        }
        return seconds / result.ledger.total.records

    def parquet(self) -> float:
        return self.filter("parquet", self.dump)

    def copy(self) -> float:
        """pyarrow reads and writes the same rows: what any filter that keeps everything must at least do."""
        start = time.perf_counter()
        pq.write_table(pq.read_table(self.dump), self.folder / "copy.parquet", compression="zstd")
        return (time.perf_counter() - start) / self.documents

    def recipe(self, peer: Peer, tokenizer: str, kind: str = "parquet", source: Path | None = None) -> float:
        """Seconds per document of datatrove's recipe."""
        answer = peer.ask(
            input=str(source or self.dump.parent),
            kind=kind,
            model=str(self.model),
            threshold=0.5,
            work=str(self.folder / "stock"),
            tokenizer=tokenizer,
            limit=-1 if kind == "warc" else self.stock_documents,
        )
        if kind == "parquet":
            self.kept["datatrove"] = set(answer["kept"])
        return float(answer["seconds"]) / int(answer["documents"])

    def rows(self, stack: ExitStack) -> list[Row]:
        """Every comparison that can be run here; what cannot says so."""
        datatrove = stack.enter_context(Peer("datatrove", DATATROVE, "datatrove_recipe.py"))
        dolma = stack.enter_context(Peer("dolma", DOLMA, "dolma_dedupe_mix.py"))
        parquet = self.parquet
        rows = [
            Row("filter, Parquet to Parquet", "datatrove's recipe as it ships (spaCy)", parquet,
                lambda: self.recipe(datatrove, "spacy"), 80),
            Row("filter, Parquet to Parquet", "datatrove's recipe with a regex tokenizer", parquet,
                lambda: self.recipe(datatrove, "regex"), 0),
            Row("filter, Parquet to Parquet", "dolma's dedupe (exact) + mix alone, jsonl.gz", parquet,
                lambda: dolma.ask(input=str(self.folder), documents=self.documents)["seconds"] / self.documents, 1),
            Row("filter, Parquet to Parquet", "pyarrow only copying the rows", parquet, self.copy, 4, at_most=True),
            Row("filter, jsonl.gz in", "filter, Parquet in", lambda: self.filter("jsonl", self.gzip), parquet,
                1.6, at_most=True),
            Row("filter, jsonl.zst in", "filter, Parquet in", lambda: self.filter("jsonl", self.zstd), parquet,
                1.6, at_most=True),
        ]  # fmt: skip
        if WARC.exists():
            folder = self.folder / "warc"
            folder.mkdir()
            shutil.copy(WARC, folder)
            rows.append(
                Row("filter, WARC with resiliparse", "datatrove's WarcReader + Trafilatura + recipe (spaCy)",
                    lambda: self.filter("warc", WARC), lambda: self.recipe(datatrove, "spacy", "warc", folder), 8)
            )  # fmt: skip
        else:
            print(f"SKIPPED: the WARC row: {WARC} is not here")
        return rows


def workers(folder: Path, bench: Bench, repeats: int) -> dict[str, Any]:
    """Two workers against one, worker start included."""
    dump = folder / "many.parquet"
    pieces = [bench.table.set_column(0, "id", pa.array([f"{copy}-{i}" for i in bench.table["id"].to_pylist()]))
              for copy in range(max(TWO_WORKERS // bench.documents, 2))]  # fmt: skip
    pq.write_table(pa.concat_tables(pieces), dump, row_group_size=5000, compression="zstd")
    off = {"dedup": {"exact": False}}  # copies of the corpus would all be duplicates
    ratios, seconds = [], []
    for _ in range(repeats):
        one, two = (bench.filter("parquet", dump, workers=n, **off) for n in (1, 2))
        ratios.append(one / two)
        seconds.append((one, two))
    return {
        "documents": len(pieces) * bench.documents,
        "docs_per_s_1": round(1 / statistics.median(one for one, _ in seconds)),
        "docs_per_s_2": round(1 / statistics.median(two for _, two in seconds)),
        "speedup": round(statistics.median(ratios), 2),
        "speedup_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "target": 1.8,
    }


def table_row(row: dict[str, Any]) -> str:
    """A row of README.md's table, from one of the results."""
    bound = f"at most {row['target']:g}x its time" if row["at_most"] else f"at least {row['target']:g}x"
    digits = 2 if row["at_most"] else 0 if row["ratio"] >= 10 else 1
    how = f"{row['ratio']:.{digits}f}x" + (" its time" if row["at_most"] else "")
    cells = (row["what"], f"{row['docs_per_s']:,}", row["peer"], f"{row['peer_docs_per_s']:,}", how)
    return "| " + " | ".join((*cells, bound if row["target"] else "")) + " |"


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=40000)
    parser.add_argument("--stock-documents", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    logger.remove()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        bench = Bench(Path(name), arguments.documents, arguments.stock_documents)
        rows = bench.rows(stack)
        for row in rows:
            row.ours()
            row.theirs()
        bench.parquet()
        seen = {str(i) for i in range(arguments.stock_documents)}
        same = {
            "documents": len(seen),
            "kept_by_both": len(seen & bench.kept["ours"] & bench.kept["datatrove"]),
            "kept_by_one_only": len((seen & bench.kept["ours"]) ^ bench.kept["datatrove"]),
        }
        pairs: list[list[tuple[float, float]]] = [[] for _ in rows]
        for _ in range(arguments.repeats):
            for row, measured in zip(rows, pairs, strict=True):
                measured.append((row.ours(), row.theirs()))
        results = []
        for row, measured in zip(rows, pairs, strict=True):
            ratios = [ours / theirs if row.at_most else theirs / ours for ours, theirs in measured]
            results.append(
                {
                    "what": row.name,
                    "docs_per_s": round(1 / statistics.median(ours for ours, _ in measured)),
                    "peer": row.peer,
                    "peer_docs_per_s": round(1 / statistics.median(theirs for _, theirs in measured)),
                    "ratio": round(statistics.median(ratios), 2),
                    "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
                    "target": row.target,
                    "at_most": row.at_most,
                }
            )
            print(table_row(results[-1]), flush=True)
        scaling = workers(Path(name), bench, 3)
        print(f"2 workers: {scaling['speedup']}x 1 worker on {scaling['documents']:,} documents")
        print(f"same decisions as datatrove's recipe: {same}")
        report = {
            "corpus": f"{arguments.documents} x about 3,200 characters of {bench.kind}",
            "repeats": arguments.repeats,
            "machine": machine(),
            "results": results,
            "workers": scaling,
            "same_decisions": same,
        }
        RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
