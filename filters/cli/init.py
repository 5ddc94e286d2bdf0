"""`finesieve init`: the configs that come with finesieve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(help="Where to; created.")] = Path("configs"),
) -> None:
    """Write the configs and rubrics that come with finesieve, to begin with; nothing is overwritten."""
    from filters.shipped import copy_configs

    written, there = copy_configs(folder)
    for path in written:
        print(path)
    if there:
        print(f"{len(there):,} of {len(written) + len(there):,} files were there already, and stay as they are")
