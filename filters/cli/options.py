"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from filters.storage.location import Location

Config = Annotated[Path, typer.Argument(help="A YAML config; finesieve init writes examples.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key of the config. Can be repeated."),
]
RunAddress = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="The output.path of a run: a folder, or an address such as s3://...", show_default=False
    ),
]
Opens = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Config of the run; its storage_options open addresses. Default: the environment does."
    ),
]
Model = Annotated[
    str,
    typer.Argument(help="Embedded model (edu-en), model folder, or fastText file.bin#__label__x.", show_default=False),
]


def find_run(run: str, config: Path | None) -> Location:
    """The folder or address of a run; the config of the run says how an address is opened."""
    from filters.config.filter import FilterConfig
    from filters.storage.location import location

    return location(run, None if config is None else FilterConfig.load(config).output.storage_options)
