"""Runs to look at: made of synthetic pages, and of pages that try to break out of whatever shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filters import FilterConfig, run_filter
from filters.scores.finished_run import Run
from tests.run.conftest import jsonl, page

ATTACKS = {
    "script": "<script>window.attacked = 1</script>",
    "end": "</script><script>window.attacked = 2</script><!--",
    "comment": "<!--<script>window.attacked = 3;</script>",
    "image": "<img src=x onerror='window.attacked = 4'><svg onload='window.attacked = 5'>",
    "style": "</style><style>body { display: none }</style>",
    "attribute": "\"'><b onmouseover=window.attacked=6>",
    "separator": "one\u2028two\u2029three {{data}} {{script}} ${window.attacked=7} `",
    "direction": "\u202etxet desrever\u202c \u2066isolated\u2069 \u200fright",
    "control": "null \x00 bell \x07 escape \x1b[31m red \x7f \ufeff",
    "marks": "Z" + "\u0310\u0311\u0312\u0313\u0314\u0315" * 200 + " algo",
    "long": "w" * 1_000_000,
    "wide": "\ufdfd" * 5_000,
    "lines": "\n" * 50_000 + "end",
    "url": "javascript:window.attacked=8",
}
"""Texts of hostile pages by id; each is shown with its address, which is as hostile."""


def make_run(folder: Path, rows: list[dict[str, Any]], min_score: float = 0.3, **sections: Any) -> Run:
    """Filter these rows (JSON objects with id and text) into `folder`/run."""
    folder.mkdir(parents=True, exist_ok=True)
    source = jsonl(folder / "pages.jsonl", rows)
    config = {
        "input": {"kind": "jsonl", "paths": [str(source)], "id_key": "id", "columns": ["url"]},
        "keep": {"min_score": min_score},
        "output": {"path": str(folder / "run"), "rejected": True},
    }
    run_filter(FilterConfig.model_validate(config | sections).model_copy())
    return Run(folder / "run")


def pages(count: int) -> list[dict[str, Any]]:
    """Ordinary pages of five hosts, every seventh of them twice, and every eleventh once more with other words."""
    rows = []
    for number in range(count):
        text = page(number, 200)
        rows.append({"id": f"p{number}", "url": f"https://host{number % 5}.example/{number}", "text": text})
        if number % 7 == 0:
            rows.append({"id": f"c{number}", "url": f"https://copy.example/{number}", "text": text.upper()})
        if number % 11 == 0:
            changed = f"{text} last words that differ"
            rows.append({"id": f"n{number}", "url": f"https://near.example/{number}", "text": changed})
    return rows


def hostile_pages() -> list[dict[str, Any]]:
    """`ATTACKS`, each with an attack in its address, and one text twice so that attacks are side by side too."""
    rows = [
        {"id": name, "url": f"https://evil.example/{ATTACKS['end']}", "text": f"{text} {page(number)}"}
        for number, (name, text) in enumerate(ATTACKS.items())
    ]
    twice = {"id": "</script>again", "url": ATTACKS["url"], "text": f"{ATTACKS['end']} {page(1)} changed"}
    return [*rows, {"id": "again", "url": None, "text": f"{ATTACKS['end']} {page(1)}"}, twice]
