"""`finesieve inspect RUN --html FILE`: a run as one interactive page (`filters.page`) of bounded size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.errors import InputError
from filters.inspect.page_data import page_data
from filters.page import check_page, make_page, publish_page

if TYPE_CHECKING:
    from filters.scores.finished_run import Run
    from filters.scores.threshold import Target

MAX_BYTES = 5_000_000
"""Size of a page at most; the texts of samples are shortened until it fits."""
CHARACTERS = (2000, 1200, 600, 300, 120, 0)
"""Characters of each document's text that are tried, in this order."""

ASSETS = Path(__file__).parent / "page"
SCRIPTS = tuple(
    ASSETS / name for name in ("state.js", "charts.js", "documents.js", "panels.js", "trust.js", "start.js")
)


def write_page(
    run: Run,
    path: Path,
    *,
    target: Target | None = None,
    evaluation: Path | None = None,
    annotations: Path | None = None,
) -> int:
    """Write the page of a run, whole or not at all, and return its size in bytes.

    Args:
        run: the run.
        path: of the page.
        target: what the threshold of the page shall keep at first; None: the run's own threshold.
        evaluation: what `finesieve evaluate --json` printed about the run's model.
        annotations: labels of documents of the run; see `filters.inspect.trust.labels_of`.

    Raises:
        InputError: the page cannot be written, or `evaluation` cannot be read.
        AnnotationsError: `annotations` cannot be read.
        RunError: the side files are missing or damaged.
    """
    check_page(path)
    data = page_data(run, evaluation=evaluation, annotations=annotations, characters=CHARACTERS[0], target=target)
    content = page(data)
    publish_page(path, content)
    return len(content)


def page(data: dict[str, Any]) -> bytes:
    """The page with `data` (from `page_data`), of at most `MAX_BYTES`."""
    name = data["run"]["name"]
    bar = (ASSETS / "bar.html").read_text(encoding="utf-8")
    for characters in CHARACTERS:
        content = make_page(
            f"{name}: finesieve inspect", _shortened(data, characters), SCRIPTS, bar=bar, skip="threshold"
        )
        if len(content) <= MAX_BYTES:
            return content
    raise InputError(
        f"{name}: its page would be larger than {MAX_BYTES / 1e6:.0f} MB even without texts; "
        "please report this with the run's manifest.json"
    )


def _shortened(data: dict[str, Any], characters: int) -> dict[str, Any]:
    def shorter(item: dict[str, Any]) -> dict[str, Any]:
        text = item["text"]
        if text is None or len(text) <= characters:
            return item
        return item | {"text": text[:characters], "cut": True}

    samples = data["samples"] | {"items": [shorter(item) for item in data["samples"]["items"]]}
    clusters = [
        cluster | {"members": [shorter(member) for member in cluster["members"]]}
        for cluster in data["clusters"]["items"]
    ]
    return data | {"samples": samples, "clusters": data["clusters"] | {"items": clusters}}
