"""`finesieve read`: a reader judges documents around the threshold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from filters.cli.options import Opens, RunAddress, find_run
from filters.terminal import make_console


def read(
    run: RunAddress,
    count: Annotated[int, typer.Argument(min=1, help="Number of documents to read.", show_default=False)],
    keep: Annotated[
        str | None,
        typer.Option(help="Read around the threshold of this rule: fraction=0.1, tokens=1.3e12 or min_score=1.5."),
    ] = None,
    store: Annotated[Path, typer.Option(help="Answer store, as in finesieve annotate.")] = Path("annotations.sqlite"),
    judge: Annotated[str, typer.Option(help="Name of the reader in the store.")] = "reader",
    seed: Annotated[int, typer.Option(help="Seed of the choice of documents.")] = 0,
    config: Opens = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Read documents around the threshold and judge them: k keep, d drop, q stop. Shows how far the rule agrees."""
    from filters.inspect.reading import ReadingTest, reading_keys
    from filters.inspect.reading import read as read_documents
    from filters.inspect.terminal import reading_view, text_view
    from filters.scores.finished_run import Run
    from filters.scores.threshold import Target

    loaded = Run(find_run(run, config))
    target = None if keep is None else Target.parse(keep)
    if target is not None and target.by is not None:
        raise typer.BadParameter("documents are read around a threshold of the score", param_hint="--keep")
    min_score = None if target is None else loaded.solve(target).threshold
    console = make_console(stderr=as_json)
    with ReadingTest(loaded, count, store, judge, min_score=min_score, seed=seed) as test, reading_keys() as key:

        def show(text: str, number: int, total: int) -> None:
            console.rule(f"{number} of {total}", characters="-")
            console.print(text_view(text))
            console.print("keep [k], drop [d], stop [q]?", style="bold")

        found = read_documents(test, key, show, answered=test.result().total.total)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        console.print(reading_view(found))
