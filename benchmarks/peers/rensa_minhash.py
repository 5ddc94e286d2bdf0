"""rensa's RMinHash of 112 permutations, shingles of five words built from text, cut into 14 bands of 8.

Request: input (a Parquet file), documents. Answer: seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import pyarrow.parquet as pq
from rensa import RMinHash


def run(texts: list[str]) -> dict[str, Any]:
    start = time.perf_counter()
    bands = 0
    for text in texts:
        words = text.lower().split()
        signature = RMinHash(num_perm=112, seed=1)
        signature.update([" ".join(words[i : i + 5]) for i in range(max(len(words) - 4, 1))])
        digest = signature.digest()
        bands += len([tuple(digest[b : b + 8]) for b in range(0, 112, 8)])
    assert bands == 14 * len(texts)
    return {"seconds": time.perf_counter() - start}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    for line in sys.stdin:
        request = json.loads(line)
        texts = pq.read_table(request["input"], columns=["text"])["text"].to_pylist()[: request["documents"]]
        answers.write(json.dumps(run(texts)) + "\n")


if __name__ == "__main__":
    main()
