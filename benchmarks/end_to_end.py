"""`finesieve filter`, Parquet to Parquet, beside what else does that job: datatrove's recipe, dolma, pyarrow's copy.

    python -m benchmarks.end_to_end [--documents 40000] [--stock-documents 300] [--repeats 5]

One worker, one core. Peers import and load their models before the clock starts; ours loads its model within the time.
The stock recipe as it ships (spaCy) gets `--stock-documents`, with a regex tokenizer ten times as many: it is linear in
them. It must decide as ours does on every document both have seen.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
from loguru import logger

from benchmarks.filtering import THRESHOLD, Job
from benchmarks.measure import (
    Report,
    Row,
    Side,
    Timing,
    answered,
    arguments,
    bind_to_one_core,
    clocked,
    in_turn,
    ratios,
)
from benchmarks.peer import Peer, PeerError

FILTER = "`finesieve filter`, Parquet to Parquet"
EVERYTHING = {"keep": {"min_score": 0.0}}


class Peers:
    """The sides that are not ours."""

    def __init__(self, job: Job, stock_documents: int) -> None:
        self.job, self.stock_documents = job, stock_documents
        self.kept: set[str] = set()

    def recipe(self, peer: Peer, tokenizer: str) -> Timing:
        """datatrove's recipe."""
        answer = peer.ask(
            input=str(self.job.dump.parent),
            kind="parquet",
            model=str(self.job.model),
            threshold=THRESHOLD,
            work=str(self.job.folder / "stock"),
            tokenizer=tokenizer,
            limit=self.stock_documents * (1 if tokenizer == "spacy" else 10),
        )
        if tokenizer == "spacy":
            self.kept = set(answer["kept"])
        return answered(answer)

    def dolma(self, peer: Peer) -> Timing:
        """dolma's exact deduplication and mix, without near duplicates or scores."""
        return answered(peer.ask(input=str(self.job.folder), documents=self.job.documents))

    def copy(self) -> Timing:
        """pyarrow reads and writes the same rows."""

        def work() -> int:
            table = pq.read_table(self.job.dump)
            pq.write_table(table, self.job.folder / "copy.parquet", compression="zstd")
            return int(table.num_rows)

        return clocked(work)


def write_jsonl(job: Job) -> None:
    """The corpus as dolma reads it."""
    rows = pq.read_table(job.dump).to_pylist()
    lines = b"".join(json.dumps({**row, "source": "bench"}).encode() + b"\n" for row in rows)
    (job.folder / "documents").mkdir()
    (job.folder / "documents" / "dump.jsonl.gz").write_bytes(gzip.compress(lines, 6))


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, documents=40_000, stock_documents=300, repeats=5)
    logger.remove()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        job = Job(Path(name), options.documents)
        report = Report("end_to_end", job.corpus, bind_to_one_core())
        peers = Peers(job, min(options.stock_documents, options.documents // 10))
        sides: dict[str, Side] = {"ours": job.run, "ours, everything": lambda: job.run(**EVERYTHING)}
        try:
            datatrove = stack.enter_context(Peer("datatrove", "datatrove_recipe.py"))
            sides |= {
                "spacy": lambda: peers.recipe(datatrove, "spacy"),
                "regex": lambda: peers.recipe(datatrove, "regex"),
            }
        except PeerError as error:
            report.skip("filter beside datatrove's recipe", str(error))
        try:
            dolma = stack.enter_context(Peer("dolma", "dolma_dedupe_mix.py"))
            write_jsonl(job)
            sides["dolma"] = lambda: peers.dolma(dolma)
        except PeerError as error:
            report.skip("filter beside dolma", str(error))
        sides["copy"] = peers.copy
        timings = in_turn(sides, options.repeats)
        ours, everything = timings["ours"], timings["ours, everything"]
        if "spacy" in timings:
            report.add(
                Row(row="filter.datatrove-spacy", what=FILTER, target=80,
                    against="datatrove's recipe as it ships (spaCy)", **ratios(ours, timings["spacy"])),
                Row(row="filter.datatrove-regex", what=FILTER,
                    against="the same with a regex tokenizer", **ratios(ours, timings["regex"])),
            )  # fmt: skip
            job.run()
            seen = {str(row) for row in range(peers.stock_documents)}
            ours_kept = job.kept() & seen
            report.details["same_decisions"] = {
                "documents": len(seen),
                "kept_by_both": len(ours_kept & peers.kept),
                "kept_by_one_only": len(ours_kept ^ peers.kept),
            }
            print(f"  decisions beside datatrove's: {report.details['same_decisions']}")
        if "dolma" in timings:
            report.add(
                Row(row="filter.dolma", what=FILTER, target=1,
                    against="dolma's Rust `dedupe` (exact) + `mix` alone, jsonl.gz to jsonl.gz",
                    **ratios(ours, timings["dolma"]))
            )  # fmt: skip
        report.add(
            Row(row="filter.copy", what=f"{FILTER}, every row kept but duplicates", target=4,
                against="pyarrow only copying the same rows", **ratios(everything, timings["copy"], of="time"))
        )  # fmt: skip
        report.write(options.results)


if __name__ == "__main__":
    main()
