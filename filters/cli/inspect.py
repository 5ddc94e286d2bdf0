"""`finesieve inspect`: histogram, thresholds and ledger of a finished run, in the terminal or as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from filters.cli.options import Opens, RunAddress, find_run
from filters.terminal import make_console

if TYPE_CHECKING:
    from filters.scores.finished_run import Run


def _moved(command: str) -> Any:
    """An option of before, which says which command does its work now."""

    def refuse(value: str | None) -> None:
        if value is not None:
            raise typer.BadParameter(f"is a command of its own now: {command}")

    return typer.Option(hidden=True, callback=refuse)


_WIDE = 2000
"""Characters that a row of an answer may take."""


def _ask(run: Run, sql: str, output: Path | None, as_json: bool) -> None:
    from filters.inspect.query import answer, json_rows, rows_view, write_answer

    if output is not None:
        rows = write_answer(run, sql, output)
        print(json.dumps({"rows": rows})) if as_json else make_console().print(f"{rows:,} rows: {output}")
        return
    with answer(run, sql) as found:
        if as_json:
            for piece in json_rows(found):
                print(piece.decode(), end="")
        else:
            console = make_console()
            console.width = _WIDE
            console.print(rows_view(found), soft_wrap=True)


def inspect(
    run: RunAddress,
    keep: Annotated[
        str | None,
        typer.Option(
            help="Solve for a threshold: fraction=0.1, tokens=1.3e12, min_score=1.5; 'fraction=0.1 by score * tokens'."
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Show what a rule in SQL keeps: \"score >= 1.5 and language = 'en'\".")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Slice by language, host, source, or a column of input.slices; by two with a comma (also a score)."
        ),
    ] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(metavar="VALUE=SHARE", help="Largest share of the budget for a value of --by. Can be repeated."),
    ] = None,
    sample: Annotated[
        float | None, typer.Option(help="The share that this run is of the dump that --keep is for; shows intervals.")
    ] = None,
    bins: Annotated[int | None, typer.Option(help="Number of bars of the histogram: 10, 20, 25, 50 or 100.")] = None,
    brief: Annotated[
        bool, typer.Option("--brief", help="Print only the answer to --keep, or what thresholds keep.")
    ] = False,
    weight: Annotated[str, typer.Option(help="What the bars count: documents, tokens or bytes.")] = "documents",
    examples: Annotated[int, typer.Option(min=0, help="Number of the best and worst documents to show.")] = 3,
    sql: Annotated[
        str | None, typer.Option(help='Ask DuckDB: "SELECT host, avg(score) FROM documents GROUP BY host".')
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="--sql: write the answer to this file: .csv, .parquet or .json.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the run as one interactive page instead.")] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="--html: a judge's labels of documents of the run (id or url, score, text): Parquet, JSONL or CSV."
        ),
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="--html: what evaluate --json printed about the run's model.")
    ] = None,
    against: Annotated[str | None, _moved("finesieve compare RUN OTHER")] = None,
    leaks: Annotated[str | None, _moved("finesieve leaks RUN BENCHMARK")] = None,
    read: Annotated[str | None, _moved("finesieve read RUN COUNT")] = None,
    config: Opens = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show a run's score histogram, what other thresholds would keep, and its ledger."""
    from filters.scores.histogram import BINS, WEIGHTS

    if bins is not None and (bins < 1 or BINS % bins):
        raise typer.BadParameter(f"{bins} does not divide {BINS}; try 10, 20, 25, 50 or 100", param_hint="--bins")
    if weight not in WEIGHTS:
        raise typer.BadParameter(f"{weight!r} is none of {', '.join(WEIGHTS)}", param_hint="--weight")
    from filters.scores.finished_run import Run

    if html is None and (annotations or evaluation):
        raise typer.BadParameter("belongs to --html", param_hint="--annotations" if annotations else "--evaluation")
    if html is not None and (where is not None or (keep is not None and " by " in keep)):
        raise typer.BadParameter("the page marks a threshold of the score; leave out --html", param_hint="--where")
    ignored = {
        "--json": as_json,
        "--brief": brief,
        "--by": by,
        "--quota": quota,
        "--sample": sample,
        "--bins": bins,
        "--weight": weight != "documents",
    }
    if html is not None and (given := [name for name, value in ignored.items() if value]):
        raise typer.BadParameter("the page has it all; leave out this or --html", param_hint=given[0])
    if as_json and brief:
        raise typer.BadParameter("JSON is never shortened; leave out this or --json", param_hint="--brief")
    if output is not None and sql is None:
        raise typer.BadParameter("belongs to --sql", param_hint="--output")
    asked = {**ignored, "--json": False, "--keep": keep, "--where": where, "--html": html}
    if sql is not None and (given := [name for name, value in asked.items() if value]):
        raise typer.BadParameter("a query asks by itself; leave out this or --sql", param_hint=given[0])
    loaded = Run(find_run(run, config))
    if sql is not None:
        _ask(loaded, sql, output, as_json)
        return
    if html is not None:
        from filters.inspect.html import write_page
        from filters.scores.threshold import Target

        target = None if keep is None else Target.parse(keep)
        size = write_page(loaded, html, target=target, annotations=annotations, evaluation=evaluation)
        make_console().print(f"page: {html} ({size / 1e6:.1f} MB)", soft_wrap=True)
        return
    from filters.inspect.inspection import inspect_run, parse_quotas
    from filters.scores.threshold import Target

    target = None if keep is None else Target.parse(keep)
    found = inspect_run(
        loaded,
        target=target,
        by=by,
        quotas=parse_quotas(quota or []),
        sample=sample,
        examples=examples,
        where=where,
    )
    if as_json:
        print(json.dumps(found.to_json()))
        return
    console = make_console()
    unicode = console.encoding.startswith("utf")
    for number, view in enumerate(found.views(bins, weight, unicode=unicode, brief=brief)):
        if number:
            console.print()
        console.print(view)
