"""Counting tokens as a judge does, by its own tokenizer file."""

from __future__ import annotations

from pathlib import Path

from filters.annotate.page import TokenCounter
from filters.errors import ConfigError, MissingExtraError


def token_counter(path: str | None) -> TokenCounter | None:
    """A counter from a tokenizer.json; None without one, which stands for the estimate of `filters.kernels.tokens`.

    The file is JSON and executes nothing. Where it is not at hand the estimate does, and what the server refuses as too
    long is cut and asked again.

    Raises:
        ConfigError: the file is missing or no tokenizer.
        MissingExtraError: the tokenizers package is not installed.
    """
    if path is None:
        return None
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("a judge's `tokenizer`", "annotate", str(error)) from error
    if not Path(path).is_file():
        raise ConfigError(f"tokenizer: {path}: no such file. Remedy: give the model's tokenizer.json, or leave it out")
    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # tokenizers raises plain Exception
        raise ConfigError(f"tokenizer: {path}: not a tokenizer.json: {error}") from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
