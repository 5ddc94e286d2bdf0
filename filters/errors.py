"""Errors that a user or the data can cause; each is shown as one message, never as a traceback."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filters.addresses import without_secrets


class FinesieveError(Exception):
    """Base of every error a user can cause. Its message names the file, the position or key, and the remedy.

    What opens an address (user, password, signature) never gets into a message.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(without_secrets(str(message)))


class ConfigError(FinesieveError):
    """A config that cannot be used: names the file, the line where known, the key and the allowed values."""


class InputError(FinesieveError):
    """Input that cannot be read at all (missing file, wrong kind). A single bad record is quarantined instead."""


class ModelError(FinesieveError):
    """A model name or folder that cannot be loaded, or whose content does not match its digests."""


class AnnotationsError(FinesieveError):
    """An annotations file that cannot be trained on or evaluated against: names the column and the rows."""


class RunError(FinesieveError):
    """A run that had to stop: wrong ledger, too many quarantined records, dead worker, occupied output folder."""


class MissingExtraError(FinesieveError):
    """A feature that needs an optional dependency; the message says which extra to install."""

    def __init__(self, feature: str, extra: str, cause: str) -> None:
        super().__init__(f"{feature} needs an optional dependency ({cause}). Remedy: {install_command(extra)}")


def install_command(extra: str) -> str:
    """The command that installs an extra of finesieve from where this installation came: a clone, a wheel, an index."""
    from importlib.metadata import distributions  # slow to import, and only an error needs it

    texts = (found.read_text("direct_url.json") for found in distributions(name="finesieve"))
    origin = json.loads(next(filter(None, texts), "{}"))
    path = Path(url2pathname(urlsplit(origin.get("url", "")).path))
    if path.suffix == ".whl":
        wanted = f"'finesieve[{extra}] @ {path.as_uri()}'"
    elif origin:
        wanted = f"{'-e ' if origin.get('dir_info', {}).get('editable') else ''}'{_from_here(path)}[{extra}]'"
    else:
        wanted = f"'finesieve[{extra}]'"
    return f"{_from_here(Path(sys.executable))} -m pip install {wanted}"


def _from_here(path: Path) -> str:
    """`path` from the working directory, if it lies below it."""
    here = Path.cwd()
    if path == here:
        return "."
    return f"./{path.relative_to(here)}" if path.is_relative_to(here) else str(path)
