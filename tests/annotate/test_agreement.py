"""The agreement report: of stores with made-up judges, of real repeat ratings, and what it prints."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from filters.annotate.agreement import AgreementReport, learning_curve, make_report
from filters.annotate.ratings import read_rated
from filters.annotate.rubric import Rubric, Scale
from filters.annotate.store import Answer, Document, Store
from filters.annotate.terminal import agreement_view
from filters.cli.main import app
from filters.errors import AnnotationsError
from filters.statistics.agreement import correlation_bound
from filters.statistics.resampling import Estimate
from tests.train import labelled_pages

RUBRIC = Rubric(name="test", version="1", scale=Scale(max=5), label="Score", prompt="How good is this page? 0 to 5.")
ROWS = 300


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three judges of 300 pages: a strict one asked twice, a mild one, and one that throws dice; and a human."""
    path = tmp_path_factory.mktemp("agreement") / "answers.sqlite"
    pages = labelled_pages.columns(ROWS)
    rng = np.random.default_rng(0)
    true = np.array(pages["expected_score"])
    probability = np.where(true > 2, 0.5, 0.05)
    with Store(path) as store:
        sample = store.begin_sample({"made": "up"})
        documents = [
            Document(
                text=text,
                url=url,
                probability=float(p),
                design="stratified",
                stratum="high" if p > 0.1 else "low",
                columns={"topic": "science" if "photosynthesis" in text else "shop", "page": row},
            )
            for row, (text, url, p) in enumerate(zip(pages["text"], pages["url"], probability, strict=True))
        ]
        store.draw(sample, documents)
        numbers = [number for number, _ in store.drawn(sample)]
        rubric, run = store.rubric(RUBRIC), store.begin_run("{}")

        def answer(name: str, values: list[np.ndarray], skip: float = 0.0) -> None:
            judge = store.judge(name, "model", f"model of {name}", {}).number
            answers = [
                Answer(n, repeat, "ok", "", score=float(np.rint(v)), expected=float(v), entropy=0.5)
                for repeat, column in enumerate(values)
                for n, v in zip(numbers, np.clip(column, 0, 5), strict=True)
                if rng.random() >= skip
            ]
            store.save(run, judge, rubric, answers)

        answer("strict", [true - 0.4 + rng.normal(0, 0.25, ROWS) for _ in range(2)])
        answer("mild", [true + 0.4 + rng.normal(0, 0.25, ROWS)], skip=0.2)
        answer("dice", [rng.uniform(0, 5, ROWS)])
        rejecting = store.judge("dice", "model", "model of dice", {}).number
        store.save(run, rejecting, rubric, [Answer(numbers[0], 7, "rejected", "what?", cause="no_score")])
        for document, score in list(zip(documents, true, strict=True))[:100]:
            store.record_keep("anna", document, bool(score >= 1.5))
    return path


@pytest.fixture(scope="module")
def report(store: Path) -> AgreementReport:
    return make_report(read_rated(store), resamples=200)


def test_judges_are_told_apart(report: AgreementReport) -> None:
    strict, mild, dice = report.judges
    assert (strict.name, strict.model, strict.documents, strict.answers) == (
        "strict",
        "model of strict",
        ROWS,
        2 * ROWS,
    )
    assert mild.documents < ROWS
    assert dice.rejected == {"no_score": 1}
    assert sum(strict.scores.values()) == ROWS
    assert strict.entropy == pytest.approx(0.5)
    assert strict.severity is not None
    assert mild.severity is not None
    assert (mild.severity.value or 0) - (strict.severity.value or 0) == pytest.approx(0.75, abs=0.12)
    (repeats,) = report.within
    assert repeats.name == "strict"
    assert (repeats.coefficients["alpha"].value or 0) > 0.9
    pairs = {pair.name: pair.coefficients for pair in report.between}
    assert (pairs["strict and mild"]["spearman"].value or 0) > 0.85
    assert abs(pairs["strict and dice"]["spearman"].value or 0) < 0.2
    assert abs(pairs["mild and dice"]["qwk"].value or 0) < 0.2
    assert report.overall is not None
    assert (report.overall.coefficients["alpha"].value or 0) < (pairs["strict and mild"]["alpha"].value or 0)


def test_a_human_is_compared_on_keep_decisions(report: AgreementReport) -> None:
    humans = {part.name: part for part in report.humans}
    assert humans["strict and anna"].documents == 100
    assert (humans["strict and anna"].coefficients["f1"].value or 0) > 0.6
    assert (humans["dice and anna"].coefficients["qwk"].value or 0) < 0.3


def test_the_population_is_estimated_by_inverse_probabilities(report: AgreementReport) -> None:
    assert report.population is not None
    assert report.population.design == "stratified"
    kept, sample = report.population.kept_share.value, report.consensus.kept_share.value
    assert kept is not None
    assert sample is not None
    assert kept < sample  # good pages were drawn ten times as often


def test_slices_are_columns_with_few_values(report: AgreementReport) -> None:
    facets = {part.facet for part in report.slices}
    assert {"stratum", "topic"} <= facets
    assert "page" not in facets
    assert all(part.documents >= 30 for part in report.slices)


def test_the_curve_and_the_consensus_are_there(report: AgreementReport) -> None:
    assert report.curve is not None
    labels = [point.labels for point in report.curve.points]
    assert labels == sorted(labels)
    assert labels[-1] == ROWS * 4 // 5
    assert report.curve.points[-1].measures["spearman"].value is not None
    assert report.consensus.source == "differences between judges"
    assert report.consensus.undecided_share is not None
    assert AgreementReport.model_validate_json(report.model_dump_json()) == report


def test_the_view_fits_eighty_columns(report: AgreementReport) -> None:
    console = Console(width=80, record=True, force_terminal=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(agreement_view(report))
    text = console.export_text()
    assert "…" not in text
    for part in ("a judge against itself", "strict and", "against people's", "what more labels would buy", "of all"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_command_reports_a_store_as_json(store: Path) -> None:
    result = CliRunner().invoke(app, ["annotate", "--report", "--no-curve", "--json", str(store)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["documents"] == ROWS


def test_ratings_in_a_parquet_file(tmp_path: Path) -> None:
    columns = labelled_pages.columns(120)
    again = np.clip(np.array(columns["expected_score"]) + 0.1, 0, 5)
    path = tmp_path / "twice.parquet"
    pq.write_table(pa.table(columns | {"expected_score_2": again}), path)
    found = make_report(read_rated(path), curve=False, resamples=50)
    assert found.judges[0].answers == 240
    assert (found.within[0].coefficients["spearman"].value or 0) > 0.98
    once = tmp_path / "once.parquet"
    pq.write_table(pa.table(columns), once)
    found = make_report(read_rated(once), curve=False, resamples=50)
    assert found.within == ()
    assert "nothing was rated twice" in found.notes[0]
    assert found.consensus.undecided_share is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"neither", "needed are `text` and ratings|not a Parquet"),
        ({"text": ["a"], "mark": [1]}, "needed are `text` and ratings"),
        ({"text": ["a"], "scores": [[None]]}, "not lists of numbers"),
        ({"text": ["a"], "scores": [[9]]}, "between 0 and 5"),
    ],
)
def test_what_cannot_be_reported_is_said(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "file.parquet"
    if isinstance(content, dict):
        pq.write_table(pa.table(content), path)
    elif isinstance(content, bytes):
        path.write_bytes(content * 400)
    with pytest.raises(AnnotationsError, match=message):
        read_rated(path)


def test_a_rubric_that_was_never_used_is_refused(store: Path) -> None:
    with pytest.raises(AnnotationsError, match="no answers under the rubric other; it has test"):
        read_rated(store, "other")


def test_too_few_labels_make_no_curve() -> None:
    texts = [f"page {number}" for number in range(60)]
    assert learning_curve(texts, np.linspace(0, 5, 60), np.arange(60), 1.5) is None


def test_real_repeat_ratings(shared_data: Path) -> None:
    """A real judge's two to five ratings of 2,000 pages: nearly the same every time."""
    rated = read_rated(shared_data / "annotations" / "legal-en.parquet")
    found = make_report(rated, curve=False, resamples=50)
    (repeats,) = found.within
    assert (found.documents, repeats.documents) == (2800, 2000)
    for name in ("qwk", "alpha", "spearman", "f1"):
        assert 0.985 < (repeats.coefficients[name].value or 0) < 0.999


def test_repeats_of_one_distribution_are_no_measure_and_cut_pages_are_counted(tmp_path: Path) -> None:
    pages = labelled_pages.columns(60)
    with Store(tmp_path / "s.sqlite") as store:
        sample = store.begin_sample({})
        store.draw(sample, [Document(text) for text in pages["text"]])
        rubric, run = store.rubric(RUBRIC), store.begin_run("{}")
        numbers = [number for number, _ in store.drawn(sample)]
        halves = {"first": numbers[:30], "second": numbers[30:]}
        for name, part in halves.items():
            judge = store.judge(name, "model", "m", {"mode": "expected"}).number
            answers = [
                Answer(n, repeat, "ok", "", score=n % 6, expected=n % 6, text_cut=500 if n % 3 == 0 else None)
                for n in part
                for repeat in range(2)
            ]
            store.save(run, judge, rubric, answers)
    report = make_report(read_rated(tmp_path / "s.sqlite"), curve=False, resamples=20)
    assert [judge.severity for judge in report.judges] == [None, None]
    assert [judge.text_cut for judge in report.judges] == [10, 10]
    shown = "\n".join(report.notes)
    for name in halves:
        assert f"{name} answers in mode expected: its repeats read one distribution again" in shown
        assert f"{name} rated no page that another judge rated: its severity is unknown" in shown
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(agreement_view(report))
    assert "first: of 10 pages it was shown a part only" in console.export_text()


def test_the_bound_is_the_square_root_of_the_reliability() -> None:
    """What knows the judge's mean correlates with one rating more than a second rating does, and by the root."""
    rng = np.random.default_rng(0)
    mean = rng.normal(0, 1, 200_000)
    first, second = (mean + rng.normal(0, 1, 200_000) for _ in range(2))
    reliability = float(np.corrcoef(first, second)[0, 1])
    best = float(np.corrcoef(mean, first)[0, 1])
    assert best > reliability + 0.15
    bound = correlation_bound(Estimate(value=reliability, low=-0.1, high=None))
    assert bound.value == pytest.approx(best, abs=0.01)
    assert (bound.low, bound.high) == (0.0, None)
