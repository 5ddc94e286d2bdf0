"""The schema of configs/train-*.yaml: what `finesieve train` can be told."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from filters.config.languages import LanguageCode
from filters.config.yaml_file import PathKey, PathText, Section
from filters.model.encoder import EncoderOptions
from filters.model.folder import KeepRule
from filters.model.scorers import CharNgram, LinearFeatures, WordNgrams
from filters.model.windows import WindowRule
from filters.models import embedded_models
from filters.train.heads import HeadConfig, RidgeHead, SvrHead
from filters.train.tuning import HeadOnly, TuneConfig


class LinearConfig(Section):
    """Ridge regression on hashed tf-idf n-grams; the target is the judge's expected score."""

    kind: Literal["linear"] = "linear"
    """Chooses this kind of classifier."""
    bits: Annotated[int, Field(ge=8, le=24)] = 20
    """Size of the table: it has 2^bits columns. With 20 bits a model folder has 4 MiB."""
    word_ngrams: WordNgrams = 2
    """Longest n-gram of words. 0: no words."""
    char_ngrams: tuple[CharNgram, CharNgram] | None = None
    """Shortest and longest n-gram of characters within a word; scoring is then several times slower. null: none."""
    tf: Literal["log", "count", "binary"] = "log"
    """How often an n-gram counts in a text: the logarithm of its number, its number, or once."""
    norm: Literal["l2", "none"] = "l2"
    """Whether the features of a text are scaled to length 1 (l2)."""
    min_df: Annotated[int, Field(ge=1)] = 3
    """Fewest texts that a column must occur in; other columns are left out."""
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
    """Chooses this kind of classifier."""
    dim: Annotated[int, Field(ge=1, le=1000)] = 64
    """Length of the word vectors."""
    epoch: Annotated[int, Field(ge=1, le=1000)] = 20
    """How often the trainer goes through the texts."""
    lr: Annotated[tuple[Annotated[float, Field(gt=0, le=10)], ...], Field(min_length=1)] = (0.5,)
    """Candidates for the learning rate; inner cross-validation chooses one."""
    word_ngrams: Annotated[int, Field(ge=1, le=5)] = 2
    """Longest n-gram of words."""
    min_count: Annotated[int, Field(ge=1)] = 3
    """Fewest occurrences of a word; rarer words are left out."""
    bucket: Annotated[int, Field(ge=1, le=10**8)] = 100_000
    """Number of hash buckets for n-grams. The file has (words + bucket) * dim * 4 bytes."""


class EncoderConfig(EncoderOptions):
    """Hidden states of a language model, or of several side by side, under a small head (extra `encoder`)."""

    kind: Literal["encoder"] = "encoder"
    """Chooses this kind of classifier."""
    beside: Annotated[tuple[EncoderOptions, ...], Field(max_length=7)] = ()
    """Other encoders that read the same pages; the head reads the states of all."""
    head: HeadConfig = RidgeHead(l2=(2.0,))
    """The small model on top of the states."""
    tune: TuneConfig = HeadOnly()
    """What is trained. head: only the head. last_layers: the uppermost layers of the language model too, which needs a
    GPU or patience: validation.repeats * folds * (inner_folds + 1) + inner_folds + 1 times."""
    cache: Annotated[PathText | None, Field(exclude=True)] = None
    """Folder that keeps features between trainings. null: none. Within a training each page is encoded once in any
    case."""

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
    """Chooses this kind of classifier."""
    table: Annotated[
        str, PathKey(is_name=lambda value, path: value in embedded_models()), Field(exclude=True, min_length=1)
    ]
    """The word vectors: those of `edu-en`, of another model of kind static, or a folder that
    recipes/edu-en/build_table.py wrote."""
    head: HeadConfig = SvrHead(c=(5.0,), gamma=0.15)
    """The small model on top of the mean vector."""


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
    soften: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the teacher's out-of-fold prediction in the targets of labelled rows."""
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


class TrainConfig(Section):
    """A config of `finesieve train`: everything from the annotations to a model folder."""

    annotations: PathText
    """Parquet, JSON lines or CSV file with text, score and optionally expected_score, url, id, natural_weight."""
    output: Annotated[PathText, Field(min_length=1)]
    """The model folder to write."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """Name of the model, for its card and the manifests of runs."""
    language: LanguageCode | None = None
    """ISO 639-1 code of the texts' language, for the card. null: not said."""
    rubric: str | None = None
    """The text that the judge was given; its digest goes into model.json."""
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
