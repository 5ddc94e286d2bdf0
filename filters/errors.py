"""What finesieve raises when the mistake is the user's or the data's: shown as one message, never as a traceback."""

from __future__ import annotations


class FinesieveError(Exception):
    """Base of every error a user can cause. Its message names the file, the position or key, and the remedy."""


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
        super().__init__(f"{feature} needs an optional dependency ({cause}). Remedy: pip install 'finesieve[{extra}]'")
