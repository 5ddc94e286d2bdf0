"""A peer's side of `benchmarks/peer.py`: requests on standard input, a JSON line each, a line of answer for each."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def answer(run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer every request with what `run` makes of it, until there are no more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
