"""datatrove's own recipe for the same job: four minhash stages, then FastTextClassifierFilter and ParquetWriter.

Request: input (folder of one Parquet or WARC file), kind, model, threshold, work (empty folder), tokenizer ("spacy": as
datatrove ships it, or "regex"), limit (documents, -1 for all). Answer: seconds, cpu_seconds, documents read, ids kept.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from answering import answer
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import FastTextClassifierFilter
from datatrove.pipeline.readers import ParquetReader, WarcReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer
from loguru import logger


class RegexTokenizer(WordTokenizer):
    """Words by a regular expression: what remains of datatrove's cost without spaCy."""

    WORD = re.compile(r"\w+|[^\w\s]+")

    def word_tokenize(self, text: str) -> list[str]:
        return self.WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def drain(stream: Any) -> int:
    count = 0
    for _ in stream or ():
        count += 1
    return count


SPACY = "eng"
models: dict[str, Any] = {}
REGEX = RegexTokenizer("eng")


def run(request: dict[str, Any]) -> dict[str, Any]:
    work = Path(request["work"])
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(precision=64))
    language = SPACY if request["tokenizer"] == "spacy" else REGEX
    documents = 0

    def read() -> Any:
        nonlocal documents
        limit = request["limit"]
        if request["kind"] == "warc":
            # Extraction is repeated for the filter stage, as in datatrove's examples it is once written out and read
            # again; here the extracted documents stay in memory, in datatrove's favour.
            if "documents" not in extracted:
                extracted["documents"] = list(Trafilatura().run(WarcReader(request["input"], limit=limit).run()))
            documents = len(extracted["documents"])
            return iter(extracted["documents"])
        return ParquetReader(request["input"], glob_pattern="*.parquet", limit=limit).run()

    extracted: dict[str, Any] = {}
    filters = FastTextClassifierFilter(
        request["model"], keep_labels=("keep", request["threshold"]), newline_replacement=" "
    )
    filters._model = models.get(request["model"])
    models[request["model"]] = filters.model  # loading 800 MB is not what is compared
    start, cpu = time.perf_counter(), sum(os.times()[:4])  # Trafilatura runs in a child
    drain(MinhashDedupSignature(str(work / "signatures"), config=config, language=language).run(read()))
    for rank in range(14):
        MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=config).run(None, rank, 14)
    MinhashDedupCluster(str(work / "buckets"), str(work / "remove"), config=config).run(None)
    stream = filters.run(MinhashDedupFilter(str(work / "remove")).run(read()))
    with ParquetWriter(str(work / "data"), compression="zstd", output_filename="${rank}.parquet") as writer:
        for document in stream:
            writer.write(document)
    taken = {"seconds": time.perf_counter() - start, "cpu_seconds": sum(os.times()[:4]) - cpu}
    kept = [i for path in sorted((work / "data").glob("*.parquet")) for i in pq.read_table(path)["id"].to_pylist()]
    return {**taken, "documents": documents or request["limit"], "kept": kept}


if __name__ == "__main__":
    logger.remove()
    answer(run)
