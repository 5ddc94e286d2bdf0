"""`finesieve import-model`: a model folder of a classifier trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_model_command(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of a transformers sequence classifier with one output (config.json, safetensors, tokenizer), "
            "or fastText file.bin#__label__x.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Argument(help="The model folder to write.", show_default=False)],
    rounded: Annotated[
        int | None,
        typer.Option(min=1, max=5, help="Keep scores that round, half to even, to at least this.", show_default="3"),
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Keep scores of at least this instead.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model. Default: the name of SOURCE.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of the texts that the model is for.")] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Characters of a text that are read. Default: all.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in OUTPUT.")] = False,
) -> None:
    """Make a model folder from a classifier trained elsewhere, such as HuggingFaceFW/fineweb-edu-classifier."""
    if rounded is not None and min_score is not None:
        raise typer.BadParameter("is another rule than --rounded; give one of them", param_hint="--min-score")
    if min_score is not None and not 0 <= min_score <= 5:
        raise typer.BadParameter(f"{min_score:g} is not between 0 and 5", param_hint="--min-score")
    from filters.model.folder import KeepRule
    from filters.model.quality import import_model

    keep = None
    if rounded is not None:
        keep = KeepRule(rounded=rounded)
    elif min_score is not None:
        keep = KeepRule(min_score=min_score)
    model = import_model(source, output, keep=keep, name=name, language=language, window=window, overwrite=overwrite)
    print(f"{output}: {model.name}, kept is {model.keep}")
