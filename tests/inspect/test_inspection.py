"""`finesieve inspect` as commands: readable at 80 columns and in ASCII, plain JSON, exit statuses, clear refusals."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from filters.cli.main import app
from filters.errors import FinesieveError
from filters.inspect.compare import compare
from filters.inspect.inspection import inspect_run, parse_quotas
from filters.inspect.terminal import comparison_view, histogram_view, sparkline, text_view
from filters.inspect.thresholds import thresholds
from filters.scores.finished_run import Run
from filters.scores.histogram import Histogram
from filters.scores.threshold import Target
from filters.terminal import short
from tests.inspect.synthetic import add_score, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return write_run(folder / "now", 4000, seed=1), write_run(folder / "before", 4000, seed=2, shift={"en": 0.5})


def call(*arguments: object, verb: str = "inspect") -> tuple[int, str]:
    result = CliRunner().invoke(app, [verb, *map(str, arguments)])
    if isinstance(result.exception, FinesieveError):
        return 1, str(result.exception)
    return result.exit_code, result.output


@pytest.mark.parametrize("unicode", [True, False])
def test_every_view_fits_eighty_columns(runs: tuple[Path, Path], unicode: bool) -> None:
    run = Run(runs[0])
    found = inspect_run(run, target=Target("tokens", 3e5), by="language", quotas={"en": 0.5}, examples=2)
    views = [*found.views(unicode=unicode), comparison_view(compare(run, Run(runs[1])), tuple(map(str, runs)))]  # type: ignore[arg-type]
    file = io.StringIO()
    console = Console(file=file, width=80, highlight=False, markup=False)
    for view in views:
        console.print(view)
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.isascii() or unicode
    for part in (
        "keep tokens=300000",
        "en: ",
        "hosts with most",
        "clusters of duplicates",
        "* language en",
        "the 2 worst",
    ):
        assert part in text


def test_json_has_what_the_views_show(runs: tuple[Path, Path]) -> None:
    status, output = call(runs[0], "--keep", "fraction=0.1", "--by", "topic", "--sample", "0.5", "--json")
    found = json.loads(output)
    assert status == 0
    assert found["solution"]["kept"]["documents"] <= found["solution"]["total"]["documents"] * 0.1
    assert {part["value"] for part in found["slices"]["values"]} == {"history", "sport", None}
    assert found["estimate"]["resampled"] == "input files"
    assert found["clusters"] == {"2": 571}
    status, output = call(runs[0], runs[1], "--json", verb="compare")
    assert status == 1
    assert any(line.startswith("language en") for line in json.loads(output)["drifted"])


@pytest.mark.parametrize("keep", [None, 0.7])
def test_two_columns_are_counted_against_each_other(runs: tuple[Path, Path], keep: float | None) -> None:
    options = [] if keep is None else ["--keep", f"min_score={keep}"]
    status, output = call(runs[0], "--by", "score,topic", *options, "--json")
    assert status == 0
    found = json.loads(output)["cells"]
    rows = Run(runs[0]).attributes(["score", "topic", "keep", "reason"]).to_pylist()
    rows = [row for row in rows if row["reason"] in (None, "low_score")]
    assert found["by"] == ["score", "topic"]
    assert sum(cell["documents"] for cell in found["values"]) == len(rows)
    for cell in found["values"]:
        scores, topic = cell["values"]
        low, high = map(float, scores.split("-"))
        inside = [row for row in rows if row["topic"] == topic and low <= row["score"] < high + (high == 5)]
        kept = [row for row in inside if (row["keep"] if keep is None else row["score"] >= np.float32(keep))]
        assert (cell["documents"], cell["kept"]) == (len(inside), len(kept))
        assert cell["kept_share"] == len(kept) / len(inside)
        assert cell["mean_score"] == pytest.approx(np.mean([row["score"] for row in inside]))
    status, output = call(runs[0], "--by", "language,host", *options)
    assert status == 0
    assert "by language and host" in output
    assert "smaller ones; --json has all" in output
    text = call(runs[0], "--by", "topic,score", *options)[1]
    assert text.index("0.0-0.5") < text.index("0.5-1.0") < text.index("1.0-1.5")
    assert max(map(len, text.splitlines())) <= 80


def test_two_scores_are_counted_against_each_other(tmp_path: Path) -> None:
    path = add_score(write_run(tmp_path / "run", 900, seed=3), "hq")
    status, output = call(path, "--by", "score,hq", "--json")
    assert status == 0
    rows = Run(path).attributes(["score", "hq", "reason"]).to_pylist()
    for cell in json.loads(output)["cells"]["values"]:
        (low, high), (first, last) = (map(float, value.split("-")) for value in cell["values"])
        inside = [row for row in rows if low <= row["score"] < high + (high == 5) and row["reason"] != "near_duplicate"]
        expected = sum(first <= row["hq"] < np.float32(last) + (last == 1) for row in inside)
        assert abs(cell["documents"] - expected) <= 1  # a probability may lie on a border of tenths


@pytest.mark.parametrize(("option", "command"), [("--against", "compare"), ("--leaks", "leaks"), ("--read", "read")])
def test_an_option_that_became_a_command_names_it(runs: tuple[Path, Path], option: str, command: str) -> None:
    status, output = call(runs[0], option, "5")
    assert status == 2
    assert f"finesieve {command} RUN" in " ".join(output.replace("│", " ").split())


def test_the_exit_status_says_whether_it_drifted(runs: tuple[Path, Path]) -> None:
    assert call(runs[0], runs[1], verb="compare")[0] == 1
    assert call(runs[0], runs[1], "--max-psi", "9", verb="compare")[0] == 0
    assert call(runs[0], runs[0], "--max-psi", "0.001", verb="compare")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "half"], "write min_score=1.5"),
        (["--by", "colour"], "cannot slice by 'colour'"),
        (["--quota", "en=0.5"], "shares out a budget"),
        (["--keep", "fraction=0.1", "--by", "language", "--quota", "xx=0.5"], "no document has it as its language"),
        (["--keep", "min_score=1", "--by", "language", "--quota", "en=0.5"], "share of a budget"),
        (["--sample", "0.5"], "needs --keep"),
        (["--by", "language,colour"], "cannot slice by 'colour'"),
        (["--by", "language,topic,host"], "takes one column, or two"),
        (["--by", "language,topic", "--where", "score > 1"], "takes one column, or two"),
        (["--by", "score"], "cannot slice by 'score'"),
    ],
)
def test_options_that_make_no_sense_are_refused(runs: tuple[Path, Path], options: list[str], message: str) -> None:
    status, output = call(runs[0], *options)
    assert status
    assert message in output


def test_pieces() -> None:
    import numpy as np

    assert [short(n) for n in (812, 45_300, 1.3e12, 2_780_000)] == ["812", "45.3K", "1.30T", "2.78M"]
    assert sparkline(np.array([0, 1, 100]), unicode=False) == " .%"
    assert parse_quotas(["a=b=0.5"]) == {"a=b": 0.5}
    shown = text_view("\x1b[31mred\u202e\n\n\n\n" + "w" * 5000 + "\n" + "line\n" * 99, lines=30).plain
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert len(shown.splitlines()) <= 31


def test_the_answer_comes_last_and_alone_when_brief(runs: tuple[Path, Path]) -> None:
    _, full = call(runs[0], "--keep", "fraction=0.1", "--examples", 0)
    status, brief = call(runs[0], "--keep", "fraction=0.1", "--brief")
    assert status == 0
    assert brief.startswith("keep fraction=0.1: score >= ")
    assert full.endswith(brief)
    assert full.index("ledger:") < full.index("keep fraction=0.1")
    assert call(runs[0], "--brief")[1].startswith("what a threshold keeps")


@pytest.mark.parametrize(("documents", "bars"), [(1000, 20), (100, 10)])
def test_views_follow_the_scale_of_the_scores_and_their_number(documents: int, bars: int) -> None:
    scores = np.random.default_rng(0).random(documents).astype(np.float32)
    histogram = Histogram()
    histogram.add(scores, tokens=np.ones(documents, np.int64), text_bytes=np.ones(documents, np.int64))

    def shown(min_score: float) -> list[str]:
        console = Console(width=80, file=io.StringIO())
        console.print(histogram_view(histogram, min_score, unicode=False))
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue().splitlines()[1:]

    lines = shown(0.52)
    assert len(lines) == bars
    assert float(lines[-1].split()[0]) == pytest.approx(1 - 1 / bars, abs=0.011)
    assert sum("keep >=" in line for line in lines) == 1
    assert thresholds(histogram, 0.5) == (0.05, 0.1, 0.25, 0.5, 0.75, 0.9)
    # A model on the judge's scale, and a threshold on it, is shown on it.
    assert float(shown(1.5)[-1].split()[0]) == pytest.approx(5 - 5 / bars, abs=0.011)
    assert thresholds(histogram, 1.5) == (0.5, 1.0)


def test_a_rule_says_what_it_keeps(runs: tuple[Path, Path]) -> None:
    """The same numbers as from the side files themselves, and the same documents as the run would keep."""
    run = Run(runs[0])
    rows = run.attributes().to_pylist()
    alive = [row for row in rows if row["reason"] in (None, "low_score") and row["score"] is not None]
    fits = [row for row in alive if row["language"] == "en" and row["score"] >= 1.5]
    where = "language = 'en' and score >= 1.5"
    code, text = call(runs[0], "--where", where, "--brief")
    assert code == 0
    assert text.splitlines()[0] == f"where {where}"
    assert f"is true of {len(fits):,} of {len(alive):,} documents" in text
    assert f"{sum(row['language'] == 'en' for row in alive):,}  language = 'en'" in text
    found = json.loads(call(runs[0], "--where", where, "--keep", "fraction=0.25 by tokens", "--json")[1])
    assert found["rule"]["fits"]["documents"] == len(fits)
    assert found["rule"]["fits"]["tokens"] == sum(row["tokens"] for row in fits)
    longest = sorted((row["tokens"] for row in fits), reverse=True)[: len(fits) // 4]
    solution = found["solution"]
    assert solution["kept"]["documents"] == sum(row["tokens"] >= solution["threshold"] for row in fits)
    assert (
        solution["kept"]["documents"]
        <= len(longest)
        < solution["kept"]["documents"] + 1 + (solution["tie"]["documents"] if solution["tie"] else 0)
    )
    assert "keep fraction=0.25 by tokens: it is >= " in call(runs[0], "--keep", "fraction=0.25 by tokens")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--where", "scor > 1"), "--where: no column 'scor'; did you mean 'score'?"),
        (("--where", "keep"), "--where: keep says what was decided"),
        (("--where", "score in (select 1)"), "a query inside of a rule is not allowed"),
        (("--where", "score < 1", "--keep", "min_score=2"), "contradicts 'min_score 2'"),
        (("--keep", "fraction=0.1 by language"), "--keep: is text, where a number is needed"),
        (("--keep", "min_score=1 by tokens"), "a threshold is of the score"),
        (("--keep", "fraction=0.1 of tokens"), "fraction=0.1 by score * ln(tokens)"),
        (("--where", "score > 1", "--keep", "fraction=0.1", "--sample", "0.5"), "--sample: "),
        (("--where", "score > 1", "--html", "page.html"), "leave out --html"),
        (("--html", "page.html", "--json"), "--json: the page has it all"),
        (("--html", "page.html", "--brief"), "--brief: the page has it all"),
        (("--html", "page.html", "--weight", "tokens"), "--weight: the page has it all"),
        (("--html", "page.html", "--by", "host"), "--by: the page has it all"),
        (("--json", "--brief"), "--brief: JSON is never shortened"),
    ],
)
def test_options_that_do_not_go_together_and_wrong_rules_are_told(
    runs: tuple[Path, Path], arguments: tuple[str, ...], message: str
) -> None:
    code, text = call(runs[0], *arguments)
    assert code
    assert message in " ".join(text.replace("\u2502", " ").split())
