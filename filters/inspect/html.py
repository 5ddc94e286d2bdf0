"""`finesieve inspect RUN --html FILE`: a run as one interactive page. Everything is inline and nothing is loaded.

The page is `page/page.html` with five things put in: a policy, a title, a style sheet, D3 (`page/d3.min.js`) and
the page's own script, and an island of JSON (`filters.inspect.page_data`). The Content-Security-Policy allows the style
sheet and the two scripts by their SHA-256 and nothing else: no address, no inline handler, no eval, no markup from text
(Trusted Types). Text of pages reaches the document only as JSON in which "<" cannot occur, and from there only as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.errors import InputError
from filters.inspect.page_data import page_data
from filters.storage.publish import publishing

if TYPE_CHECKING:
    from filters.scores.finished_run import Run
    from filters.scores.threshold import Target

MAX_BYTES = 5_000_000
"""Size of a page at most; the texts of samples are shortened until it fits."""
CHARACTERS = (2000, 1200, 600, 300, 120, 0)
"""Characters of each document's text that are tried, in this order."""

ASSETS = Path(__file__).parent / "page"
LIBRARY = "D3 7.9.0 (ISC, copyright Mike Bostock)"
"""As it was published (npm, d3/dist/d3.min.js), with its licence beside it in d3.LICENSE."""
SCRIPTS = ("state.js", "charts.js", "documents.js", "panels.js", "trust.js", "start.js")
_PLACES = re.compile(r"\{\{(policy|title|style|data|library|script)\}\}")
# JSON and JavaScript agree on these escapes; "<" must not occur, or text could end the script element.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def check_page(path: Path) -> None:
    """Fail before the work if the page could not be written.

    Raises:
        InputError: the folder does not exist, or `path` is a folder.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"{path}: cannot write a page here. Remedy: name a file in a folder that exists")


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
        annotations: Parquet with labels of documents of the run: `id` or `text`, and `expected_score` or `score`.

    Raises:
        InputError: the page cannot be written, or `evaluation` cannot be read.
        AnnotationsError: `annotations` cannot be read.
        RunError: the side files are missing or damaged.
    """
    check_page(path)
    data = page_data(run, evaluation=evaluation, annotations=annotations, characters=CHARACTERS[0], target=target)
    content = page(data)
    try:
        with publishing(path) as temporary:
            temporary.write_bytes(content)
            temporary.chmod(0o644)
    except OSError as error:
        raise InputError(f"{path}: cannot write the page: {error}") from error
    return len(content)


def page(data: dict[str, Any]) -> bytes:
    """The page with this data, of at most `MAX_BYTES`.

    Args:
        data: from `page_data`.
    """
    library = (ASSETS / "d3.min.js").read_text(encoding="utf-8")
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    script = "\n".join((ASSETS / part).read_text(encoding="utf-8") for part in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{script}}})();\n'
    policy = (
        f"default-src 'none'; script-src {_digest(library)} {_digest(script)}; style-src {_digest(style)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    template = (ASSETS / "page.html").read_text(encoding="utf-8")
    for characters in CHARACTERS:
        parts = {
            "policy": escape(policy),
            "title": escape(f"{data['run']['name']}: finesieve inspect"),
            "style": style,
            "library": library,
            "script": script,
            "data": island(_shortened(data, characters) | {"library": LIBRARY}),
        }
        content = _PLACES.sub(lambda place: parts[place[1]], template).encode("utf-8")  # noqa: B023
        if len(content) <= MAX_BYTES:
            return content
    raise InputError(
        f"{data['run']['name']}: its page would be larger than {MAX_BYTES / 1e6:.0f} MB even without texts; "
        "please report this with the run's manifest.json"
    )


def island(data: dict[str, Any]) -> str:
    """JSON that can stand in a script element: no "<", and no lone surrogates."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode("utf-8").translate(_ESCAPES)


def _shortened(data: dict[str, Any], characters: int) -> dict[str, Any]:
    def shorter(item: dict[str, Any]) -> dict[str, Any]:
        text = item["text"]
        if text is None or len(text) <= characters:
            return item
        return item | {"text": text[:characters], "cut": True}

    samples, clusters = data["samples"], data["clusters"]
    return data | {
        "samples": samples | {"items": [shorter(item) for item in samples["items"]]},
        "clusters": clusters
        | {
            "items": [
                cluster | {"members": [shorter(member) for member in cluster["members"]]}
                for cluster in clusters["items"]
            ]
        },
    }


def _digest(text: str) -> str:
    """The source expression of an inline element with this content."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
