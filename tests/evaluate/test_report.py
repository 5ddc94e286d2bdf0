from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_pages import columns, write
from rich.console import Console

import filters.train.training as training
from filters.errors import AnnotationsError, InputError
from filters.evaluate.probes import PROBES
from filters.evaluate.report import (
    Predictions,
    Report,
    Subject,
    cross_validate_report,
    evaluate,
    report_from_predictions,
)
from filters.evaluate.view import page, report_view
from filters.model import QualityModel
from filters.model.trained_on import TrainedOn
from filters.page import check_page
from filters.statistics.agreement import METRICS
from filters.train.annotations import read_annotations
from filters.train.config import TrainConfig
from filters.train.evaluation import COMPARED
from tests.command import finesieve

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&$x^2$\u202e\x1b[31m"


def config(folder: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "annotations": str(folder / "labels.parquet"),
        "output": str(folder / "model"),
        "name": "lessons",
        "classifier": {"kind": "linear", "bits": 12, "l2": [0.3]},
        "validation": {"folds": 3, "repeats": 2, "inner_folds": 2, "resamples": 100},
    }
    return TrainConfig.model_validate(settings | changes)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels with every optional column, hostile names among them, and a model that was trained on them."""
    path = tmp_path_factory.mktemp("report")
    for name, data in (("labels", columns()), ("others", columns(seed=8))):
        data["text"][0] = HOSTILE + data["text"][0]
        data["topic"] = [("science", HOSTILE, "sport")[row % 3] for row in range(240)]
        data["expected_score_2"] = [min(value + 0.1, 5.0) for value in data["expected_score"]]
        write(path / f"{name}.parquet", data)
    write(path / "unseen.parquet", columns(seed=9))
    training.train(config(path), echo=quiet)
    return path


@pytest.fixture(scope="module")
def found(folder: Path) -> Report:
    model = QualityModel.load(folder / "model")
    return evaluate(model, folder / "others.parquet", against=model, resamples=100)


def text_of(report: Report, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(report_view(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_report_is_its_own_json(found: Report) -> None:
    stored = json.loads(found.model_dump_json())
    assert Report.model_validate(stored) == found
    assert stored["format"] == "finesieve-evaluation"
    assert set(stored["sample"]) == set(stored["natural"]) == set(METRICS)
    assert len(stored["annotations"]["sha256"]) == len(stored["subject"]["digest"]) == 64
    assert [row["probe"] for row in stored["probes"]] == list(PROBES)
    assert [part["facet"] for part in stored["facets"]] == ["topic", "length"]
    assert set(stored["comparison"]["metrics"]) == set(COMPARED)


def test_parts_of_a_report_agree_with_each_other(found: Report) -> None:
    cells = found.confusion
    total = cells.kept_rightly + cells.kept_wrongly + cells.missed + cells.dropped_rightly
    assert total == found.annotations.rows == 240
    assert found.sample["precision"].value == pytest.approx(
        cells.kept_rightly / (cells.kept_rightly + cells.kept_wrongly)
    )
    assert sum(part.rows for part in found.reliability) == 240
    assert sum(part.judge_keeps + part.judge_drops for part in found.histogram) == pytest.approx(240)
    kept = sum(part.judge_keeps + part.judge_drops for part in found.histogram if part.low >= 1.5)
    assert kept == pytest.approx(cells.kept_rightly + cells.kept_wrongly)
    assert found.curve[-1].recall == 1
    weighted = sum(part.rows * abs(part.score - (part.judge.value or 0)) for part in found.reliability) / 240
    assert found.sample["calibration_error"].value == pytest.approx(weighted)
    assert found.judge is not None
    assert found.judge.metrics["mae"].value == pytest.approx(0.1, abs=0.01)
    assert {row.name for row in found.baselines} == {"random", "length", "readability", "topic"}
    assert found.comparison is not None
    assert found.comparison.metrics["f1"].wins == 0.5


def altered(text: str) -> str:
    """A near copy: other capitals and white space, a word changed, a sentence added."""
    words = text.split()
    words[len(words) // 2] = "otherwise"
    return "  ".join(words).upper() + "\nPrinted from the web."


@pytest.mark.parametrize("change", [str, str.upper, altered])
def test_texts_the_model_was_trained_on_are_left_out_whatever_file_they_are_in(
    folder: Path, tmp_path: Path, change: Callable[[str], str]
) -> None:
    model = QualityModel.load(folder / "model")
    old, new = columns(), columns(200, seed=9)
    part = {name: values[30:130] for name, values in old.items()}
    part["text"] = [change(text) for text in part["text"]]
    part["id"] = [f"old-{row}" for row in range(100)]
    path = write(tmp_path / "mixed.parquet", {name: part[name] + new[name] for name in new})
    report = evaluate(model, path, probes=False, resamples=100)
    seen = report.annotations.seen
    assert seen is not None
    assert 80 <= seen <= 100
    assert report.annotations.rows == 300 - seen
    assert f"{seen} of 300 texts are among those lessons was trained on" in report.notes[0]
    assert f"{seen} others are left out" in " ".join(text_of(report).split())
    if change is altered:  # 80 words with one changed and five more: not every one is found
        return
    assert seen == 100
    only_new = evaluate(model, write(tmp_path / "new.parquet", new), probes=False, resamples=100)
    assert {name: part.value for name, part in report.sample.items()} == {
        name: part.value for name, part in only_new.sample.items()
    }
    assert only_new.annotations.seen == 0
    assert only_new.notes == ()
    assert "trained on none of these texts" in " ".join(text_of(only_new).split())
    whole = write(tmp_path / "slice.parquet", part)
    with pytest.raises(AnnotationsError, match=r"100 of 100 texts were seen in training.*evaluate --config"):
        evaluate(model, whole, probes=False)
    # The model it is compared with may have seen them as well.
    other = QualityModel.load("edu-en")
    assert evaluate(other, path, against=model, probes=False, resamples=100).annotations.rows == 200


def test_of_a_model_that_does_not_say_what_it_was_trained_on_nothing_is_claimed(folder: Path) -> None:
    model = replace(QualityModel.load(folder / "model"), trained_on=None)
    report = evaluate(model, folder / "unseen.parquet", probes=False, resamples=100)
    assert report.annotations.seen is None
    assert "does not say" in " ".join(text_of(report).split())
    with pytest.raises(AnnotationsError, match="240 of 240 texts were seen in training"):
        evaluate(model, folder / "labels.parquet", probes=False)


def test_the_terminal_view_fits_80_columns_and_shows_the_numbers(found: Report) -> None:
    text = text_of(found)
    assert max(map(len, text.splitlines())) <= 80
    assert "\u2026" not in text  # nothing cut off
    for part in (found.sample["f1"], found.sample["calibration_error"], found.facets[0].within_spearman):
        assert str(part) in text
    assert found.natural is not None
    assert str(found.natural["pr_auc"]) in text
    for name in (*PROBES, "judge again", "readability", "conformal"):
        assert name in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_cross_validated_report_is_what_training_measures(folder: Path) -> None:
    lines: list[str] = []
    report = cross_validate_report(config(folder), echo=lines.append)
    result = QualityModel.load(folder / "model").metadata.metrics
    assert report.protocol == "cross-validated"
    assert report.predictions == 2
    assert report.sample["f1"].model_dump() == result["sample"]["f1"]  # type: ignore[index,call-overload]
    assert report.sample["spearman"].model_dump() == result["sample"]["spearman"]  # type: ignore[index,call-overload]
    assert len(lines) == 6
    assert report.probes is not None
    assert {row.probe: row.flips.value for row in report.probes}["upper case"] == 0


def test_a_page_its_own_table_knows_is_not_probed(folder: Path) -> None:
    static = {"kind": "static", "table": "edu-en", "head": {"kind": "ridge"}}
    report = cross_validate_report(config(folder, classifier=static), echo=quiet)
    assert report.probes is None
    assert any(note.startswith("no probes") for note in report.notes)


def test_a_config_is_compared_with_another_on_the_same_folds(folder: Path) -> None:
    weak = config(folder, classifier={"kind": "linear", "bits": 8, "word_ngrams": 1, "l2": [1000.0]}, window=30)
    report = cross_validate_report(config(folder), against=weak, probes=False, echo=quiet)
    assert report.comparison is not None
    assert report.comparison.metrics["spearman"].wins > 0.95
    assert report.comparison.metrics["spearman"].difference.low > 0
    model = QualityModel.load(folder / "model")
    with pytest.raises(AnnotationsError, match="240 of 240 texts were seen"):
        cross_validate_report(config(folder), against=model, probes=False, echo=quiet)
    half = replace(model, trained_on=TrainedOn.of(columns()["text"][:100], model.metadata.reads))
    with_model = cross_validate_report(config(folder), against=half, probes=False, echo=quiet)
    assert with_model.annotations.rows == 240
    assert any("left out of the comparison" in note for note in with_model.notes)


def test_a_report_of_given_predictions_needs_no_model(folder: Path) -> None:
    labels = read_annotations(folder / "unseen.parquet")
    perfect = Predictions(Subject(name="p", kind="none", digest="0", window=100), 1.5, [labels.expected])
    report = report_from_predictions(perfect, labels, protocol="cross-validated", resamples=100)
    assert report.sample["f1"].value == 1
    assert report.sample["calibration_error"].value == pytest.approx(0, abs=1e-6)
    assert report.examples == ()
    assert report.judge is None
    assert report.probes is None
    few = replace(labels, groups=np.arange(len(labels)) % 3)
    assert report_from_predictions(perfect, few, protocol="held out", resamples=100).conformal == ()
    assert "no intervals" not in text_of(report, 160)
    one = replace(labels, groups=np.zeros(len(labels), np.int64))
    told = text_of(report_from_predictions(perfect, one, protocol="held out", resamples=100), 160)
    assert "in 1 group," in told
    assert "no intervals: the texts are one group" in told


def data_of(page: bytes) -> dict[str, Any]:
    found = re.search(rb'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_page_holds_everything_and_hostile_text_only_as_data(found: Report) -> None:
    """What the page of a run promises too is tested there: its scripts, its policy, and that nothing is loaded."""
    source = page(found)
    assert len(source) < 2_000_000
    assert b"<script>alert" not in source
    text = source.decode()
    assert "\u202e" not in text
    assert "\x1b" not in text
    data = data_of(source)
    shown = json.dumps(data)
    assert "<script>alert(1)</script>" in shown
    for name in (*PROBES, "trained on none of these texts", "Provenance", found.annotations.sha256):
        assert name in shown
    kinds = [chart["kind"] for section in data["sections"] for chart in section["charts"]]
    assert kinds == ["reliability", "curve", "decisions", "intervals", "intervals", "intervals", "coverage"]
    for table in (table for section in data["sections"] for table in section["tables"]):
        assert {len(row) for row in table["rows"]} == {len(table["columns"])}
    assert page(found) == source


def test_the_page_does_without_what_the_report_lacks(folder: Path) -> None:
    report = evaluate(QualityModel.load(folder / "model"), folder / "unseen.parquet", probes=False, resamples=100)
    text = json.dumps(data_of(page(report)))
    assert "Robustness" not in text
    assert "Against" not in text
    assert "agreement with itself is unknown" in text


def test_a_page_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "such.html"):
        with pytest.raises(InputError, match="cannot write a page here"):
            check_page(path)


def test_the_command_writes_json_and_a_page(folder: Path, tmp_path: Path) -> None:
    html = tmp_path / "report.html"
    done = finesieve("evaluate", folder / "model", folder / "unseen.parquet", "--json", "--html", html, "--no-probes")
    assert Report.model_validate_json(done.stdout).probes is None
    assert html.read_text().startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_command_says_what_it_lacks(folder: Path) -> None:
    assert "MODEL" in finesieve("evaluate", "edu-en", status=2).stderr
    assert (
        "--config" in finesieve("evaluate", "edu-en", folder / "unseen.parquet", "--config", "x.yaml", status=2).stderr
    )
    assert "x.yaml" in finesieve("evaluate", "--config", "x.yaml", status=1).stderr
    assert "no such model" in finesieve("evaluate", "nowhere", folder / "unseen.parquet", status=1).stderr
