"""What a model folder knows of the texts a model was trained on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from filters.errors import ModelError
from filters.model import QualityModel
from filters.model.trained_on import FILE, TrainedOn
from filters.train.annotations import read_annotations

WORDS = [f"word{number}" for number in range(3000)]


def texts(count: int, length: int = 120, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=length)) for _ in range(count)]


def test_copies_are_known_and_others_are_not() -> None:
    known = texts(400)
    trained = TrainedOn.of(known, 3000)
    assert trained.seen(known).all()
    assert trained.seen([text.upper().replace(" ", " \n ") + "!" for text in known]).all()
    assert not trained.seen(texts(2000, seed=1)).any()
    assert trained.marks.nbytes == 8 * 400


@pytest.mark.parametrize(("changed", "least", "most"), [(1, 0.9, 1.0), (2, 0.6, 1.0), (30, 0.0, 0.02)])
def test_near_copies_are_known_the_more_surely_the_nearer(changed: int, least: float, most: float) -> None:
    known = texts(400)
    generator = random.Random(5)
    near = []
    for text in known:
        words = text.split()
        for place in generator.sample(range(len(words)), changed):
            words[place] = "changed"
        near.append(" ".join(words))
    assert least <= TrainedOn.of(known, None).seen(near).mean() <= most


def test_short_and_wordless_texts_are_told_apart() -> None:
    known = ["a", "two words", "!!!", "?!", "", "\u65e5\u672c"]
    trained = TrainedOn.of(known, 3000)
    assert trained.seen(known).all()
    assert not trained.seen(["b", "other words", "!!", "...", "\u65e5\u6771\u4eac", *map(str, range(500))]).any()


def test_only_what_the_model_reads_counts() -> None:
    one = texts(1)[0]
    assert TrainedOn.of([one + " " + texts(1, seed=2)[0]], len(one)).seen([one])[0]


def test_blanks_do_not_move_what_is_known_of_a_long_text() -> None:
    known = texts(200, length=900)
    trained = TrainedOn.of(known, 3000)
    assert trained.seen([text.replace(" ", "   \n") for text in known]).all()
    assert not trained.seen([text.replace(" ", "   \n") for text in texts(200, length=900, seed=1)]).any()


def test_the_embedded_model_knows_the_file_it_was_trained_on(shared_data: Path) -> None:
    path = shared_data / "annotations" / "edu-en-train.parquet"
    model = QualityModel.load("edu-en")
    labels = read_annotations(path)
    assert model.metadata.training is not None
    assert labels.sha256 == model.metadata.training.sha256
    assert model.trained_on is not None
    # Five pages hold letters that are not in NFC, or Thai: words of theirs were others when the model was made.
    same = (TrainedOn.of(labels.texts, model.window).marks == model.trained_on.marks).all(axis=1)
    assert len(same) - same.sum() <= 8
    assert (~model.trained_on.seen(labels.texts)).sum() <= 8


def test_marks_that_are_not_those_of_the_manifest_are_refused(tmp_path: Path) -> None:
    TrainedOn.of(texts(3), 100).write(tmp_path)
    assert len(TrainedOn.read(tmp_path, 3, 100)) == 3
    with pytest.raises(ModelError, match=FILE):
        TrainedOn.read(tmp_path, 4, 100)
