"""Classifier kinds side by side: nested cross-validation on the same labels, and documents scored per second.

    python -m benchmarks.classifiers ANNOTATIONS CONFIG... [--set KEY=VALUE] [--output RESULTS.json]
    python -m benchmarks.classifiers --tables        # README's tables of the results that are there

Each CONFIG is one of configs/train-*.yaml, optionally NAME=CONFIG; `--set` overrides a key in all of them, and a CONFIG
may carry its own after commas: `ordinal=configs/train-edu-en.yaml,classifier.loss=ordinal`. Rows of the same name in
the output are replaced, others stay. Speed is that of one thread on pages of 3 KB, from Python strings to scores.

The rows beside the shipped configs, each with `--set validation.repeats=1 --set validation.inner_folds=2`:

    fasttext=configs/train-edu-fasttext.yaml
    linear=configs/train-edu-linear.yaml
    linear-ordinal=configs/train-edu-linear.yaml,classifier.loss=ordinal
    linear-classification=configs/train-edu-linear.yaml,classifier.loss=classification
    linear-balanced=configs/train-edu-linear.yaml,balance=sqrt
    linear-begin-middle-end=configs/train-edu-linear.yaml,windows=begin-middle-end,window=1500
    linear-max=configs/train-edu-linear.yaml,windows=max
    linear-length-weighted=configs/train-edu-linear.yaml,windows=length-weighted
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


KINDS = {
    "fasttext": "`fasttext`",
    "edu-linear": "`linear`: hashed words and pairs, ridge",
    "edu-minilm": "`encoder`: MiniLM, support vectors",
    "edu-en": "`static`: the embedded model",
    "encoder-svr": "`encoder`: SmolLM2's middle layers on 320 tokens, support vectors",
    "edu-encoder": "`ensemble`: the encoder on 1,800 characters, stacked with MiniLM and `linear`",
}
LOSSES = {
    "linear": "`regression` to the expected score",
    "linear-balanced": "the same, kept pages weighing more (`balance: sqrt`)",
    "linear-ordinal": "`ordinal`: all thresholds of the scale",
    "linear-classification": "`classification`: keep or drop",
}
WINDOWS = {
    "linear": "`first`: 3,000 characters",
    "linear-length-weighted": "`length-weighted`: windows of 3,000",
    "linear-max": "`max` of windows of 3,000",
    "linear-begin-middle-end": "`begin-middle-end`: the mean of three of 1,500",
}


def tables(results: dict[str, Any]) -> dict[str, list[str]]:
    """README's Markdown tables, by name, of the rows that are among the results.

    Args:
        results: content of results/classifiers.json.
    """
    rows = {row["name"]: row for row in results["rows"]}

    def cells(row: dict[str, Any], names: tuple[str, ...]) -> list[str]:
        return ["{value:.3f} [{low:.3f}, {high:.3f}]".format(**row["sample"][name]) for name in names]

    kinds = ["| kind | F1 at the keep rule | PR-AUC | Spearman | docs/s | MB |", "|---|---|---|---|---:|---:|"]
    for name, label in KINDS.items():
        if name in rows:
            row = rows[name]
            speed = (
                f"{row['docs_per_second']:,.0f}" if row["docs_per_second"] >= 100 else f"{row['docs_per_second']:.1f}"
            )
            shown = " | ".join(cells(row, ("f1", "pr_auc", "spearman")))
            kinds.append(f"| {label} | {shown} | {speed} | {row['bytes'] / 1e6:.1f} |")
    found = {"kinds": kinds}
    for title, named in (("loss", LOSSES), ("windows", WINDOWS)):
        lines = [f"| {title} | best F1 | PR-AUC | Spearman |", "|---|---|---|---|"]
        lines += [
            f"| {label} | {' | '.join(cells(rows[name], ('best_f1', 'pr_auc', 'spearman')))} |"
            for name, label in named.items()
            if name in rows
        ]
        found[title] = lines
    if "edu-distilled" in rows:
        row = rows["edu-distilled"]
        parts = {"labels alone": row["compared"]["undistilled"], "labels and pseudo-labels": row["sample"]}
        parts["the teacher"] = row["compared"]["teacher"]
        found["distillation"] = ["| `linear`, distilled | best F1 | PR-AUC | Spearman |", "|---|---|---|---|"] + [
            f"| {label} | {' | '.join(cells({'sample': part}, ('best_f1', 'pr_auc', 'spearman')))} |"
            for label, part in parts.items()
        ]
    return found


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", nargs="?")
    parser.add_argument("configs", nargs="*", metavar="CONFIG")
    parser.add_argument("--tables", action="store_true", help="print README's tables, measure nothing")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "classifiers.json")
    options = parser.parse_args()
    if options.tables:
        for lines in tables(json.loads(options.output.read_text())).values():
            print("\n".join(lines), end="\n\n")
        return
    if not options.annotations or not options.configs:
        parser.error("give ANNOTATIONS and at least one CONFIG")
    labels = read_annotations(options.annotations)
    pages = [text for text in labels.texts if len(text) >= PAGE] or list(labels.texts)
    pages = [pages[number % len(pages)][:PAGE] for number in range(2000)]
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
            row = {
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
        # Read now, not at the start: another run may have written its rows in the meantime.
        rows: dict[str, Any] = {}
        if options.output.is_file():
            rows = {known["name"]: known for known in json.loads(options.output.read_text())["rows"]}
        rows[name] = row
        about: dict[str, Any] = {
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
