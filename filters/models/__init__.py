"""Embedded models, and their names."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = Path(__file__).parent


def embedded_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/model.json"))
