"""`finesieve init`: the configs, rubrics and JSON Schemas that come with finesieve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from filters.errors import ConfigError


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; it is created.")] = Path("configs"),
) -> None:
    """Write the example configs, rubrics and JSON Schemas; nothing is overwritten."""
    package = Path(__file__).resolve().parents[1]
    configs = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"  # wheel, clone
    found = sorted([*configs.rglob("*.yaml"), *configs.rglob("*.json")])
    there = 0
    for source in found:
        path = folder / source.relative_to(configs)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                stream.write(source.read_bytes())
            print(path)
        except FileExistsError:
            if not path.is_file():
                raise ConfigError(f"{path}: in the way of a config. Remedy: another folder") from None
            there += 1
        except OSError as error:
            raise ConfigError(f"{path}: cannot write: {error.strerror}. Remedy: another folder") from error
    if there:
        print(f"{there:,} of {len(found):,} files were there already, and stay as they are")
