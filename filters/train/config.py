"""The schema of configs/train-*.yaml: what `finesieve train` can be told."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from filters.config.filter import ModelText
from filters.config.yaml_file import PathText, Section
from filters.languages import LanguageCode
from filters.model.encoder import EncoderOptions
from filters.model.folder import KeepRule
from filters.model.scorers import CharNgram, LinearFeatures, WordNgrams
from filters.model.windows import WindowRule
from filters.train.heads import HeadConfig, RidgeHead, SvrHead
from filters.train.tuning import HeadOnly, TuneConfig


class LinearConfig(Section):
    """Ridge regression to the judge's expected score on hashed tf-idf n-grams."""

    kind: Literal["linear"] = "linear"
    bits: Annotated[int, Field(ge=8, le=24)] = 20
    """The table has 2^bits columns; 20 make a model folder of 4 MiB."""
    word_ngrams: WordNgrams = 2
    """Longest run of words; 0: none."""
    char_ngrams: tuple[CharNgram, CharNgram] | None = None
    """Shortest and longest run of characters of a word; null: none. Several times slower to score."""
    tf: Literal["log", "count", "binary"] = "log"
    norm: Literal["l2", "none"] = "l2"
    min_df: Annotated[int, Field(ge=1)] = 3
    """Leave out columns that fewer texts have."""
    l2: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.3,)
    """Candidates for the ridge penalty; inner cross-validation chooses one."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.features()
        return self

    def features(self) -> LinearFeatures:
        """The features, as the model folder holds them.

        Raises:
            ValueError: options that contradict each other.
        """
        return LinearFeatures.model_validate({name: getattr(self, name) for name in LinearFeatures.model_fields})


class FastTextConfig(Section):
    """fastText's own trainer on rounded scores; the score is the expectation over its labels."""

    kind: Literal["fasttext"] = "fasttext"
    dim: Annotated[int, Field(ge=1, le=1000)] = 64
    epoch: Annotated[int, Field(ge=1, le=1000)] = 20
    lr: Annotated[tuple[Annotated[float, Field(gt=0, le=10)], ...], Field(min_length=1)] = (0.5,)
    """Candidates for the learning rate; inner cross-validation chooses one."""
    word_ngrams: Annotated[int, Field(ge=1, le=5)] = 2
    min_count: Annotated[int, Field(ge=1)] = 3
    bucket: Annotated[int, Field(ge=1, le=10**8)] = 100_000
    """Hashed word n-grams; the file has (words + bucket) * dim * 4 bytes."""


class EncoderConfig(EncoderOptions):
    """Hidden states of a language model, or of several side by side, under a small head (extra `encoder`)."""

    kind: Literal["encoder"] = "encoder"
    beside: Annotated[tuple[EncoderOptions, ...], Field(max_length=7)] = ()
    """Other encoders that read the same pages; the head sees the states of all."""
    head: HeadConfig = RidgeHead(l2=(2.0,))
    tune: TuneConfig = HeadOnly()
    """head: the language model stays as it is; last_layers: fine-tuned, which takes a GPU or patience: one
    tuning for each fit, of which there are validation.repeats * folds * (inner_folds + 1) + inner_folds + 1."""
    cache: Annotated[PathText | None, Field(exclude=True)] = None
    """Folder that keeps features between trainings; within one, each page is encoded once in any case."""

    @model_validator(mode="after")
    def _tuned_under_ridge(self) -> Self:
        if not isinstance(self.tune, HeadOnly) and not isinstance(self.head, RidgeHead):
            raise ValueError("tuning starts from, and ends in, a ridge head; give head: {kind: ridge, l2: [2.0]}")
        if not isinstance(self.tune, HeadOnly) and self.beside:
            raise ValueError("an encoder is tuned by itself; leave out beside, or make two members of an ensemble")
        return self

    def options(self) -> EncoderOptions:
        """What is read from the encoder itself."""
        return EncoderOptions.model_validate({name: getattr(self, name) for name in EncoderOptions.model_fields})

    def encoders(self) -> tuple[EncoderOptions, ...]:
        """What is read from it and from those beside it."""
        return (self.options(), *self.beside)


class StaticConfig(Section):
    """The mean of a page's word vectors under a small head: an encoder's knowledge at the speed of a table."""

    kind: Literal["static"] = "static"
    table: Annotated[ModelText, Field(exclude=True, min_length=1)]
    """`edu-en` (the embedded model's), another model of kind static, or a folder of recipes/edu-en/build_table.py."""
    head: HeadConfig = SvrHead(c=(5.0,), gamma=0.15)


MemberConfig = Annotated[LinearConfig | FastTextConfig | EncoderConfig | StaticConfig, Field(discriminator="kind")]
SingleConfig = LinearConfig | FastTextConfig | EncoderConfig | StaticConfig


class EnsembleConfig(Section):
    """Several classifiers of the same annotations, each calibrated by itself: the highest percentile bucket any of them
    puts a page in is its score (Nemotron-CC)."""

    kind: Literal["ensemble"] = "ensemble"
    members: Annotated[tuple[MemberConfig, ...], Field(min_length=2, max_length=8)]
    buckets: Annotated[int, Field(ge=2, le=1000)] = 20


class DistillConfig(Section):
    """A slow teacher labels raw text, and the classifier trains on labels and pseudo-labels.

    The teacher is a recipe, not a finished model: wherever a classifier is fitted, in each fold and inside it, a
    teacher is fitted to the same labelled rows only. No label of a test page reaches the student by way of the teacher.
    """

    teacher: MemberConfig
    texts: Annotated[tuple[PathText, ...], Field(min_length=1)]
    """Parquet, JSON lines or CSV files with a column text. What nearly repeats a labelled page is left out."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use so many texts, drawn by random_state."""
    weight: Annotated[float, Field(gt=0, le=10)] = 0.5
    """Of a pseudo-labelled row; a labelled one has 1."""
    soften: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the teacher's out-of-fold prediction in the targets of labelled rows."""
    compare: bool = True
    """Cross-validate the classifier without distillation as well, and report the difference."""


class ValidationConfig(Section):
    """How the metrics in model.json are taken: repeated cross-validation, nested, over groups of host and near copy."""

    folds: Annotated[int, Field(ge=2, le=20)] = 5
    repeats: Annotated[int, Field(ge=1, le=20)] = 2
    inner_folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Of the cross-validation inside each training part, which chooses options and fits the calibration."""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Of the bootstrap behind the intervals."""


class AgreementConfig(Section):
    """What to do where the judge's two ratings of a text hardly agree; see `filters.train.agreement`."""

    metric: Literal["qwk", "spearman", "f1"] = "qwk"
    """f1: of the kept class at the keep rule."""
    floor: Annotated[float, Field(ge=-1, le=1)] = 0.6
    """Below it a warning is printed, and written into the model's card."""
    refuse: bool = False
    """Do not train below the floor, nor where nothing was rated twice."""


class TrainConfig(Section):
    """Everything `finesieve train` does, from annotations to a model folder. See configs/ for examples."""

    annotations: PathText
    """Parquet, JSON lines or CSV with text, score and optionally expected_score, url, id, natural_weight; see
    `filters.train.annotations`."""
    output: Annotated[PathText, Field(min_length=1)]
    """The model folder to write."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    language: LanguageCode | None = None
    rubric: str | None = None
    """The text the judge was given; its digest goes into model.json."""
    window: Annotated[int, Field(gt=0, le=10**9)] = 3000
    """Characters of one window of a text."""
    windows: WindowRule = "first"
    """Which windows of a text are read, and how their scores become one; see `filters.model.windows`. In fitting each
    window is a row with its text's label, and the windows of a text weigh together what a text weighs."""
    classifier: Annotated[
        LinearConfig | FastTextConfig | EncoderConfig | StaticConfig | EnsembleConfig, Field(discriminator="kind")
    ] = LinearConfig()
    distill: DistillConfig | None = None
    weights: Literal["uniform", "natural"] = "uniform"
    """How rows count in fitting; natural: by the square root of natural_weight."""
    balance: Literal["none", "sqrt", "full"] = "none"
    """Weigh kept rows up in fitting: full: as much in all as the dropped ones; sqrt: by the root of that factor."""
    keep: KeepRule = KeepRule()
    validation: ValidationConfig = ValidationConfig()
    agreement: AgreementConfig = AgreementConfig()
    random_state: Annotated[int, Field(ge=0, lt=2**31)] = 0
    remarks: tuple[str, ...] = ()
    """What a user of the model must know besides; goes into its card."""
