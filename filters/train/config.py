"""The schema of configs/train-*.yaml: what `finesieve train` can be told."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from filters.config.languages import LanguageCode
from filters.config.yaml_file import PathText, Section
from filters.model.folder import KeepRule
from filters.model.kinds.encoder import EncoderConfig
from filters.model.kinds.fasttext import FastTextConfig
from filters.model.kinds.heads import LogisticHead
from filters.model.kinds.linear import LinearConfig
from filters.model.kinds.static import StaticConfig
from filters.model.windows import WindowRule

MemberConfig = Annotated[LinearConfig | FastTextConfig | EncoderConfig | StaticConfig, Field(discriminator="kind")]
SingleConfig = LinearConfig | FastTextConfig | EncoderConfig | StaticConfig


class EnsembleConfig(Section):
    """Several classifiers of the same annotations, each calibrated by itself. The score of a page is the highest
    percentile bucket that any of them puts it in (Nemotron-CC)."""

    kind: Literal["ensemble"] = "ensemble"
    """Chooses this kind of classifier."""
    members: Annotated[tuple[MemberConfig, ...], Field(min_length=2, max_length=8)]
    """The classifiers."""
    buckets: Annotated[int, Field(ge=2, le=1000)] = 20
    """Number of percentile buckets."""


class DistillConfig(Section):
    """A slow teacher labels raw text, and the classifier trains on labels and pseudo-labels.

    The teacher is a recipe, not a finished model: wherever a classifier is fitted, in each fold and inside it, a
    teacher is fitted to the same labelled rows only. No label of a test page reaches the student by way of the teacher.
    """

    teacher: MemberConfig
    """The classifier that labels the raw texts."""
    texts: Annotated[tuple[PathText, ...], Field(min_length=1)]
    """Parquet, JSON lines or CSV files with a column text. Near copies of labelled pages are left out."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Most texts to use, drawn by random_state. null: all."""
    weight: Annotated[float, Field(gt=0, le=10)] = 0.5
    """Weight of a row that the teacher labelled; a row that the judge labelled has weight 1."""
    compare: bool = True
    """Cross-validate the classifier without distillation as well, and report the difference."""


class ValidationConfig(Section):
    """How the metrics in model.json are measured: repeated nested cross-validation over groups of host and near
    copy."""

    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Parts that the groups are split into; each part is the test set once."""
    repeats: Annotated[int, Field(ge=1, le=20)] = 2
    """How often the cross-validation is repeated with another split."""
    inner_folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Folds of the cross-validation inside each training part, which chooses options and fits the calibration."""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Resamples of the bootstrap that gives the intervals."""


class AgreementConfig(Section):
    """What happens if the judge's two ratings of the same texts hardly agree."""

    metric: Literal["qwk", "spearman", "f1"] = "qwk"
    """Measure of agreement: quadratic weighted kappa, rank correlation, or F1 of the kept class at the keep rule."""
    floor: Annotated[float, Field(ge=-1, le=1)] = 0.6
    """Lowest agreement; below it a warning is printed and written into the model's card."""
    refuse: bool = False
    """Do not train if the agreement is below the floor, or if no text was rated twice."""


TargetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$")]


class TrainConfig(Section):
    """A config of `finesieve train`: everything from the annotations to a model folder."""

    annotations: PathText
    """Parquet, JSON lines or CSV file with text, score and optionally expected_score, url, id, natural_weight."""
    target: Annotated[str, Field(min_length=1)] | None = None
    """Column to learn: numbers 0 to 5, or names, such as topics, which need `head: {kind: logistic}`. null: the judge's
    score."""
    targets: Annotated[tuple[TargetName, ...], Field(max_length=64)] = ()
    """Several columns, in the place of `target`: a model is trained for each. `name` and `output` have {target} where
    the name of the column belongs."""
    output: Annotated[PathText, Field(min_length=1)]
    """The model folder to write."""
    name: Annotated[str, Field(pattern=r"^([A-Za-z0-9]|\{target\})([A-Za-z0-9._-]|\{target\}){0,63}$")]
    """Name of the model, for its card and the manifests of runs."""
    language: LanguageCode | None = None
    """ISO 639-1 code of the texts' language, for the card. null: not said."""
    rubric: PathText | None = None
    """File with the text that the judge was given; its digest goes into model.json."""
    window: Annotated[int, Field(gt=0, le=10**9)] = 3000
    """Characters of one window of a text."""
    windows: WindowRule = "first"
    """Which windows of a text are read, and how their scores become one. first: the first window. begin-middle-end: the
    mean of three. max: the highest score of all windows. length-weighted: the mean of all windows. In training each
    window is a row with its text's label; the windows of a text together weigh as much as one text."""
    classifier: Annotated[
        LinearConfig | FastTextConfig | EncoderConfig | StaticConfig | EnsembleConfig, Field(discriminator="kind")
    ] = LinearConfig()
    """The kind of classifier and its options."""
    distill: DistillConfig | None = None
    """A strong teacher labels raw texts too. null: train on the judge's labels alone."""
    weights: Literal["uniform", "natural"] = "uniform"
    """How much a row counts in training. uniform: all the same. natural: the square root of natural_weight."""
    balance: Literal["none", "sqrt", "full"] = "none"
    """More weight for kept rows. full: together as much as the dropped ones. sqrt: the square root of that factor."""
    keep: KeepRule = KeepRule()
    """Which scores are kept; the rule is part of the model."""
    validation: ValidationConfig = ValidationConfig()
    """How the metrics are measured."""
    agreement: AgreementConfig = AgreementConfig()
    """What happens if the judge hardly agrees with itself."""
    random_state: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random in the training."""
    remarks: tuple[str, ...] = ()
    """What else a user of the model must know, for its card."""

    @model_validator(mode="after")
    def _targets_fit(self) -> Self:
        if self.targets and self.target is not None:
            raise ValueError("target and targets exclude each other")
        if len(set(self.targets)) < len(self.targets):
            raise ValueError("targets names a column twice")
        if self.names_labels and self.target is None and not self.targets:
            raise ValueError("head: {kind: logistic} tells names apart; say in which column: target: topic")
        for key in ("name", "output"):
            if bool(self.targets) != ("{target}" in getattr(self, key)):
                raise ValueError(f"{key} has {{target}} in it if, and only if, there are targets")
        if self.names_labels and (self.distill is not None or self.balance != "none"):
            raise ValueError("head: {kind: logistic} goes with neither distill nor balance")
        return self

    @property
    def names_labels(self) -> bool:
        """Whether the target is names, and not numbers."""
        head = getattr(self.classifier, "head", None)
        return isinstance(head, LogisticHead)

    def each(self) -> tuple[TrainConfig, ...]:
        """A config with one target for each of `targets`; itself without any."""
        return tuple(
            self.model_copy(
                update={
                    "target": target,
                    "targets": (),
                    "name": self.name.replace("{target}", target),
                    "output": self.output.replace("{target}", target),
                }
            )
            for target in self.targets
        ) or (self,)
