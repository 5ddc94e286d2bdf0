"""The quality gate: cross-validated F1, PR-AUC and Spearman of an embedded model must not fall below their floors.

    python -m benchmarks.gate benchmarks/floors.json --annotations LABELS.parquet [--raise] [--lower]

The floors' file names the training config, the annotations' digest, the model's digest and the cross-validation, and
the gate repeats that cross-validation: it measures what the code in this tree makes of those labels, on pages that no
fold has trained on. Exit status 1: a floor is missed, or model or annotations are not the ones the floors are of.
`--raise` records a model or a measurement that is better; a floor goes down with `--lower` only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from filters.config.yaml_file import Section, load_config
from filters.errors import ConfigError, FinesieveError
from filters.model import QualityModel
from filters.statistics.agreement import LabelMetrics
from filters.train.annotations import Annotations, read_annotations
from filters.train.config import TrainConfig

GATED = ("f1", "pr_auc", "spearman")


class Floors(Section):
    """Schema of the floors' file.

    Attributes:
        format: name of this schema.
        version: of this schema.
        model: name of the embedded model.
        model_digest: its digest when the floors were recorded.
        config: the training config, relative to the working directory.
        annotations_sha256: of the labels the floors were measured on.
        folds: of the cross-validation.
        inner_folds: of the cross-validation inside each training part.
        epsilon: how far below its floor a metric may be: arithmetic differs a little between machines.
        floors: metric of `GATED` -> floor.
    """

    format: Literal["finesieve-floors"] = "finesieve-floors"
    version: Literal[1] = 1
    model: str
    model_digest: str
    config: str
    annotations_sha256: str
    folds: Annotated[int, Field(ge=2)] = 5
    inner_folds: Annotated[int, Field(ge=2)] = 3
    epsilon: Annotated[float, Field(ge=0, le=0.05)] = 0.005
    floors: dict[Literal["f1", "pr_auc", "spearman"], Annotated[float, Field(ge=-1, le=1)]]

    @classmethod
    def read(cls, path: Path) -> Floors:
        """Read a floors' file.

        Raises:
            ConfigError: it is missing, is not JSON, or does not fit the schema.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: cannot read the floors: {error}") from error
        except ValidationError as error:
            detail = error.errors()[0]
            key = ".".join(map(str, detail["loc"]))
            raise ConfigError(
                f"{path}: {key}: {detail['msg']}. Remedy: restore the file from version control"
            ) from error

    def write(self, path: Path) -> None:
        """Replace the file in one step."""
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(json.dumps(self.model_dump(), indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)

    def missed(self, measured: Mapping[str, float]) -> list[str]:
        """A line for each floor that `measured` falls below by more than `epsilon`; NaN misses every floor."""
        return [
            f"{name} {measured[name]:.4f} is below its floor {floor:.4f} by more than {self.epsilon:g}"
            for name, floor in self.floors.items()
            if not measured[name] >= floor - self.epsilon
        ]

    def moved(
        self, measured: Mapping[str, float], model_digest: str, annotations_sha256: str, *, lower: bool
    ) -> Floors:
        """The floors with new digests, each raised to what was measured.

        Args:
            measured: metric -> value.
            model_digest: of the model now.
            annotations_sha256: of the labels now.
            lower: floors may go down too.

        Raises:
            ConfigError: a floor would have to go down by more than `epsilon`, and `lower` is not set.
        """
        if missed := self.missed(measured):
            if not lower:
                raise ConfigError("; ".join(missed) + ". Remedy: mend the model, or say --lower if it is meant")
            floors = {name: _down(measured[name]) for name in self.floors}
        else:
            floors = {name: max(floor, _down(measured[name])) for name, floor in self.floors.items()}
        return self.model_copy(
            update={"floors": floors, "model_digest": model_digest, "annotations_sha256": annotations_sha256}
        )


def _down(value: float) -> float:
    """Four decimals, never rounded up: what was measured must pass its own floor."""
    return math.floor(value * 1e4) / 1e4


def measure(config: TrainConfig, labels: Annotations, folds: int, inner_folds: int) -> dict[str, float]:
    """Metric of `GATED` -> value, from one repetition of nested cross-validation.

    Raises:
        AnnotationsError: the annotations cannot be trained on.
    """
    from filters.train.procedure import Procedure
    from filters.train.training import out_of_fold

    validation = config.validation.model_copy(update={"repeats": 1, "folds": folds, "inner_folds": inner_folds})
    config = config.model_copy(update={"validation": validation})
    scores = out_of_fold(Procedure(config, labels))["model"][0]
    metrics = LabelMetrics(scores, labels.expected, labels.score, config.keep.min_score).metrics(np.ones(len(labels)))
    return {name: float(metrics[name]) for name in GATED}


def gate(path: Path, annotations: Path, *, raise_floors: bool = False, lower: bool = False) -> list[str]:
    """Measure, compare, and move the floors where that was asked for.

    Args:
        path: the floors' file.
        annotations: the labels.
        raise_floors: write better measurements and new digests into the file.
        lower: write worse ones too.

    Returns:
        What is wrong, a line each; empty when the gate is passed.

    Raises:
        FinesieveError: something cannot be read, or a floor would go down without `lower`.
    """
    floors = Floors.read(path)
    digest = QualityModel.load(floors.model).digest
    config = load_config(TrainConfig, floors.config, [f"annotations={json.dumps(str(annotations))}"])
    labels = read_annotations(annotations, config.keep.min_score)
    moving = raise_floors or lower
    wrong = []
    if digest != floors.model_digest:
        wrong.append(f"{floors.model} has changed since the floors were recorded. Remedy: --raise")
    if labels.sha256 != floors.annotations_sha256:
        wrong.append(f"{annotations} holds other labels than the floors were measured on. Remedy: --raise or --lower")
    if wrong and not moving:
        return wrong
    measured = measure(config, labels, floors.folds, floors.inner_folds)
    for name, floor in floors.floors.items():
        print(f"{name:10} {measured[name]:.4f}  floor {floor:.4f}")
    if moving:
        floors.moved(measured, digest, labels.sha256, lower=lower).write(path)
        return []
    return floors.missed(measured)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status of the command: 0 passed or skipped, 1 not passed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("floors", type=Path)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--raise", dest="raise_floors", action="store_true", help="record what is better")
    parser.add_argument("--lower", action="store_true", help="record what is worse, too")
    chosen = parser.parse_args(arguments)
    if not chosen.annotations.exists():
        print(f"SKIPPED: the quality gate: {chosen.annotations} is not here")
        return 0
    try:
        wrong = gate(chosen.floors, chosen.annotations, raise_floors=chosen.raise_floors, lower=chosen.lower)
    except FinesieveError as error:
        wrong = [str(error)]
    for line in wrong:
        print(f"gate: {line}", file=sys.stderr)
    if not wrong:
        print("gate: passed" if not (chosen.raise_floors or chosen.lower) else f"gate: wrote {chosen.floors}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
