"""Classifier kinds side by side: nested cross-validation on the same labels, and documents scored per second.

    python benchmarks/classifiers.py ANNOTATIONS CONFIG... [--set KEY=VALUE] [--output RESULTS.json]

Each CONFIG is one of configs/train-*.yaml, optionally NAME=CONFIG; `--set` overrides a key in all of them, and a CONFIG
may carry its own after commas: `ordinal=configs/train-edu-en.yaml,classifier.loss=ordinal`. Rows of the same name in
the output are replaced, others stay. Speed is that of one thread on pages of 3 KB, from Python strings to scores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from filters.config import load_config
from filters.train.annotations import read_annotations
from filters.train.config import TrainConfig
from filters.train.training import train

METRICS = ("f1", "best_f1", "pr_auc", "roc_auc", "spearman", "mae")
PAGE = 3072
SECONDS = 3.0


def speed(model: Any, texts: list[str]) -> float:
    """Documents per second of CPU time, the best of several passes."""
    model.score(texts[:32])
    best, spent = 0.0, 0.0
    while spent < SECONDS:
        start = time.process_time()
        model.score(texts)
        seconds = time.process_time() - start
        best, spent = max(best, len(texts) / seconds), spent + seconds
    return best


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations")
    parser.add_argument("configs", nargs="+", metavar="CONFIG")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "classifiers.json")
    options = parser.parse_args()
    labels = read_annotations(options.annotations)
    pages = [text for text in labels.texts if len(text) >= PAGE] or list(labels.texts)
    pages = [pages[number % len(pages)][:PAGE] for number in range(2000)]
    rows: dict[str, Any] = {}
    if options.output.is_file():
        rows = {row["name"]: row for row in json.loads(options.output.read_text())["rows"]}
    for given in options.configs:
        name, separator, rest = given.partition("=")
        if not separator or "," in name or "/" in name:
            name, rest = "", given
        path, *own = rest.split(",")
        with tempfile.TemporaryDirectory() as folder:
            overrides = [f"annotations={options.annotations}", f"output={folder}/model", *options.overrides, *own]
            config = load_config(TrainConfig, Path(path), overrides)
            name = name or Path(path).stem.removeprefix("train-")
            print(f"== {name}", flush=True)
            result = train(config, echo=lambda line: print("  ", line, flush=True))
            size = sum(file.stat().st_size for file in (Path(folder) / "model").rglob("*") if file.is_file())
            few = pages if config.classifier.kind not in ("encoder", "ensemble") else pages[:64]
            rows[name] = {
                "name": name,
                "kind": config.classifier.kind,
                "classifier": config.classifier.model_dump(mode="json"),
                "window": config.window,
                "windows": config.windows,
                "balance": config.balance,
                "distilled": config.distill is not None,
                "validation": config.validation.model_dump(),
                "sample": {key: result.sample[key].model_dump() for key in METRICS},
                "natural": result.natural and {key: result.natural[key].model_dump() for key in METRICS},
                "compared": {
                    other: {key: part[key].model_dump() for key in METRICS} for other, part in result.compared.items()
                },
                "docs_per_second": round(speed(result.model, few), 1),
                "bytes": size,
                "seconds": round(result.seconds, 1),
            }
        about = {
            "annotations": labels.name,
            "annotations_sha256": labels.sha256,
            "labels": len(labels),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "rows": sorted(rows.values(), key=lambda row: -row["sample"]["pr_auc"]["value"]),
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(about, indent=1) + "\n")
    for row in about["rows"]:
        shown = {key: row["sample"][key] for key in ("best_f1", "pr_auc", "spearman")}
        cells = "  ".join(f"{key} {e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}]" for key, e in shown.items())
        print(f"{row['name']:24}{cells}  {row['docs_per_second']:>9,.0f} docs/s  {row['bytes'] / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
