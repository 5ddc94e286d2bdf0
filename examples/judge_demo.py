"""The whole path from a judge to a classifier, offline: what `make demo-annotate` runs.

A 135-million-parameter model, served on loopback, judges 60 pages in two ways; the report says how far they agree; a
toy classifier is trained on the result. The pages are ../shared/data/web where that is there, else the documentation of
the installed Python packages.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

from examples.python_docs import write
from examples.small_judge import CONTEXT, MODEL, ROOT, running

FOLDER = Path("runs/demo-annotate").resolve()  # paths in a config are relative to its folder
PAGES = 60
PAGE_TOKENS = 96
"""So little of a page is shown, because a processor core reads about 120 tokens a second with this model."""


def main() -> None:
    """Serve, annotate, report, train."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("answers.sqlite", "answers.sqlite-wal", "answers.sqlite-shm"):
        (FOLDER / name).unlink(missing_ok=True)
    config = FOLDER / "judge.yaml"
    with running(max(1, min(4, os.cpu_count() or 1)), FOLDER / "server.log") as addresses:
        config.write_text(yaml.safe_dump(judge_config(addresses), sort_keys=False), encoding="utf-8")
        begun = time.monotonic()
        finesieve("annotate", str(config), "--yes")
        seconds = time.monotonic() - begun
    finesieve("annotate", str(config), "--report")
    labels = FOLDER / "annotations" / "annotations.parquet"
    expected = np.array(pq.read_table(labels, columns=["expected_score"]).column(0).to_pylist())
    training = FOLDER / "train.yaml"
    training.write_text(yaml.safe_dump(train_config(labels, float(np.median(expected))), sort_keys=False))
    finesieve("train", str(training), "--overwrite")
    print(
        f"\n{PAGES} pages, {PAGE_TOKENS} tokens of each, judged in two ways in {seconds:.0f} s.\n"
        "What this is: every part of the path, from a sample over a judge behind an HTTP server, its store and the\n"
        "agreement report to a model folder, with real components and no network.\n"
        "What it is not: labels. A model of 135 million parameters cannot judge pages; see how little it agrees with\n"
        "itself. The classifier learned its whims. For real labels give configs/judge.yaml a real judge."
    )


def judge_config(addresses: list[str]) -> dict[str, object]:
    """One model asked in two ways: for the distribution over scores, and for two drawn answers."""
    dump = ROOT.parent / "shared" / "data" / "web" / "unlabelled.parquet"
    if dump.is_file():
        source: dict[str, object] = {"kind": "parquet", "paths": [str(dump)], "id_key": "id"}
    else:
        write(FOLDER / "python-docs.parquet")
        source = {"kind": "parquet", "paths": [str(FOLDER / "python-docs.parquet")]}
    judge = {
        "base_urls": [f"{address}/v1" for address in addresses],
        "model": MODEL,
        "context_tokens": CONTEXT,
        "max_page_tokens": PAGE_TOKENS,
        "max_concurrency": 1,
    }
    return {
        "input": source,
        "sample": {"size": PAGES},
        "rubric": str(ROOT / "configs" / "rubrics" / "edu.yaml"),
        "judges": [
            {"name": "smollm2-expected", **judge, "mode": "expected"},
            {"name": "smollm2-sample", **judge, "mode": "sample", "repeats": 2, "max_answer_tokens": 4},
        ],
        "store": str(FOLDER / "answers.sqlite"),
        "export": str(FOLDER / "annotations"),
    }


def train_config(labels: Path, cut: float) -> dict[str, object]:
    """A classifier on 60 labels, kept above their median: there is no keep rule these labels would deserve."""
    return {
        "annotations": str(labels),
        "output": str(FOLDER / "toy-model"),
        "name": "toy",
        "keep": {"min_score": round(cut, 3)},
        "validation": {"folds": 3, "repeats": 1, "inner_folds": 3, "resamples": 100},
        "remarks": ["A toy: its labels come from a model of 135 million parameters and mean nothing."],
    }


def finesieve(*arguments: str) -> None:
    """Run the command as a user would, and show it."""
    print(f"\n$ finesieve {shlex.join(arguments)}", flush=True)
    program = Path(sys.executable).with_name("finesieve")
    result = subprocess.run([str(program), *arguments], check=False)
    if result.returncode:
        sys.exit(result.returncode)


if __name__ == "__main__":
    main()
