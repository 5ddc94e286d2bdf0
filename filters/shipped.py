"""Configs, rubrics and JSON Schemas that come with finesieve: beside the package in a clone, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

from filters.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent
CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"


def copy_configs(folder: Path) -> tuple[list[Path], list[Path]]:
    """Copy every config, rubric and JSON Schema to `folder`; what is there already stays as it is.

    Returns:
        the files written, and those that were there.

    Raises:
        ConfigError: the folder cannot be written.
    """
    written: list[Path] = []
    there: list[Path] = []
    for source in sorted([*CONFIGS.rglob("*.yaml"), *CONFIGS.rglob("*.json")]):
        path = folder / source.relative_to(CONFIGS)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                stream.write(source.read_bytes())
            written.append(path)
        except FileExistsError:
            if not path.is_file():
                raise ConfigError(f"{path}: in the way of a config. Remedy: another folder") from None
            there.append(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot write: {error.strerror}. Remedy: another folder") from error
    return written, there
