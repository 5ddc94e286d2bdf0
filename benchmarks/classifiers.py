"""Classifier kinds side by side: nested cross-validation on the same labels, and documents scored per second.

    python -m benchmarks.classifiers ANNOTATIONS ROW... [--set KEY=VALUE] [--output RESULTS.json]
    python -m benchmarks.classifiers --tables        # README's tables of the results that are there

Each ROW is a name in `ROWS`, or one of configs/train-*.yaml, optionally NAME=CONFIG. `--set` overrides a key in all of
them, and a CONFIG may carry its own after commas: `four-layers=configs/train-edu-minilm.yaml,window=1800`. Rows of the
same name in the output are replaced, others stay.

Out-of-fold scores are kept in runs/classifiers/, so that a row in `AGAINST` is compared, by a paired bootstrap, with
one measured earlier on the same folds. Speed is that of one thread on pages of 3 KB, from Python strings to scores.
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

import numpy as np
import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from filters.config.yaml_file import load_config
from filters.statistics.resampling import Measure
from filters.train.annotations import Annotations, read_annotations
from filters.train.config import TrainConfig
from filters.train.evaluation import compare
from filters.train.training import TrainResult, train

METRICS = ("f1", "best_f1", "pr_auc", "roc_auc", "spearman", "mae")
PAGE = 3072
SECONDS = 3.0
ENCODED = 32
"""Pages that the speed of an encoder is taken on."""
SCORES = Path("runs/classifiers")


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


LINEAR, ENCODER = "configs/train-edu-linear.yaml", "configs/train-edu-encoder.yaml"
ALONE = ["classifier.beside=[]", "classifier.head={kind: svr, c: [2.0], gamma: 0.3}"]
"""SmolLM2 without what stands beside it in the config."""
ONCE = ["validation.repeats=1", "validation.inner_folds=2"]
"""What is only compared is cross-validated once."""
# Candidates of each head reach from too weak to too strong a penalty; inner cross-validation chooses.
HEADS = {
    "ridge": "kind: ridge, l2: [0.25, 0.5, 1.0, 2.0]",
    "landmarks": "kind: landmarks, landmarks: 3000, gamma: 0.3, l2: [0.03, 0.1, 0.3]",
}
ROWS: dict[str, tuple[str, list[str]]] = {
    "fasttext": ("configs/train-edu-fasttext.yaml", ONCE),
    "linear": (LINEAR, ONCE),
    "linear-balanced": (LINEAR, ["balance=sqrt", *ONCE]),
    "linear-begin-middle-end": (LINEAR, ["windows=begin-middle-end", "window=1500", *ONCE]),
    "linear-max": (LINEAR, ["windows=max", *ONCE]),
    "linear-length-weighted": (LINEAR, ["windows=length-weighted", *ONCE]),
    "encoder-svr": (
        ENCODER,
        [
            *ALONE,
            "classifier.prefix=null",
            "classifier.max_characters=null",
            "classifier.max_tokens=320",
            "validation.repeats=1",
        ],
    ),
    "encoder": (ENCODER, [*ALONE, *ONCE]),
    "encoder-balanced": (ENCODER, [*ALONE, "balance=sqrt", *ONCE]),
    "static": ("configs/train-edu-en.yaml", ONCE),
}
for _head, _options in HEADS.items():
    ROWS[f"encoder-{_head}"] = ENCODER, [*ALONE, f"classifier.head={{{_options}}}", *ONCE]

ENCODERS = "configs/train-edu-encoders.yaml"
BESIDE = {
    "beside-none": ("nothing", ()),
    "beside-minilm": ("MiniLM, a sentence encoder of 23 million parameters", (2,)),
    "beside-mpnet": ("MPNet, one of 110 million", (1,)),
    "beside-gemma": ("Gemma 3, a language model of 270 million", (0,)),
    "beside-all": ("all three", (0, 1, 2)),
}
"""What stands beside SmolLM2: in words, and its places in the config."""
_BESIDE = yaml.safe_load((Path(__file__).resolve().parents[1] / ENCODERS).read_text(encoding="utf-8"))["classifier"]
for _name, (_, _places) in BESIDE.items():
    _chosen = [_BESIDE["beside"][_place] for _place in _places]
    ROWS[_name] = ENCODERS, [f"classifier.beside={json.dumps(_chosen)}", *ONCE]

KINDS = {
    "fasttext": "`fasttext`",
    "edu-linear": "`linear`: hashed words and pairs, ridge",
    "edu-minilm": "`encoder`: MiniLM, support vectors",
    "edu-en": "`static`: the embedded model",
    "encoder-svr": "`encoder`: SmolLM2's middle layers on 320 tokens, support vectors",
    "encoder": "`encoder`: SmolLM2 on 1,800 characters with a preface, support vectors",
    "edu-encoder": "`encoder`: SmolLM2 and MiniLM side by side under one head",
    "edu-encoders": "`encoder`: SmolLM2, Gemma 3, MPNet and MiniLM side by side",
}
_BALANCED = "the same, kept pages weighing more (`balance: sqrt`)"
FITS = {
    "linear": ("`linear`", "squared error"),
    "linear-balanced": ("`linear`", _BALANCED),
    "encoder": ("`encoder`, `svr`", "absolute error"),
    "encoder-balanced": ("`encoder`, `svr`", _BALANCED),
    "encoder-landmarks": ("`encoder`, `landmarks`", "squared error"),
    "encoder-ridge": ("`encoder`, `ridge`", "squared error"),
    "static": ("`static`, `svr`", "absolute error"),
}
"""Kind and head, and what is made small."""
AGAINST = {name: name.partition("-")[0] for name in FITS if "-" in name}
"""Each of them with the row of its kind's config and head as shipped."""
AGAINST |= {name: "beside-none" for name in BESIDE if name != "beside-none"} | {"edu-encoders": "edu-encoder"}
WINDOWS = {
    "linear": "`first`: 3,000 characters",
    "linear-length-weighted": "`length-weighted`: windows of 3,000",
    "linear-max": "`max` of windows of 3,000",
    "linear-begin-middle-end": "`begin-middle-end`: the mean of three of 1,500",
}


def load(given: str, overrides: list[str]) -> tuple[str, TrainConfig]:
    """(name, config) of a row as the command line gives it.

    Args:
        given: a name in `ROWS`, CONFIG, or NAME=CONFIG, with overrides of its own after commas.
        overrides: KEY=VALUE; the row's own come after them.
    """
    if given in ROWS:
        name, (path, own) = given, ROWS[given]
    else:
        name, separator, rest = given.partition("=")
        if not separator or "," in name or "/" in name:
            name, rest = "", given
        path, *own = rest.split(",")
    name = name or Path(path).stem.removeprefix("train-")
    return name, load_config(TrainConfig, Path(path), [*overrides, *own])


def gains(name: str, result: TrainResult, labels: Annotations, config: TrainConfig, folder: Path) -> dict[str, Any]:
    """A row's gains over the row it is held against, where that was measured; keeps its own out-of-fold scores.

    Args:
        name: of the row.
        result: its training.
        labels: all rows.
        config: its config.
        folder: of the scores, NAME.npy: float32[repeats, n].
    """
    scores = np.stack(result.held_out)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.npy", scores, allow_pickle=False)
    path = folder / f"{AGAINST.get(name)}.npy"
    if not path.is_file():
        return {}
    other = np.load(path, allow_pickle=False)
    if other.shape != scores.shape:
        print(f"   {name} and {path.stem} are of other labels or folds, and cannot be compared", flush=True)
        return {}
    cut = config.keep.min_score
    found = compare(scores, other, labels, Measure(cut, 1000, 0))
    return {metric: gain.model_dump() for metric, gain in found.items()}


def tables(results: dict[str, Any]) -> dict[str, list[str]]:
    """README's Markdown tables, by name, of the rows that are among the results.

    Args:
        results: content of results/classifiers.json.
    """
    rows = {row["name"]: row for row in results["rows"]}

    def cells(row: dict[str, Any], names: tuple[str, ...]) -> list[str]:
        return ["{value:.3f} [{low:.3f}, {high:.3f}]".format(**row["sample"][name]) for name in names]

    def gained(name: str) -> str:
        gain = rows[name].get("gain", {}).get("pr_auc", {}).get("difference")
        return "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**gain) if gain else ""

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
    metrics = ("best_f1", "pr_auc", "spearman")
    found["fit"] = [
        "| kind, head | fitted by | best F1 | PR-AUC | Spearman | PR-AUC, minus the config's |",
        "|---|---|---|---|---|---|",
    ]
    for name, labels in FITS.items():
        if name in rows:
            found["fit"].append(f"| {' | '.join([*labels, *cells(rows[name], metrics), gained(name)])} |")
    found["beside"] = [
        "| beside SmolLM2 | best F1 | PR-AUC | Spearman | PR-AUC, minus nothing's |",
        "|---|---|---|---|---|",
    ]
    for name, (label, _) in BESIDE.items():
        if name in rows:
            found["beside"].append(f"| {' | '.join([label, *cells(rows[name], metrics), gained(name)])} |")
    found["windows"] = ["| windows | best F1 | PR-AUC | Spearman |", "|---|---|---|---|"]
    found["windows"] += [
        f"| {' | '.join([label, *cells(rows[name], metrics)])} |" for name, label in WINDOWS.items() if name in rows
    ]
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
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--tables", action="store_true", help="print README's tables, measure nothing")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "classifiers.json")
    options = parser.parse_args()
    if options.tables:
        for lines in tables(json.loads(options.output.read_text())).values():
            print("\n".join(lines), end="\n\n")
        return
    if not options.annotations or not options.rows:
        parser.error("give ANNOTATIONS and at least one ROW")
    labels = read_annotations(options.annotations)
    pages = [text for text in labels.texts if len(text) >= PAGE] or list(labels.texts)
    pages = [pages[number % len(pages)][:PAGE] for number in range(2000)]
    for given in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            overrides = [f"annotations={options.annotations}", f"output={folder}/model", *options.overrides]
            name, config = load(given, overrides)
            print(f"== {name}", flush=True)
            result = train(config, echo=lambda line: print("  ", line, flush=True))
            size = sum(file.stat().st_size for file in (Path(folder) / "model").rglob("*") if file.is_file())
            few = pages if config.classifier.kind not in ("encoder", "ensemble") else pages[:ENCODED]
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
                "gain": gains(name, result, labels, config, SCORES),
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
