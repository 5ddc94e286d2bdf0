"""`finesieve init`: the configs that come with finesieve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; it is created.")] = Path("configs"),
) -> None:
    """Write the example configs, rubrics and JSON Schemas; nothing is overwritten."""
    from filters.shipped import copy_configs

    written, there = copy_configs(folder)
    for path in written:
        print(path)
    if there:
        print(f"{len(there):,} of {len(written) + len(there):,} files were there already, and stay as they are")
