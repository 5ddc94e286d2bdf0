"""The page of a run as a file: only its own scripts can run, its size is bounded, its numbers are the solver's."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import InputError
from filters.inspect import html
from filters.inspect.html import MAX_BYTES, page, write_page
from filters.inspect.page_data import page_data
from filters.page import ASSETS, LIBRARY, island
from filters.scores.finished_run import Run
from filters.scores.threshold import Target
from tests.inspect.runs import ATTACKS, hostile_pages, make_run, pages


class Elements(HTMLParser):
    """Elements of a page with their attributes, and the content of each script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, dict[str, str | None], str]] = []
        self._open: tuple[str, dict[str, str | None]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open = tag, dict(attrs)
            self.inside.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            tag, attributes, text = self.inside[-1]
            self.inside[-1] = tag, attributes, text + data


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("hostile"), hostile_pages(), min_score=0.0)


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("plain"), pages(120))


def data_of(content: bytes) -> dict[str, Any]:
    found = [text for tag, attributes, text in Elements(content.decode()).inside if attributes.get("id") == "data"]
    data: dict[str, Any] = json.loads(found[0])
    return data


def test_hostile_pages_add_no_element_and_reach_the_page_whole(
    hostile_run: Run, plain_run: Run, tmp_path: Path
) -> None:
    hostile, plain = tmp_path / "hostile.html", tmp_path / "plain.html"
    write_page(hostile_run, hostile)
    write_page(plain_run, plain)
    names = [name for name, _ in Elements(hostile.read_text(encoding="utf-8")).elements]
    assert names == [name for name, _ in Elements(plain.read_text(encoding="utf-8")).elements]
    texts = {item["id"]: item["text"] for item in data_of(hostile.read_bytes())["samples"]["items"]}
    assert texts["script"].startswith(ATTACKS["script"])
    assert texts["end"].startswith(ATTACKS["end"])
    assert texts["separator"].startswith("one two three {{data}} {{script}}")


def test_no_element_has_a_handler_a_style_or_an_address(hostile_run: Run, tmp_path: Path) -> None:
    write_page(hostile_run, tmp_path / "page.html")
    for name, attributes in Elements((tmp_path / "page.html").read_text(encoding="utf-8")).elements:
        assert not [key for key in attributes if key.startswith("on") or key in ("style", "src", "srcdoc", "action")]
        assert (attributes.get("href") or "#").startswith("#"), name


def test_the_policy_allows_these_scripts_and_nothing_else(plain_run: Run, tmp_path: Path) -> None:
    write_page(plain_run, tmp_path / "page.html")
    parsed = Elements((tmp_path / "page.html").read_text(encoding="utf-8"))
    policies = [a["content"] or "" for name, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    directives = dict(part.strip().split(" ", 1) for part in policies[0].split(";"))
    assert directives["default-src"] == "'none'"
    digests: dict[str, list[str]] = {"script": [], "style": []}
    for tag, attributes, text in parsed.inside:
        if attributes.get("type") != "application/json":
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            digests[tag].append(f"'sha256-{digest}'")
    assert directives["script-src"].split() == digests["script"]
    assert directives["style-src"].split() == digests["style"]
    assert len(digests["script"]) == 2
    assert "unsafe" not in policies[0]
    # The policy comes before anything it has to speak of.
    names = [name for name, _ in parsed.elements]
    assert names.index("meta") < names.index("style") < names.index("script")


def test_scripts_write_text_and_never_markup() -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|\.html\(|setTimeout\(\s*[\"']"
    )
    for path in (*ASSETS.glob("*.js"), *html.SCRIPTS):
        if path.name != "d3.min.js":
            assert not re.findall(forbidden, path.read_text(encoding="utf-8")), path


def test_numbers_of_the_page_are_those_of_the_solver(plain_run: Run, tmp_path: Path) -> None:
    write_page(plain_run, tmp_path / "page.html")
    data = data_of((tmp_path / "page.html").read_bytes())
    first = data["histogram"]["first"]
    for threshold in (0.0, 0.2, 0.3, 0.35, 0.5, 1.0):
        solution = plain_run.solve(Target("min_score", threshold))
        border = round(threshold / 5 * 500)
        for weight in ("documents", "tokens", "bytes"):
            shown = sum(data["histogram"][weight][max(0, border - first) :])
            assert shown == getattr(solution.kept, weight), (threshold, weight)
    assert data["threshold"]["score"] == plain_run.min_score
    assert dict(data["lineage"]["rows"])["keep rule"].startswith("score >= 0.3 (")  # a float32: not 0.30000001192092896
    assert data["threshold"]["kept"]["documents"] == plain_run.ledger["total"]["kept"]
    by_host = next(facet for facet in data["slices"] if facet["by"] == "host")
    assert sum(sum(item["documents"]) for item in by_host["items"]) == sum(data["histogram"]["documents"])


def test_same_run_same_page(plain_run: Run, tmp_path: Path) -> None:
    write_page(plain_run, tmp_path / "a.html")
    write_page(plain_run, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_page_is_cut_to_the_size_it_may_have(plain_run: Run) -> None:
    data = page_data(plain_run, evaluation=None, annotations=None, characters=2000)
    item = data["samples"]["items"][0]
    big = deepcopy(data)
    big["samples"]["items"] = [item | {"text": "<" * 2000} for _ in range(600)]
    whole = page(big)
    assert len(whole) <= MAX_BYTES
    shown = data_of(whole)["samples"]["items"]
    assert len(shown) == 600
    assert 0 < len(shown[0]["text"]) < 2000
    assert shown[0]["cut"]
    too_big = data | {"lineage": data["lineage"] | {"card": "x" * MAX_BYTES}}
    with pytest.raises(InputError, match="5 MB"):
        page(too_big)


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
@settings(max_examples=60)
def test_an_island_is_json_that_cannot_end_its_element(value: Any) -> None:
    text = island({"value": value})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"value": value}


def test_lone_surrogates_do_not_break_the_island() -> None:
    assert json.loads(island({"value": "a\ud800b"})) == {"value": "a?b"}


def test_a_page_that_cannot_be_written_is_refused_and_leaves_nothing(plain_run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder that exists"):
        write_page(plain_run, tmp_path / "missing" / "page.html")
    with pytest.raises(InputError, match="folder that exists"):
        write_page(plain_run, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_library_is_the_one_that_was_published() -> None:
    library, licence = (ASSETS / name for name in ("d3.min.js", "d3.LICENSE"))
    # d3-7.9.0.tgz of the npm registry, package/dist/d3.min.js
    published = "f2094bbf6141b359722c4fe454eb6c4b0f0e42cc10cc7af921fc158fceb86539"
    assert hashlib.sha256(library.read_bytes()).hexdigest() == published
    assert "</script" not in library.read_text().lower()
    assert "Permission to use, copy, modify" in licence.read_text()
    assert "7.9.0" in library.read_text()[:80]
    assert "7.9.0" in LIBRARY
