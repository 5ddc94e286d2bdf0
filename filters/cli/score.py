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
            help="Embedded model (edu-en), model folder, or fastText file.bin#__label__x; with --add, --scores a run.",
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
    scores: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.parquet",
            help="Join scores that somebody else computed to a finished run, by the column id or else url: each other "
            "column of numbers or text becomes a column of the run.",
        ),
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="id|url", help="--scores: the column to join by.")] = None,
    force_new: Annotated[
        bool,
        typer.Option(
            "--force-new", help="--add, --scores: drop an interrupted one; replace whatever run is in --output."
        ),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="--add, --scores: the new run. Default: RUN is replaced when it is done."),
    ] = None,
    config: Opens = None,
    *,
    context: typer.Context,
) -> None:
    """Score documents and print a JSON line for each, in input order, with the decision of the keep rule.

    With --add, score the documents of a finished run, which gets a column for each NAME; with --scores, join columns of
    a Parquet file to it.
    """
    from filters.errors import ConfigError

    if by is not None and (scores is None or by not in ("id", "url")):
        raise ConfigError(f"--by {by}: says whether --scores joins by id or url. Remedy: --scores FILE --by id")
    if add or scores is not None:
        if files or error_rate is not None or (add and scores is not None):
            raise ConfigError(
                "--add, --scores: one of them is for documents of a run; leave out FILES, --error-rate and the other"
            )
        _add(model, add or [], output, config, scores, by, force_new=force_new, quiet=bool(context.obj))
        return
    if not files:
        raise ConfigError("FILES: what is to be scored is missing. Remedy: name files, or - for standard input")
    if output is not None:
        raise ConfigError(
            "--output: says where a run goes that --add or --scores makes. Remedy: finesieve score ... > FILE"
        )
    from filters.run.scoring import score_files

    for line in score_files(model, files, text_key=text_key, id_key=id_key, error_rate=error_rate):
        sys.stdout.write(line)


def _add(
    run: str,
    texts: list[str],
    output: str | None,
    config: Path | None,
    file: str | None,
    by: str | None,
    *,
    force_new: bool,
    quiet: bool,
) -> None:
    from filters.cli.filter import print_result
    from filters.config.filter import FilterConfig
    from filters.errors import ConfigError
    from filters.run.folder import finish_publishing
    from filters.run.progress import progress
    from filters.run.select import score_run
    from filters.scores.finished_run import Run
    from filters.storage.files import sha256
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
    place = location(run, options)
    if isinstance(place, Path) and output is None and finish_publishing(place):
        if not quiet:
            console.print(f"{run}: a kill had interrupted its replacement, which is finished now", markup=False)
        known = Run(place).manifest["scores"]
        digests = {one["digest"] for one in known.values()}
        if models.keys() <= known.keys() and (file is None or sha256(location(file, options)) in digests):
            return
    with progress(make_console(stderr=True) if quiet else console, lambda plan: None, quiet=quiet) as observer:
        result = score_run(
            Run(place),
            models,
            output,
            file=file,
            by=by,
            force_new=force_new,
            opens=opened,
            options=options,
            observer=observer,
        )
    if not quiet:
        print_result(console, result, 0)
