from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled_pages import columns, write

from filters.evaluate.probes import PROBES, measure_probes, probe_scores
from filters.statistics.resampling import Measure
from filters.train.annotations import read_annotations

TEXT = "How leaves work\nA leaf makes sugar from light. Water comes up from the roots.\nIt also needs air."


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("text", [TEXT, "x", "one line without an end", "zwei\u2028Zeilen é\n\n\n", "$a$ <b>&amp;"])
def test_every_probe_changes_a_text_the_same_way_every_time(name: str, text: str) -> None:
    change = PROBES[name].change
    assert change(text) == change(text)
    assert change(text) != text or text == "x"


@pytest.mark.parametrize("name", sorted(set(PROBES) - {"truncation"}))
def test_no_word_is_lost(name: str) -> None:
    changed = PROBES[name].change(TEXT).lower().replace("*", " ").split()
    assert set(TEXT.lower().split()) <= set(changed)


def test_truncation_keeps_the_first_half_and_cuts_between_words() -> None:
    half = PROBES["truncation"].change(TEXT)
    assert TEXT.startswith(half)
    assert TEXT[len(half)] == " "
    assert 0.4 < len(half) / len(TEXT) <= 0.5
    assert PROBES["truncation"].change("a" * 100) == "a" * 50


def test_white_space_and_case_change_nothing_else() -> None:
    assert PROBES["white space"].change(TEXT).split() == TEXT.split()
    assert PROBES["upper case"].change(TEXT).lower() == TEXT.lower()


def test_probes_tell_a_model_that_counts_keywords_from_one_that_does_not(tmp_path: Path) -> None:
    labels = read_annotations(write(tmp_path / "labels.parquet", columns()))

    def gullible(texts: object) -> np.ndarray:
        return np.array([0.5 * text.count("lesson") + 0.4 * ("photosynthesis" in text) for text in texts], np.float32)

    def sound(texts: object) -> np.ndarray:
        return np.array([1.0 + ("photosynthesis" in text.lower()) for text in texts], np.float32)

    for score, flips in ((gullible, 0.0), (sound, 0.0)):
        base = score(labels.texts)
        probed = probe_scores(score, labels.texts)
        results = {row.probe: row for row in measure_probes(base, probed, labels, Measure(0.9, 100))}
        assert results["white space"].flips.value == flips
        assert not results["white space"].above_reference
        if score is gullible:
            assert results["keywords"].flips.value == 1
            assert results["keywords"].gained == 1
            assert results["keywords"].lost == 0
            assert results["keywords"].shift.value == pytest.approx(1.0)
            assert results["keywords"].above_reference
        else:
            assert results["keywords"].flips.value == 0


def test_flips_near_the_threshold_and_in_the_natural_mix_are_shares_of_those_pages(tmp_path: Path) -> None:
    data = columns()
    labels = read_annotations(write(tmp_path / "labels.parquet", data))
    before = np.linspace(0, 3, 240)
    after = before.copy()
    flipped = np.flatnonzero(before >= 1.5)[:12]
    after[flipped] = 1.0
    (row,) = measure_probes(before, {"markdown": after}, labels, Measure(1.5, 100, 0))
    near = np.abs(before.astype(np.float32) - 1.5) <= 0.5
    assert row.flips.value == pytest.approx(12 / 240)
    assert row.near_rows == near.sum()
    assert row.near.value == pytest.approx(12 / near.sum())
    assert row.natural.value == pytest.approx(
        np.sum(np.array(data["natural_weight"])[flipped]) / sum(data["natural_weight"])
    )
    assert (row.lost, row.gained) == (pytest.approx(0.05), 0)
    assert not row.above_reference
