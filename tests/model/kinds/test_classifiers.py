"""The contract every classifier kind keeps: fit, score, save, load."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from labelled_pages import columns
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge

import filters.model.kinds.fasttext as fasttext_kind
from filters.errors import FinesieveError
from filters.kernels.packed import PackedText
from filters.model import QualityModel
from filters.model.folder import Manifest
from filters.model.kinds import KINDS, Classifier, classifier_class
from filters.model.kinds.fasttext import FastTextConfig
from filters.model.kinds.linear import LinearConfig

CONFIGS = {"linear": LinearConfig(bits=14), "fasttext": FastTextConfig(dim=8, bucket=2000, epoch=40)}
WINDOW = 2000

needs_trainer = pytest.mark.skipif(
    not hasattr(sys.modules.get("fasttext") or pytest.importorskip("fasttext"), "train_supervised"),
    reason="the module fasttext is fasttext-predict's; pip install --force-reinstall --no-deps fasttext-community",
)
kinds = pytest.mark.parametrize("kind", ["linear", pytest.param("fasttext", marks=needs_trainer)])


def fitted(kind: str, random_state: int = 0, **changes: Any) -> tuple[Classifier, dict[str, list[Any]]]:
    data = columns()
    config = CONFIGS[kind].model_copy(update=changes)
    (classifier,) = classifier_class(kind).candidates(config, WINDOW)
    targets = np.array(data["expected_score"])
    return classifier.fit(data["text"], targets, np.ones(len(targets)), random_state), data


def test_every_kind_is_tested() -> None:
    # The other two need a table or torch: test_static.py and test_encoder.py.
    assert set(CONFIGS) | {"static", "encoder", "ensemble"} == set(KINDS)


@kinds
def test_it_learns_what_pages_the_judge_likes(kind: str) -> None:
    classifier, _ = fitted(kind)
    unseen = columns(seed=1)
    scores = classifier.score(unseen["text"])
    assert scores.dtype == np.float32
    assert spearmanr(scores, unseen["expected_score"]).statistic > 0.85


@kinds
def test_a_saved_classifier_scores_exactly_as_before(tmp_path: Path, kind: str) -> None:
    classifier, data = fitted(kind)
    manifest = Manifest(
        name="saved",
        kind=kind,
        window=WINDOW,
        normalisation=classifier.scorer.normalisation,
        features=classifier.scorer.features(),
    )
    model = QualityModel(classifier.scorer, None, manifest, "").save(tmp_path / "model")
    texts = [*data["text"], "", "unknown", "\n", "é\ud800"]
    np.testing.assert_array_equal(model.score(texts), classifier.score(texts))
    np.testing.assert_array_equal(model.score_packed(PackedText.from_strings(texts)), model.score(texts))


@kinds
def test_the_same_random_state_gives_the_same_scores(kind: str) -> None:
    first, data = fitted(kind, random_state=3)
    second, _ = fitted(kind, random_state=3)
    np.testing.assert_array_equal(first.score(data["text"]), second.score(data["text"]))


@kinds
def test_weights_count(kind: str) -> None:
    # The same text with two labels: the prediction leans to the heavier one.
    data = columns()
    texts = [*data["text"], *["zebra quagga okapi " * 10] * 20]
    targets = np.r_[data["expected_score"], [0.0, 3.0] * 10]
    outcomes = []
    for low, high in ((5.0, 1.0), (1.0, 5.0)):
        weights = np.r_[np.ones(len(data["text"])), [low, high] * 10]
        (classifier,) = classifier_class(kind).candidates(CONFIGS[kind], WINDOW)
        outcomes.append(classifier.fit(texts, targets, weights, 0).score(["zebra quagga okapi " * 10])[0])
    assert outcomes[1] > outcomes[0] + 0.5


@kinds
def test_text_beyond_the_window_is_not_learnt_from(kind: str) -> None:
    data = columns()
    padded = [text[:300].ljust(WINDOW) + " casino" * 50 for text in data["text"]]
    plain = [text[:300] for text in data["text"]]
    targets = np.array(data["expected_score"])
    scores = []
    for texts in (padded, plain):
        (classifier,) = classifier_class(kind).candidates(CONFIGS[kind], WINDOW)
        scores.append(classifier.fit(texts, targets, np.ones(len(targets)), 0).score(plain))
    np.testing.assert_array_equal(*scores)


@kinds
def test_scoring_before_fitting_is_a_mistake(kind: str) -> None:
    (classifier,) = classifier_class(kind).candidates(CONFIGS[kind], WINDOW)
    with pytest.raises(ValueError, match="fit comes before score"):
        classifier.score(["text"])


# One word: float16 weights and idf are the only difference. Two: a few of the rare n-grams share a column.
@pytest.mark.parametrize(("word_ngrams", "tolerance"), [(1, 2e-3), (2, 2e-2)])
def test_linear_equals_scikit_learn_on_the_same_features(word_ngrams: int, tolerance: float) -> None:
    classifier, data = fitted("linear", bits=22, min_df=2, word_ngrams=word_ngrams)
    vectoriser = TfidfVectorizer(
        token_pattern=r"(?u)\w+", ngram_range=(1, word_ngrams), sublinear_tf=True, min_df=2, smooth_idf=True
    )
    x = vectoriser.fit_transform(data["text"])
    ridge = Ridge(alpha=0.3, solver="sparse_cg", tol=1e-8).fit(x, data["expected_score"])
    unseen = columns(seed=1)["text"]
    np.testing.assert_allclose(classifier.score(unseen), ridge.predict(vectoriser.transform(unseen)), atol=tolerance)


def test_linear_has_one_candidate_for_each_penalty() -> None:
    candidates = classifier_class("linear").candidates(LinearConfig(l2=(0.1, 1, 10)), WINDOW)
    assert [candidate.setting for candidate in candidates] == ["l2 = 0.1", "l2 = 1", "l2 = 10"]


@pytest.mark.parametrize("module", [SimpleNamespace(load_model=None), None])
def test_a_binding_that_cannot_train_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    monkeypatch.setitem(sys.modules, "fasttext", module)
    with pytest.raises(FinesieveError, match="pip install --force-reinstall --no-deps fasttext-community"):
        fasttext_kind.trainer()


class Diverging:
    """A trainer that meets NaN above a learning rate."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.tried: list[float] = []

    def train_supervised(self, lr: float, **options: Any) -> Any:
        import fasttext

        self.tried.append(lr)
        if lr > self.limit:
            raise RuntimeError("Encountered NaN.")
        return fasttext.train_supervised(lr=lr, **options)


@needs_trainer
def test_nan_is_met_with_a_lower_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Diverging(0.2)
    monkeypatch.setattr(fasttext_kind, "trainer", lambda: module)
    classifier, data = fitted("fasttext", lr=(0.5,))
    assert module.tried == [0.5, 0.25, 0.125]
    assert np.isfinite(classifier.score(data["text"])).all()


def test_nan_at_every_learning_rate_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasttext_kind, "trainer", lambda: Diverging(0))
    with pytest.raises(FinesieveError, match=r"diverged \(NaN\) at every learning rate from 0.5 down to 0.0625"):
        fitted("fasttext", lr=(0.5,))


@needs_trainer
def test_a_text_cannot_smuggle_in_a_label(tmp_path: Path) -> None:
    data = columns()
    texts = [f"__label__5 {text}\n__label__4" for text in data["text"]]
    (classifier,) = classifier_class("fasttext").candidates(CONFIGS["fasttext"], WINDOW)
    targets = np.array(data["expected_score"])
    scorer = classifier.fit(texts, targets, np.ones(len(targets)), 0).scorer
    assert sorted(scorer.features()["values"]) == sorted({f"__label__{round(target)}" for target in targets})


@needs_trainer
def test_a_fasttext_file_is_scored_by_the_probability_of_a_label(tmp_path: Path) -> None:
    import fasttext

    data = columns()
    lines = [
        f"__label__{'hq' if score >= 2 else 'lq'} {text}\n"
        for score, text in zip(data["score"], data["text"], strict=True)
    ]
    (tmp_path / "train.txt").write_text("".join(lines))
    trained = fasttext.train_supervised(input=str(tmp_path / "train.txt"), dim=8, bucket=1000, thread=1, verbose=0)
    path = tmp_path / "model.bin"
    trained.save_model(str(path))
    model = QualityModel.load(f"{path}#__label__hq")
    expected = []
    for text in data["text"]:
        labels, probabilities = trained.predict(text, k=2)
        expected.append(dict(zip(labels, probabilities, strict=True))["__label__hq"])
    np.testing.assert_allclose(model.score(data["text"]), expected, atol=5e-5)
    assert model.name == "model.bin#__label__hq"
    assert model.keep.min_score == 0.5
    assert model.digest != QualityModel.load(f"{path}#__label__lq").digest
    np.testing.assert_array_equal(QualityModel.load(f"{path}#hq").score(["a"]), model.score(["a"]))
    saved = model.save(tmp_path / "folder")
    np.testing.assert_array_equal(saved.score(data["text"]), model.score(data["text"]))
    with pytest.raises(FinesieveError, match=r"has no label '__label__x'; its labels: .*__label__hq"):
        QualityModel.load(f"{path}#__label__x")
    with pytest.raises(FinesieveError, match="no such file"):
        QualityModel.load(f"{tmp_path / 'other.bin'}#__label__hq")
