from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_pages import columns, write
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, f1_score

from filters.errors import AnnotationsError
from filters.evaluate.slices import (
    OTHER,
    SHOWN,
    baseline_scores,
    facets_of,
    flesch_kincaid_grade,
    measure_slices,
    syllables,
)
from filters.statistics.resampling import Measure
from filters.train.annotations import Annotations, read_annotations

TOPICS = ("science", "fashion", "sport")


def read(folder: Path, **more: Any) -> Annotations:
    return read_annotations(write(folder / "labels.parquet", columns() | more))


def facets(labels: Annotations, scores: np.ndarray) -> Any:
    return measure_slices([scores], labels, Measure(1.5, 50, 0))


def test_metrics_of_a_slice_are_those_of_its_rows(tmp_path: Path) -> None:
    labels = read(tmp_path, topic=[TOPICS[row % 3] for row in range(240)])
    scores = (labels.expected + np.random.default_rng(0).normal(0, 0.5, 240)).astype(np.float32)
    topic, length = facets(labels, scores)
    assert (topic.facet, length.facet) == ("topic", "length")
    assert sum(part.rows for part in length.slices) == 240
    spearmans, curves, wanted = [], [], []
    for part in topic.slices:
        rows = np.arange(240) % 3 == TOPICS.index(part.name)
        keep = labels.expected[rows] >= 1.5
        assert part.rows == 80
        assert part.judge_kept_share == pytest.approx(keep.mean())
        assert part.kept_share == pytest.approx((scores[rows] >= 1.5).mean())
        spearmans.append(spearmanr(scores[rows], labels.expected[rows]).statistic)
        curves.append(average_precision_score(keep, scores[rows]))
        wanted.append(keep.sum())
        assert part.metrics["spearman"].value == pytest.approx(spearmans[-1])
        assert part.metrics["pr_auc"].value == pytest.approx(curves[-1])
        assert part.metrics["f1"].value == pytest.approx(f1_score(keep, scores[rows] >= 1.5))
        assert part.metrics["spearman"].low < part.metrics["spearman"].value < part.metrics["spearman"].high
    assert topic.within_spearman.value == pytest.approx(np.mean(spearmans))
    assert topic.within_pr_auc.value == pytest.approx(np.average(curves, weights=wanted))


def test_a_filter_that_only_recognises_topics_ranks_nothing_within_them(tmp_path: Path) -> None:
    topics = [TOPICS[min(int(score), 2)] for score in columns()["expected_score"]]
    labels = read(tmp_path, topic=topics)
    noise = np.random.default_rng(0).normal(0, 0.01, 240)
    scores = np.array([TOPICS.index(topic) for topic in topics]) + noise
    assert spearmanr(scores, labels.expected).statistic > 0.8
    assert abs(facets(labels, scores)[0].within_spearman.value) < 0.2
    judge = facets(labels, labels.expected)[0].within_spearman.value
    assert judge == pytest.approx(1)


def test_small_slices_get_no_numbers_and_many_are_taken_together(tmp_path: Path) -> None:
    names = ["large"] * 150 + ["small"] * 20 + [f"t{row}" for row in range(70)]
    labels = read(tmp_path, topic=names, language=[None] * 120 + ["en"] * 120)
    topic, language, _ = facets(labels, labels.expected)
    slices = {part.name: part for part in topic.slices}
    assert slices["large"].metrics["spearman"].value == pytest.approx(1)
    assert slices["small"].metrics["spearman"].value is None
    assert len(slices) == SHOWN
    assert slices[OTHER].rows == 70 - (SHOWN - 3)
    assert topic.within_spearman.value == pytest.approx(1)
    assert sorted(part.name for part in language.slices) == ["(none)", "en"]


def test_a_column_with_one_value_is_no_facet(tmp_path: Path) -> None:
    found = read(tmp_path, language=["en"] * 240)
    assert list(facets_of(found)) == ["length"]
    assert np.isnan(found.ratings).all()


@pytest.mark.parametrize("column", ["expected_score_2", "score_2"])
def test_a_second_rating_is_read_beside_the_first(tmp_path: Path, column: str) -> None:
    second: list[Any] = [1.0] * 239 + [None]
    found = read(tmp_path, **{column: second})
    np.testing.assert_allclose(found.ratings[:239, 0], columns()["expected_score"][:239])
    assert set(found.ratings[:239, 1].tolist()) == {1.0}
    assert np.isnan(found.ratings[239]).all()


def test_of_a_list_of_ratings_the_first_two_count(tmp_path: Path) -> None:
    found = read(tmp_path, scores=[[1, 2, 5], [3], [], None] * 60)
    assert found.ratings[0].tolist() == [1, 2]
    assert np.isnan(found.ratings[1:4]).all()


def test_rows_that_repeat_a_text_are_two_ratings(tmp_path: Path) -> None:
    data = columns()
    data["text"][1], data["id"][1] = data["text"][0], data["id"][0]
    data["expected_score"][:2] = [1.0, 2.0]
    found = read(tmp_path, **data)
    assert found.ratings[0].tolist() == [1.0, 2.0]
    assert np.isfinite(found.ratings).all(axis=1).sum() == 1


@pytest.mark.parametrize("bad", [{"score_2": [7] * 240}, {"scores": [["a", "b"]] * 240}, {"scores": [[1, -1]] * 240}])
def test_ratings_off_the_scale_are_refused(tmp_path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(AnnotationsError, match=r"must hold ratings between 0 and 5; .* found in row 0\. Remedy"):
        read(tmp_path, **bad)


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("cat", 1), ("make", 1), ("table", 2), ("the", 1), ("roses", 2), ("likes", 1), ("wanted", 2), ("jumped", 1),
        ("education", 4), ("syllable", 3), ("rhythm", 1), ("café", 2), ("boxes", 2), ("xyz", 1), ("nth", 1),
    ],
)  # fmt: skip
def test_syllables_by_the_documented_rule(word: str, count: int) -> None:
    assert syllables(word) == count


def test_flesch_kincaid_by_hand() -> None:
    # 10 words, 2 sentences, 11 syllables (water counts two).
    grade = flesch_kincaid_grade("The cat sat on the mat. Dogs drink cold water!")
    assert grade == pytest.approx(0.39 * 10 / 2 + 11.8 * 11 / 10 - 15.59)
    assert flesch_kincaid_grade("A line\nanother line") == flesch_kincaid_grade("A line. another line.")
    assert flesch_kincaid_grade("3.14 ... 42 !") == 0


def test_baselines_are_on_the_judges_scale_and_the_topic_is_learnt_from_other_pages(tmp_path: Path) -> None:
    topics = [TOPICS[min(int(score), 2)] for score in columns()["expected_score"]]
    labels = read(tmp_path, topic=topics)
    scores = baseline_scores(labels, Measure(1.5), 3000)
    assert list(scores) == ["random", "length", "readability", "topic"]
    for name in ("random", "length", "readability"):
        assert np.mean(scores[name] >= 1.5) == pytest.approx(np.mean(labels.expected >= 1.5), abs=0.05)
    assert abs(spearmanr(scores["random"], labels.expected).statistic) < 0.2
    assert spearmanr(scores["topic"], labels.expected).statistic > 0.7
    assert spearmanr(scores["length"], [len(text) for text in labels.texts]).statistic > 0.99
    again = baseline_scores(labels, Measure(1.5), 3000)
    np.testing.assert_array_equal(scores["random"], again["random"])
    # A topic of one page says nothing of it.
    alone = read(tmp_path, topic=[f"topic {row}" for row in range(240)])
    scores = baseline_scores(alone, Measure(1.5), 3000)
    assert abs(spearmanr(scores["topic"], alone.expected).statistic) < 0.3
