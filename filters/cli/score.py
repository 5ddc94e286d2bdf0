"""`finesieve score`: a JSON line for each document of some files."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from filters.cli.options import Model


def score(
    model: Model,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES",
            help="One text each (.txt, .md, - for stdin), or .jsonl[.gz|.zst|.bz2], .parquet, .warc[.gz].",
        ),
    ],
    text_key: Annotated[str, typer.Option(help="Key of the text in JSON lines and Parquet.")] = "text",
    id_key: Annotated[str | None, typer.Option(help="Key of the id in JSON lines and Parquet.")] = None,
    error_rate: Annotated[
        float | None,
        typer.Option(
            help="Decide keep, drop or undecided, with a band that misses the judge's score at most with this rate.",
            min=0,
            max=1,
        ),
    ] = None,
) -> None:
    """Score documents and print a JSON line for each, in input order, with the decision of the keep rule."""
    from filters.run.scoring import score_files

    for line in score_files(model, files, text_key=text_key, id_key=id_key, error_rate=error_rate):
        sys.stdout.write(line)
