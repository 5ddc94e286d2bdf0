from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hostile_pages import ANSWERED, REFUSED
from synthetic import checked, html_page, read_file

from filters.config.filter import ExtractConfig
from filters.kernels.html_work import parsing_work
from filters.read import engines as engines_module
from filters.read import extract as extract_module
from filters.read.batch import Batch
from filters.read.extract import LIMITS, extract, hostile


def batch_of(pages: list[bytes], types: list[str] | None = None) -> Batch:
    n = len(pages)
    return Batch(
        source="a.warc",
        position=np.arange(n, dtype=np.int64),
        id=pa.array([str(row) for row in range(n)], pa.string()),
        text=pa.array([""] * n, pa.large_string()),
        reason=np.full(n, None, dtype=object),
        columns={"url": pa.array([f"u{row}" for row in range(n)])},
        html=pa.array(pages, pa.large_binary()),
        content_type=pa.array(types or ["text/html"] * n, pa.string()),
        records=n,
    )


def extracted(pages: list[bytes], types: list[str] | None = None, **options: object) -> Batch:
    batch = batch_of(pages, types)
    extract(batch, ExtractConfig.model_validate(options))
    assert batch.html is None
    assert batch.content_type is None
    return checked(batch)


@pytest.fixture(params=["resiliparse", "trafilatura"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "trafilatura":
        pytest.importorskip("trafilatura", exc_type=ImportError)
    return str(request.param)


def test_main_text_keeps_paragraphs_and_leaves_the_frame(engine: str) -> None:
    page = html_page(3).replace(
        b"<body>", b"<body><nav><a href='/'>Home</a><a href='/x'>Imprint</a></nav><script>var x=1</script>"
    )
    text = extracted([page], engine=engine).text[0].as_py()
    assert text.count("Sentence number 3") == 7
    assert "\n" in text
    assert "var x" not in text
    assert "Imprint" not in text
    assert text == text.strip()


@pytest.mark.parametrize("levels", range(6))
@pytest.mark.parametrize("kind", ["ul", "ol"])
def test_lists_keep_their_items_apart_at_any_depth(kind: str, levels: int) -> None:
    items = f"<{kind}><li>first item of the list<li>second item of the list</{kind}>".encode()
    menu = b"<ul><li><a href='/'>Imprint</a></ul>"
    page = html_page(1).replace(b"</article>", items + b"<p>Behind the list.</p></article>")
    page = page.replace(b"<body>", b"<body>" + menu + b"<div>" * levels)
    lines = [line.strip() for line in extracted([page]).text[0].as_py().splitlines()]
    assert any(line.endswith("first item of the list") for line in lines)
    assert any(line.endswith("second item of the list") for line in lines)
    assert not any("Imprint" in line for line in lines)


def test_pages_without_text_are_removed(engine: str) -> None:
    batch = extracted([b"", b"<html></html>", b"<script>x</script>", html_page(1)], engine=engine)
    assert batch.reason.tolist() == [*3 * ["no_text_extracted"], None]


def test_min_characters() -> None:
    batch = extracted([b"<p>short</p>", html_page(1)], min_characters=100)
    assert batch.reason.tolist() == ["no_text_extracted", None]


def test_removed_documents_are_not_extracted_and_batches_without_pages_are_left_alone() -> None:
    batch = batch_of([html_page(1), html_page(2)])
    batch.remove(np.array([True, False]), "http_status")
    extract(batch, ExtractConfig())
    assert batch.text[0].as_py() == ""
    assert batch.reason.tolist() == ["http_status", None]
    before = batch.text
    extract(batch, ExtractConfig())
    assert batch.text is before


def test_plain_text_is_only_decoded() -> None:
    batch = extracted(["a < b\n\n  indented <p>\n".encode("utf-16")], ["text/plain; charset=utf-16"])
    assert batch.text[0].as_py() == "a < b\n\n  indented <p>"


def test_what_is_not_readable_is_quarantined(engine: str) -> None:
    noise = b"<html><body><p>" + np.random.default_rng(5).bytes(4000)
    hidden = html_page(0).replace(b"Sentence", b"\xef\xbf\xbd" * 9) + b"<!-- " + b"words " * 3000 + b"-->"
    one = html_page(2).replace(b"Sentence", "Sen\ufffdtence".encode(), 1)
    plain = b"words \x01\x02\x03 of noise"
    pages = [noise, hidden, one, plain]
    batch = extracted(pages, [*3 * ["text/html"], "text/plain; charset=utf-8"], engine=engine)
    assert batch.position.tolist() == [2]
    assert [record.cause.partition(":")[0] for record in batch.quarantined] == 3 * ["undecodable"]
    assert batch.quarantined[1].first_bytes == hidden[:200]


ODD_ENGINE = """
import os, signal, time
from filters.read.engines import serve

def text_of(page):
    if "number 1" in page:
        raise RuntimeError("broken markup")
    if "number 2" in page:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "number 3" in page:
        while True:
            pass
    if "number 4" in page:
        return "x" * (3 << 30)
    if "number 5" in page:
        print("what a library prints", flush=True)
    return page

serve(lambda: text_of)
"""


def test_what_an_engine_does_to_a_page_costs_that_page_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_module, "program_of", lambda engine: ODD_ENGINE)
    batch = extracted([html_page(number) for number in range(7)], seconds=0.5)
    assert batch.columns["url"].to_pylist() == ["u0", "u3", "u5", "u6"]
    assert batch.reason.tolist() == [None, "extraction_timeout", None, None]
    assert batch.text[1].as_py() == ""
    assert [record.cause for record in batch.quarantined] == [
        "extraction_failed: RuntimeError: broken markup",
        "extraction_failed: the engine was killed by SIGSEGV: a crash of native code, or out of memory",
        f"extraction_failed: the engine ended with status {os.EX_OSERR}: a crash of native code, or out of memory",
    ]
    assert batch.quarantined[0].first_bytes == html_page(1)[:200]


def test_threads_extract_side_by_side_and_a_hanging_page_stops_its_own_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_module, "program_of", lambda engine: ODD_ENGINE)
    batches = [batch_of([html_page(number) for number in (0, odd, 6)] * 3) for odd in (1, 2, 3, 5)]
    config = ExtractConfig(seconds=0.3)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda batch: extract(batch, config), batches))
    assert [len(batch) for batch in batches] == [6, 6, 9, 9]
    assert batches[2].reason.tolist() == [None, "extraction_timeout", None] * 3
    for batch in batches:
        fine = [text for text, reason in zip(batch.text.to_pylist(), batch.reason, strict=True) if reason is None]
        assert sum("number 0" in text for text in fine) == 3
        assert sum("number 6" in text for text in fine) == 3


def test_an_engine_that_waits_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines_module, "LEAST_PATIENCE", 0.0)
    waits = "import time; from filters.read.engines import serve; serve(lambda: lambda page: time.sleep(3600) or page)"
    with engines_module.child(waits) as child:
        with pytest.raises(engines_module.ExtractionTimeoutError):
            child.text_of(b"x", 0.05)
        assert not child.alive


HOSTILE = """
import re, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
sys.path.insert(0, sys.argv[1])
from hostile_pages import ANSWERED, REFUSED
from synthetic import html_page
from test_extract import extracted
pages = [page.encode("utf-8", "replace") for page in (*REFUSED.values(), *ANSWERED.values())]
batch = extracted([page for one in pages for page in (one, html_page(1))], engine=sys.argv[2], seconds=0.4)
other = ("engine", "undecodable")
refused = [record.position for record in batch.quarantined if not any(word in record.cause for word in other)]
assert refused == list(range(0, 2 * len(REFUSED), 2)), (refused, [record.cause for record in batch.quarantined])
fine = [text for text, position in zip(batch.text.to_pylist(), batch.position) if position % 2]
assert len(fine) == len(pages) and all("number 1" in text for text in fine)
assert set(batch.reason.tolist()) <= {None, "no_text_extracted", "extraction_timeout"}
# Not ru_maxrss: it begins at what the process that started this one had.
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read()).group(1))
"""


def test_hostile_pages_are_answered_in_bounded_time_and_memory(engine: str) -> None:
    """Each between two ordinary pages, in a process of its own: what went wrong would take the tests with it."""
    assert len(REFUSED) + len(ANSWERED) >= 80
    command = [sys.executable, "-c", HOSTILE, str(Path(__file__).parent), engine]
    done = subprocess.run(command, check=True, timeout=900, cwd="/", capture_output=True, text=True)
    assert int(done.stdout) < 1_500_000  # kB


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_hostile_page_has_built_is_counted_and_no_further(name: str) -> None:
    page = REFUSED[name].encode()
    assert hostile(page)
    work = parsing_work(page, LIMITS)
    assert work.rebuilt < LIMITS.rebuilt + 10 * LIMITS.depth
    assert work.steps < LIMITS.steps + 10 * len(page)


@pytest.mark.parametrize("name", ANSWERED)
def test_pages_that_a_parser_takes_in_one_go_are_not_refused(name: str) -> None:
    assert hostile(ANSWERED[name].encode("utf-8", "replace")) is None


def test_nesting_bombs_end_in_time() -> None:
    """In a process of its own: a stack overflow in native code would take the tests with it."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_extract import extracted
for tag in b"div DIV article table b span ul ol p font blockquote svg a".split():
    print(tag, file=sys.stderr)
    opened, closed = b"<%s>" % tag, b"</%s>" % tag
    page = b"<html><body>" + opened * 100_000 + b"text inside" + closed * 100_000
    batch = extracted([page, opened * 100_000 + b"text", b"<p>fine</p>"])
    assert "fine" in batch.text[len(batch) - 1].as_py()
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, cwd="/", stderr=subprocess.PIPE, text=True)
    assert not done.returncode, f"status {done.returncode} after {done.stderr}"


def test_deep_pages_are_quarantined_and_ordinary_depth_is_not(engine: str) -> None:
    deep = b"<html><body>" + b"<div>" * 100_000 + b"text" + b"</div>" * 100_000
    fine = b"<html><body>" + b"<div>" * 300 + html_page(1) + b"</div>" * 300
    batch = extracted([deep, fine], engine=engine)
    assert batch.position.tolist() == [1]
    assert batch.quarantined[0].cause == "extraction_failed: elements nested 3,000 deep"


def test_a_tag_of_countless_attributes_is_quarantined() -> None:
    attributes = " ".join(f"a{number}=1" for number in range(40_000))
    image = f"<img src='data:image/png;base64,{'A' * 100_000}' data-json=\"{'word ' * 20_000}\">"
    batch = extracted([f"<p>x<div {attributes}>y".encode(), html_page(1).replace(b"</p>", image.encode() + b"</p>")])
    assert batch.position.tolist() == [1]
    assert batch.reason[0] is None
    assert "attributes" in batch.quarantined[0].cause


@pytest.mark.parametrize(
    "odd",
    ["\x0b", "\x07", "\x1c", "&#7;", "&#x0;", "&#xFFFE;", "&#xD800;", "&#1114112;", "&#" + "9" * 5000 + ";", "\uffff"],
)
def test_what_xml_forbids_costs_no_page(engine: str, odd: str) -> None:
    page = html_page(2).decode().replace("Sentence", f"Odd{odd} sentence").replace("<p>", f'<p title="a{odd}b">')
    for start in ("", '<?xml version="1.0" encoding="iso-8859-1"?>\n'):
        batch = extracted([(start + page).encode()], engine=engine)
        assert batch.reason.tolist() == [None]
        assert "number 2" in batch.text[0].as_py()


def test_that_trafilatura_gave_up_is_not_that_there_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trafilatura", exc_type=ImportError)
    broken = """
import lxml.html, trafilatura.core
from filters.read.engines import ENGINES, serve
def fail(*_, **__):
    raise ValueError("All strings must be XML compatible")
trafilatura.core.convert_tags = fail
serve(ENGINES["trafilatura"])
"""
    assert extracted([b"<html><body></body></html>"], engine="trafilatura").reason.tolist() == ["no_text_extracted"]
    monkeypatch.setattr(extract_module, "program_of", lambda engine: broken)
    batch = extracted([html_page(1)], engine="trafilatura")
    cause = "extraction_failed: trafilatura: ValueError: All strings must be XML compatible"
    assert [record.cause for record in batch.quarantined] == [cause]


def test_the_result_is_clean_text(engine: str) -> None:
    page = html_page(1).replace(b"Sentence", b"Sen\0tence&#xD800; &#0;")
    text = extracted([page], engine=engine).text[0].as_py()
    assert "\0" not in text
    text.encode()


def test_real_pages(shared_data, engine: str) -> None:
    result = read_file(shared_data / "warc" / "sample-0000.warc.gz", "warc")
    for batch in result.batches:
        extract(batch, ExtractConfig.model_validate({"engine": engine}))
        checked(batch)
        assert not batch.quarantined
        assert batch.alive.mean() > 0.8
        assert np.median([len(text) for text in batch.text.to_pylist()]) > 300


def test_real_pages_of_every_kind(shared_data) -> None:
    alive = total = 0
    for batch in read_file(shared_data / "warc", "warc").batches:
        extract(batch, ExtractConfig())
        checked(batch)
        assert not batch.quarantined
        alive += int(batch.alive.sum())
        total += len(batch)
    assert total > 780
    assert alive > 0.95 * total


def test_a_child_that_cannot_start_leaves_no_file_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise BlockingIOError("no process left")

    monkeypatch.setattr(engines_module.subprocess, "Popen", refuse)
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(BlockingIOError):
            engines_module.Child("pass")
    assert sorted(os.listdir("/proc/self/fd")) == before
