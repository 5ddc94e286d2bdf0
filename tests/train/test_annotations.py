from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_pages import columns, write

from filters.errors import AnnotationsError
from filters.train.annotations import read_annotations


def changed(path: Path, **changes: Any) -> Path:
    data = columns()
    for name, value in changes.items():
        if value is None:
            del data[name]
        elif callable(value):
            data[name] = value(list(data[name]))
        else:
            data[name] = value
    return write(path / "labels.parquet", data)


def at(row: int, value: object) -> Any:
    def change(values: list[Any]) -> list[Any]:
        values[row] = value
        return values

    return change


def test_a_sound_file_is_read_as_it_is(tmp_path: Path) -> None:
    data = columns()
    labels = read_annotations(write(tmp_path / "labels.parquet", data))
    assert list(labels.texts) == data["text"]
    np.testing.assert_allclose(labels.expected, data["expected_score"])
    np.testing.assert_array_equal(labels.score, data["score"])
    np.testing.assert_allclose(labels.natural_weight, data["natural_weight"])
    assert labels.target == "expected_score"
    assert labels.notes == ()
    assert len(set(labels.groups.tolist())) == 80
    assert len({tuple(labels.groups[row : row + 3]) for row in range(0, 240, 3)}) == 80


@pytest.mark.parametrize("name", ["text", "score"])
def test_a_missing_column_is_named_with_those_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(AnnotationsError, match=rf"column '{name}' is missing; found .*url.*Remedy"):
        read_annotations(changed(tmp_path, **{name: None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": at(7, 6)}, r"'score' must lie between 0 and 5; 6 found \(row 7, 1 in all\)"),
        ({"score": at(7, -1)}, r"'score' must lie between 0 and 5; -1 found"),
        ({"score": at(7, None)}, r"'score' is null or NaN in row 7"),
        ({"expected_score": at(3, float("nan"))}, r"'expected_score' is null or NaN in row 3"),
        ({"expected_score": at(3, float("inf"))}, r"'expected_score' must lie between"),
        ({"expected_score": at(3, 5.1)}, r"'expected_score' must lie between 0 and 5; 5.1 found"),
        ({"score": lambda v: [2.5, *map(float, v[1:])]}, r"whole numbers 0 to 5, not fractions \(row 0"),
        ({"score": lambda v: [str(x) for x in v]}, r"'score' holds string, not numbers"),
        ({"text": lambda v: list(range(len(v)))}, r"'text' holds int64, not strings"),
        ({"id": at(9, "page-2")}, r"'page-2' names two texts, in rows 2 and 9"),
        ({"natural_weight": at(0, 0.0)}, r"'natural_weight' must be positive and finite"),
        ({"natural_weight": at(0, float("nan"))}, r"'natural_weight' must be positive and finite"),
        ({"expected_score": lambda v: [0.4] * len(v)}, r"every label is below .* one class only"),
        ({"expected_score": lambda v: [4.4] * len(v)}, r"every label reaches .* one class only"),
    ],
)
def test_bad_values_are_named_with_their_rows(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AnnotationsError, match=message):
        read_annotations(changed(tmp_path, **changes))


def test_fewer_than_50_labels_are_refused(tmp_path: Path) -> None:
    few = {name: values[:49] for name, values in columns().items()}
    with pytest.raises(AnnotationsError, match="49 labelled texts, and at least 50 are needed"):
        read_annotations(write(tmp_path / "few.parquet", few))
    enough = {name: values[:50] for name, values in columns().items()}
    assert len(read_annotations(write(tmp_path / "enough.parquet", enough))) == 50


def test_files_that_are_no_parquet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationsError, match=r"nothing\.parquet: cannot read"):
        read_annotations(tmp_path / "nothing.parquet")
    (tmp_path / "text.parquet").write_text("text,score\n")
    with pytest.raises(AnnotationsError, match="not a Parquet file"):
        read_annotations(tmp_path / "text.parquet")


def test_rows_without_text_are_left_out_with_a_note(tmp_path: Path) -> None:
    def change(values: list[Any]) -> list[Any]:
        return [None, "", " \n\t", *values[3:]]

    labels = read_annotations(changed(tmp_path, text=change))
    assert len(labels) == 237
    assert any("3 rows without text left out (rows 0, 1, 2" in note for note in labels.notes)


def test_one_text_with_two_labels_counts_once_with_their_mean(tmp_path: Path) -> None:
    data = columns()
    data["text"][1] = data["text"][0]
    data["id"][1] = data["id"][0]
    data["expected_score"][:2] = [1.0, 2.0]
    data["score"][:2] = [1, 2]
    data["text"][5] = data["text"][4]
    data["expected_score"][4:6] = [0.5, 0.5]
    data["score"][4:6] = [0, 0]
    labels = read_annotations(write(tmp_path / "labels.parquet", data))
    assert len(labels) == 238
    assert labels.expected[labels.texts.index(data["text"][0])] == pytest.approx(1.5)
    (note,) = labels.notes
    assert "2 rows repeat another row's text" in note
    assert "(1 texts had labels that disagree)" in note


def test_only_text_and_score_suffice(tmp_path: Path) -> None:
    data = {name: values for name, values in columns().items() if name in ("text", "score")}
    labels = read_annotations(write(tmp_path / "labels.parquet", data))
    assert labels.target == "score"
    assert labels.natural_weight is None
    assert len(set(labels.groups.tolist())) == len(labels)
    assert len(labels.notes) == 2


def test_a_list_of_ratings_stands_in_for_the_score(tmp_path: Path) -> None:
    data = {name: values for name, values in columns().items() if name in ("text", "url")}
    data["scores"] = [[row % 4, row % 4 + 1] if row % 2 else [row % 5] for row in range(240)]
    labels = read_annotations(write(tmp_path / "labels.parquet", data))
    assert labels.target == "scores"
    assert labels.expected[:4].tolist() == [0.0, 1.5, 2.0, 3.5]
    assert labels.score[:4].tolist() == [0, 2, 2, 4]
    assert "the mean of each row's scores is the target" in labels.notes[0]
    both = read_annotations(changed(tmp_path, scores=data["scores"]))
    assert both.target == "expected_score"
    without = read_annotations(changed(tmp_path, scores=data["scores"], score=None))
    assert without.target == "expected_score"
    np.testing.assert_array_equal(without.score, labels.score)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[1], [], *[[2, 3]] * 238], r"'scores' is null, empty or holds NaN in row 1, 1 in all"),
        ([[1], None, *[[2, 3]] * 238], r"'scores' is null, empty or holds NaN in row 1,"),
        ([[1.0], [float("nan")], *[[2.0]] * 238], r"'scores' is null, empty or holds NaN in row 1,"),
        ([[1], [1, 6], *[[2, 3]] * 238], r"'scores' must lie between 0 and 5; 6 found \(row 1, 1 in all\)"),
        ([["1"]] * 240, r"'scores' holds list<.*string>, not lists of numbers"),
        ([1] * 240, r"'scores' holds int64, not lists of numbers"),
        ([[]] * 240, r"'scores' holds list<.*null>, not lists of numbers"),
    ],
)
def test_bad_lists_of_ratings_are_named_with_their_rows(tmp_path: Path, scores: list[Any], message: str) -> None:
    with pytest.raises(AnnotationsError, match=message):
        read_annotations(changed(tmp_path, score=None, expected_score=None, scores=scores))


def test_rows_chosen_for_their_looks_do_not_represent_the_crawl(tmp_path: Path) -> None:
    sampling = ["random" if row % 3 else "active" for row in range(240)]
    labels = read_annotations(changed(tmp_path, sampling=sampling))
    assert labels.random.tolist() == [row % 3 > 0 for row in range(240)]
    assert labels.notes == ("metrics for the natural mix come from the 160 rows with sampling = random",)
    labels = read_annotations(changed(tmp_path, sampling=["active"] * 240))
    assert labels.natural_weight is None
    assert "no metrics for the natural mix" in labels.notes[0]
    assert read_annotations(changed(tmp_path)).random.all()


def test_near_copies_on_other_hosts_share_a_group(tmp_path: Path) -> None:
    data = columns()
    data["text"][200] = data["text"][10] + " and one more sentence at the end"
    labels = read_annotations(write(tmp_path / "labels.parquet", data))
    assert labels.groups[200] == labels.groups[10]
    assert labels.groups[198] == labels.groups[10]  # by the host of the copy
    assert labels.groups[30] != labels.groups[10]


def test_digest_is_of_the_file_as_stored(tmp_path: Path) -> None:
    data = columns()
    first = read_annotations(write(tmp_path / "a.parquet", data))
    pq.write_table(pa.table(data), tmp_path / "b.parquet", compression="zstd")
    second = read_annotations(tmp_path / "b.parquet")
    assert first.sha256 != second.sha256
    assert first.texts == second.texts
