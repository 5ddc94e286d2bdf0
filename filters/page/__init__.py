"""A page of HTML that holds everything it shows: a style sheet, D3, a script of its own and its data as JSON.

The Content-Security-Policy allows the style sheet and the two scripts by their SHA-256 and nothing else: no address, no
inline handler, no eval, no markup from text (Trusted Types). Text reaches the document only as JSON in which "<" cannot
occur, and from there only as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from filters.errors import InputError
from filters.storage.files import publishing

ASSETS = Path(__file__).parent
LIBRARY = "D3 7.9.0 (ISC, copyright Mike Bostock)"
"""As it was published (npm, d3/dist/d3.min.js), with its licence beside it in d3.LICENSE."""
SHARED = (ASSETS / "elements.js", ASSETS / "plots.js")
"""Scripts of every page, in front of its own."""
_PLACES = re.compile(r"\{\{(policy|title|skip|bar|style|data|library|script)\}\}")
# JSON and JavaScript agree on these escapes; "<" must not occur, or text could end the script element.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def check_page(path: Path) -> None:
    """Fail before the work if a page could not be written.

    Raises:
        InputError: the folder does not exist, or `path` is a folder.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"{path}: cannot write a page here. Remedy: name a file in a folder that exists")


def publish_page(path: Path, content: bytes) -> None:
    """Write a page, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with publishing(path) as temporary:
            temporary.write_bytes(content)
            temporary.chmod(0o644)
    except OSError as error:
        raise InputError(f"{path}: cannot write the page: {error}") from error


def make_page(title: str, data: dict[str, Any], scripts: Sequence[Path], *, bar: str, skip: str) -> bytes:
    """A page.

    Args:
        title: in plain text.
        data: JSON types; the scripts find it as `data`, with `library` for their credits.
        scripts: what draws it, after `SHARED`; all of them share one scope.
        bar: markup of the bar at the top, with an element "nav" for links to sections.
        skip: id of the element that a keyboard reaches first.
    """
    library = (ASSETS / "d3.min.js").read_text(encoding="utf-8")
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    script = "\n".join(part.read_text(encoding="utf-8") for part in (*SHARED, *scripts))
    script = f'(() => {{\n"use strict";\n{script}}})();\n'
    policy = (
        f"default-src 'none'; script-src {_digest(library)} {_digest(script)}; style-src {_digest(style)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    parts = {
        "policy": escape(policy),
        "title": escape(title),
        "skip": escape(skip),
        "bar": bar,
        "style": style,
        "library": library,
        "script": script,
        "data": island(data | {"library": LIBRARY}),
    }
    template = (ASSETS / "page.html").read_text(encoding="utf-8")
    return _PLACES.sub(lambda place: parts[place[1]], template).encode("utf-8")


def island(data: dict[str, Any]) -> str:
    """JSON that can stand in a script element: no "<", and no lone surrogates."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode("utf-8").translate(_ESCAPES)


def _digest(text: str) -> str:
    """The source expression of an inline element with this content."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
