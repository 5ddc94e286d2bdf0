"""`finesieve train`: from annotations to a model folder."""

from __future__ import annotations

from typing import Annotated

import typer

from filters.cli.options import Config, Set
from filters.terminal import make_console


def train(
    config: Config,
    overrides: Set = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing model folder.")] = False,
) -> None:
    """Train a classifier from annotations, calibrate it to the judge's scale, and write a model folder."""
    from filters.config.yaml_file import load_config
    from filters.train.config import TrainConfig

    loaded = load_config(TrainConfig, config, overrides or ())
    from filters.train.targets import train_each

    console = make_console()
    for result in train_each(loaded, overwrite=overwrite, echo=lambda line: console.print(line, soft_wrap=True)):
        console.print(f"model folder: {result.path}", soft_wrap=True)
