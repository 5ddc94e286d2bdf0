"""dolma's Rust `dedupe` (exact, documents) and `mix`, by its extension module alone.

Request: input (folder of documents/*.jsonl.gz), documents (how many). Answer: seconds, cpu_seconds, documents. The
extension is loaded without the package round it, whose taggers import two dozen distributions that neither step uses.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import shutil
import time
from pathlib import Path
from typing import Any

from answering import answer


def load() -> Any:
    found = importlib.util.find_spec("dolma")
    assert found is not None
    assert found.origin is not None
    library = next(Path(found.origin).parent.glob("dolma*.so"))
    loader = importlib.machinery.ExtensionFileLoader("dolma", str(library))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("dolma", loader))  # type: ignore[arg-type]
    loader.exec_module(module)
    return module


def run(dolma: Any, request: dict[str, Any]) -> dict[str, Any]:
    root = Path(request["input"])
    for name in ("attributes", "mixed", "work"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "bloom").unlink(missing_ok=True)
    (root / "work").mkdir()
    documents = [str(root / "documents" / "*.gz")]
    work = {"input": str(root / "work"), "output": str(root / "work")}
    dedupe = {
        "documents": documents,
        "work_dir": work,
        "dedupe": {
            "name": "dups",
            "documents": {"attribute_name": "duplicate", "key": "$.text"},
            "skip_empty": True,
        },
        "bloom_filter": {
            "file": str(root / "bloom"),
            "read_only": False,
            "size_in_bytes": 0,
            # Far more than there are: for few documents dolma makes a filter with 700 hash functions, which is slow.
            "estimated_doc_count": max(request["documents"], 500_000),
            "desired_false_positive_rate": 1e-5,
        },
        "processes": 1,
    }
    mix = {
        "streams": [
            {
                "name": "kept",
                "documents": documents,
                "attributes": ["dups"],
                "output": {"path": str(root / "mixed"), "max_size_in_bytes": 512 * 2**20},
                "filter": {"include": [], "exclude": ["$.attributes[?(@.duplicate[0])]"]},
            }
        ],
        "work_dir": work,
        "processes": 1,
    }
    start, cpu = time.perf_counter(), time.process_time()
    dolma.deduper_entrypoint(json.dumps(dedupe))
    dolma.mixer_entrypoint(json.dumps(mix))
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "documents": request["documents"],
    }


if __name__ == "__main__":
    dolma = load()
    answer(lambda request: run(dolma, request))
