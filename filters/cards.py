"""README.md of what this package writes: blocks of Markdown, below a YAML header that the Hub reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def make_card(*blocks: str, header: Mapping[str, Any] | None = None) -> str:
    """A card.

    Args:
        blocks: headings, paragraphs, tables and lists, with a blank line between them; empty ones are left out.
        header: data for the Hub.
    """
    text = "\n\n".join(filter(None, blocks)) + "\n"
    if header is None:
        return text
    import yaml

    return f"---\n{yaml.safe_dump(dict(header), sort_keys=False)}---\n{text}"


def card_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table; cells are Markdown, see `cell`.

    Args:
        columns: n headings.
        rows: n cells each.
        right: numbers of the columns that are aligned to the right.
    """
    aligned = set(right)
    rules = ["---:" if number in aligned else "---" for number in range(len(columns))]
    lines = [" | ".join(columns), "|".join(rules), *(" | ".join(row) for row in rows)]
    return "\n".join(f"|{line}|" if number == 1 else f"| {line} |" for number, line in enumerate(lines))


def bullets(*points: str) -> str:
    """A list; empty points are left out."""
    return "\n".join(f"- {point}" for point in points if point)


def cell(text: str) -> str:
    """Text from outside as Markdown that stays in its cell of a table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("`", "'").replace("\n", " ").replace("<", "&lt;")
