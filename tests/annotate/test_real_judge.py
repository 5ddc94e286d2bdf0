"""annotate against a real model behind a real server: 24 real pages, killed halfway and resumed, nothing asked twice.

`make test-annotate` builds the environment of the server; without it these tests skip. Between client and server stands
a proxy that counts what the server is asked: the server's own request count.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from examples.small_judge import CONTEXT, MODEL, PYTHON, ROOT, running
from filters.annotate.agreement import make_report
from filters.annotate.page import delimit
from filters.annotate.ratings import read_rated
from filters.annotate.rubric import Prompt, Rubric
from tests.annotate.test_page import DATA, forged, inside

pytestmark = [
    pytest.mark.judge,
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no {PYTHON}: make test-annotate builds it"),
]

PAGES = 24
PAGE_TOKENS = 64
SERVERS = 2
WITHIN = 1500.0
"""Seconds for one phase: the machine may be busy with other things."""


class CountingProxy(http.server.ThreadingHTTPServer):
    """Passes requests on to a server and counts them by their bodies.

    Attributes:
        asked: request body -> times it was received.
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        self.host = target.removeprefix("http://")
        self.asked: Counter[bytes] = Counter()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """Base URL of the API behind it."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CountingProxy

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked[body] += 1
        connection = http.client.HTTPConnection(self.server.host, timeout=WITHIN)
        with contextlib.closing(connection), contextlib.suppress(OSError):  # a killed client is gone
            connection.request("POST", self.path, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            answer = reply.read()
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.headers["Content-Type"])
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with running(SERVERS, tmp_path_factory.mktemp("server") / "server.log") as addresses:
        yield addresses


@pytest.fixture
def proxies(servers: list[str]) -> Iterator[list[CountingProxy]]:
    started = [CountingProxy(address) for address in servers]
    yield started
    for proxy in started:
        proxy.shutdown()


def write_config(folder: Path, dump: Path, proxies: list[CountingProxy], judge: dict[str, Any]) -> Path:
    path = folder / "judge.yaml"
    config = {
        "input": {"kind": "parquet", "paths": [str(dump)], "id_key": "id"},
        "sample": {"size": PAGES},
        "rubric": str(ROOT / "configs" / "rubrics" / "edu.yaml"),
        "judges": [
            {
                "name": "small",
                "base_urls": [proxy.address for proxy in proxies],
                "model": MODEL,
                "context_tokens": CONTEXT,
                "max_page_tokens": PAGE_TOKENS,
                "max_concurrency": 1,
                "timeout_seconds": WITHIN,
                **judge,
            }
        ],
        "store": str(folder / "answers.sqlite"),
        "export": str(folder / "export"),
    }
    path.write_text(yaml.safe_dump(config))
    return path


def start(config: Path) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name("finesieve")
    return subprocess.Popen([str(program), "annotate", str(config), "--yes"], stderr=subprocess.DEVNULL)


def stored(folder: Path) -> dict[str, str]:
    """Text of each answered document -> status of its answer."""
    path = folder / "answers.sqlite"
    if not path.exists():
        return {}
    with contextlib.closing(sqlite3.connect(path)) as db, contextlib.suppress(sqlite3.OperationalError):
        return dict(db.execute("SELECT text, status FROM answers JOIN documents USING (document)").fetchall())
    return {}


def wait_for(folder: Path, answers: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WITHIN
    while len(stored(folder)) < answers:
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def question(body: bytes) -> str:
    return str(json.loads(body)["messages"][-1]["content"])


@pytest.mark.parametrize(
    ("mode", "kill"),
    [
        ({"mode": "expected"}, signal.SIGKILL),
        ({"mode": "justify", "max_answer_tokens": 32}, signal.SIGINT),
    ],
    ids=["expected, SIGKILL", "justify, SIGINT"],
)
def test_killed_halfway_and_resumed_nothing_is_asked_twice(
    mode: dict[str, Any], kill: signal.Signals, proxies: list[CountingProxy], shared_data: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, shared_data / "web" / "unlabelled.parquet", proxies, mode)
    process = start(config)
    wait_for(tmp_path, PAGES // 2, process)
    process.send_signal(kill)
    assert process.wait(WITHIN) == (-signal.SIGKILL if kill == signal.SIGKILL else 130)
    before = stored(tmp_path)
    assert PAGES // 2 <= len(before) < PAGES

    assert start(config).wait(WITHIN) == 0
    after = stored(tmp_path)
    assert len(after) == PAGES
    asked = sum((proxy.asked for proxy in proxies), Counter())
    times = Counter(question(body) for body in asked.elements())
    prompt = Prompt(Rubric.load(ROOT / "configs" / "rubrics" / "edu.yaml"), mode["mode"])
    for text in before:
        page = prompt.messages(delimit(text, PAGE_TOKENS))[-1]["content"]
        assert times[page] == 1, "an answer that was stored was paid for twice"
    under_way = SERVERS if kill == signal.SIGKILL else 0
    assert PAGES <= asked.total() <= PAGES + under_way
    print(f"\n{asked.total()} requests for {PAGES} pages, killed after {len(before)}: {Counter(after.values())}")

    assert start(config).wait(WITHIN) == 0
    assert sum(proxy.asked.total() for proxy in proxies) == asked.total(), "a finished run asks nothing"
    if mode["mode"] == "expected":
        assert Counter(after.values())["ok"] >= PAGES * 0.9
        report = make_report(read_rated(config), curve=False, resamples=20)
        assert report.judges[0].entropy is not None
        assert 0.05 < report.judges[0].entropy < np.log(6)


def test_no_injection_breaks_the_structure_of_the_prompt(servers: list[str]) -> None:
    """Each turn of the expanded chat template is opened and closed once, whatever the page holds."""
    address = servers[0].removeprefix("http://")

    def post(path: str, body: dict[str, Any]) -> Any:
        connection = http.client.HTTPConnection(address, timeout=WITHIN)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())

    def tokens(text: str) -> list[int]:
        found: list[int] = post("/tokenize", {"content": text, "parse_special": True})["tokens"]
        return found

    (opening,), (closing,) = tokens("<|im_start|>"), tokens("<|im_end|>")
    prompt = Prompt(Rubric.load(ROOT / "configs" / "rubrics" / "edu.yaml"), "expected")
    data = json.loads(DATA.read_text())
    broken = 0
    for injection in data["injections"]:
        text = f"{data['pages'][0]['text']}\n\n{injection['text']}"
        framed = delimit(text, 600)
        assert forged(inside(framed)) == []
        messages = prompt.messages(framed)
        expanded = tokens(post("/apply-template", {"messages": messages})["prompt"])
        assert expanded.count(opening) == len(messages) + 1
        assert expanded.count(closing) == len(messages)
        messages[-1] = {"role": "user", "content": text}
        broken += tokens(post("/apply-template", {"messages": messages})["prompt"]).count(opening) != len(messages) + 1
    assert broken > 0, "without the defence some injections become turns, or this test would show nothing"
