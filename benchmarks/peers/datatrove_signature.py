"""datatrove's MinhashDedupSignature: stage 1 of its four, 5-grams of words, 14 bands of 8.

Request: input (a Parquet file), documents, tokenizer ("spacy": as datatrove ships it, or "regex"), work (empty folder).
Answer: seconds, cpu_seconds, documents. Documents are made before the clock starts.
"""

from __future__ import annotations

import time
from typing import Any

import pyarrow.parquet as pq
from answering import answer
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig
from datatrove_recipe import REGEX, SPACY, drain
from loguru import logger


def run(request: dict[str, Any]) -> dict[str, Any]:
    texts = pq.read_table(request["input"], columns=["text"])["text"].slice(0, request["documents"]).to_pylist()
    documents = [Document(text=text, id=str(row)) for row, text in enumerate(texts)]
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(precision=64))
    language = SPACY if request["tokenizer"] == "spacy" else REGEX
    signature = MinhashDedupSignature(request["work"], config=config, language=language)
    start, cpu = time.perf_counter(), time.process_time()
    drain(signature.run(iter(documents)))
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "documents": len(documents),
    }


if __name__ == "__main__":
    logger.remove()
    answer(run)
