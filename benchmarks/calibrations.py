"""Ways to calibrate side by side, by nested cross-validation: what each does to labels no fold has seen.

    python benchmarks/calibrations.py ANNOTATIONS CONFIG [--set KEY=VALUE] [--output RESULTS.json]

In each training part the out-of-fold scores of an inner cross-validation fit every map, and the test part is scored
once by the classifier and mapped by each, so that the rows differ in nothing but the map.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from filters.config_file import load_config
from filters.statistics.agreement import METRICS
from filters.statistics.bootstrap import mean_estimates
from filters.train.annotations import Annotations, read_annotations
from filters.train.calibration import Method, fit_calibration
from filters.train.config import TrainConfig
from filters.train.evaluation import estimates
from filters.train.procedure import Procedure

SHOWN = ("mae", "calibration_error", "qwk", "spearman", "f1", "best_f1", "kept_share", "judge_kept_share")
HIGH = 2.0
NEAR = 0.5


def predict(config: TrainConfig, labels: Annotations) -> dict[str, list[npt.NDArray[np.float32]]]:
    """Scores of every row under every map: method -> float32[n] of each repetition."""
    procedure = Procedure(config, labels)
    rows = np.arange(len(labels))
    found: dict[str, list[npt.NDArray[np.float32]]] = {method: [] for method in ("none", *get_args(Method))}
    for repeat in range(config.validation.repeats):
        for scores in found.values():
            scores.append(np.zeros(len(labels), np.float32))
        folds = procedure.folds(rows, config.validation.folds, config.random_state + repeat)
        for number, (training, test) in enumerate(folds):
            fitted = procedure.fit(training, config.random_state + 1000 * (repeat + 1) + number)
            raw = fitted.raw([labels.texts[row] for row in test])
            found["none"][repeat][test] = np.clip(raw, 0, 5)
            for method in get_args(Method):
                calibrate = fit_calibration(
                    method,
                    fitted.out_of_fold,
                    labels.expected[training],
                    procedure.weights[training],
                    config.keep.min_score,
                )
                found[method][repeat][test] = calibrate(raw)
            print(f"repeat {repeat + 1}, fold {number + 1}", flush=True)
    return found


def measure(scores: list[npt.NDArray[np.float32]], labels: Annotations, config: TrainConfig) -> dict[str, Any]:
    """The figures of one map."""
    cut, resamples = config.keep.min_score, config.validation.resamples
    sample, natural = estimates(scores, labels, cut, resamples=resamples, random_state=config.random_state)
    pooled = np.concatenate(scores).astype(np.float64)
    excess = pooled - np.tile(labels.expected, len(scores))
    groups = np.tile(labels.groups, len(scores))
    masks = {"bias_of_high_scores": pooled >= HIGH, "bias_near_the_keep_rule": np.abs(pooled - cut) <= NEAR}
    biases = mean_estimates([excess] * 2, list(masks.values()), groups, resamples, config.random_state)
    return {
        "sample": {name: sample[name].model_dump() for name in SHOWN},
        "natural": natural and {name: natural[name].model_dump() for name in SHOWN},
        **{name: bias.model_dump() for name, bias in zip(masks, biases, strict=True)},
    }


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations")
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "calibrations.json")
    options = parser.parse_args()
    config = load_config(
        TrainConfig, options.config, [f"annotations={options.annotations}", "output=unused", *options.overrides]
    )
    labels = read_annotations(config.annotations, config.keep.min_score)
    rows = {method: measure(scores, labels, config) for method, scores in predict(config, labels).items()}
    result = {
        "config": options.config.name,
        "annotations": labels.name,
        "annotations_sha256": labels.sha256,
        "validation": config.validation.model_dump(),
        "meanings": {name: METRICS[name] for name in SHOWN}
        | {
            "bias_of_high_scores": f"mean of score - judge where the score is at least {HIGH:g}",
            "bias_near_the_keep_rule": f"mean of score - judge where the score is within {NEAR:g} of the keep rule",
        },
        "rows": rows,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    for method, row in rows.items():
        sample = {name: row["sample"][name]["value"] for name in SHOWN}
        biases = [row[name]["value"] for name in ("bias_of_high_scores", "bias_near_the_keep_rule")]
        print(f"{method:16}" + "  ".join(f"{name} {value:.3f}" for name, value in sample.items()), biases)


if __name__ == "__main__":
    main()
