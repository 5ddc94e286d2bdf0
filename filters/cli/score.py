"""`finesieve score`: a JSON line for each document of some files, or more scores of a finished run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from filters.cli.options import Opens
from filters.terminal import make_console


def score(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN",
            help="Embedded model (edu-en), model folder, or fastText file.bin#__label__x; with --add a run.",
            show_default=False,
        ),
    ],
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILES",
            help="One text each (.txt, .md, - for stdin), or .jsonl[.gz|.zst|.bz2], .parquet, .warc[.gz].",
        ),
    ] = None,
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
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=MODEL", help="Score the documents of a finished run with a model; can be repeated."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="--add: the new run. Default: RUN is replaced when it is done.")
    ] = None,
    config: Opens = None,
    *,
    context: typer.Context,
) -> None:
    """Score documents and print a JSON line for each, in input order, with the decision of the keep rule.

    With --add, score the documents of a finished run, which gets a column for each NAME.
    """
    from filters.errors import ConfigError

    if add:
        if files or error_rate is not None:
            raise ConfigError("--add: scores the documents of a run; leave out FILES and --error-rate")
        _add(model, add, output, config, quiet=bool(context.obj))
        return
    if not files:
        raise ConfigError("FILES: what is to be scored is missing. Remedy: name files, or - for standard input")
    if output is not None:
        raise ConfigError("--output: says where a run goes that --add scores. Remedy: finesieve score ... > FILE")
    from filters.run.scoring import score_files

    for line in score_files(model, files, text_key=text_key, id_key=id_key, error_rate=error_rate):
        sys.stdout.write(line)


def _add(run: str, texts: list[str], output: str | None, config: Path | None, *, quiet: bool) -> None:
    from filters.cli.filter import print_result
    from filters.config.filter import FilterConfig
    from filters.errors import ConfigError
    from filters.run.progress import progress
    from filters.run.select import score_run
    from filters.scores.finished_run import Run
    from filters.storage.location import location

    models: dict[str, str] = {}
    for text in texts:
        name, separator, model = text.partition("=")
        if not (separator and name and model) or name in models:
            raise ConfigError(f"--add {text}: write NAME=MODEL, each name once: --add maths=models/maths")
        models[name] = model
    opened = None if config is None else FilterConfig.load(config)
    options = {} if opened is None else opened.output.storage_options
    console = make_console()
    with progress(make_console(stderr=True) if quiet else console, lambda plan: None, quiet=quiet) as observer:
        result = score_run(
            Run(location(run, options)), models, output, opens=opened, options=options, observer=observer
        )
    if not quiet:
        print_result(console, result, 0)
