"""What opens an address never gets into what a run writes or says."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from filters import run_filter
from filters.cli.main import app
from filters.config.filter import FilterConfig
from filters.errors import ConfigError, FinesieveError, InputError
from filters.run.plan import Observer
from filters.run.verify import verify_run
from tests.run.conftest import page

FIRST, RENEWED = "S1gnatureOfToday", "S1gnatureRenewed"


class Signed(http.server.BaseHTTPRequestHandler):
    """Serves one file to whoever signs, by a signature that is still valid."""

    body = "".join(json.dumps({"id": f"d{n}", "text": page(n, 30)}) + "\n" for n in range(20)).encode()
    valid = FIRST

    def do_GET(self) -> None:
        if f"X-Amz-Signature={self.valid}" not in self.path:
            self.send_error(403)
            return
        start, stop = 0, len(self.body)
        if wanted := self.headers.get("Range"):
            first, _, last = wanted[6:].partition("-")
            start, stop = int(first), min(int(last or stop) + 1, stop)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(self.body)}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"one"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.body[start:stop])

    do_HEAD = do_GET  # noqa: N815 - the name http.server asks for

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Signed, "valid", FIRST)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Signed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/in.jsonl"
        server.shutdown()


def config(folder: Path, *paths: str, **given: Any) -> dict[str, Any]:
    return {
        "input": {"kind": "jsonl", "paths": paths, "id_key": "id", "retries": 0} | given,
        "keep": {"min_score": -1},
        "output": {"path": str(folder / "run")},
    }


def files_with(folder: Path, *words: str) -> list[str]:
    return [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and any(word.encode() in path.read_bytes() for word in words)
    ]


def test_a_signed_address_is_read_and_written_nowhere(server: str, tmp_path: Path) -> None:
    made = config(tmp_path, f"{server}?X-Amz-Signature={FIRST}&X-Amz-Expires=600")
    result = run_filter(FilterConfig.model_validate(made))
    assert result.ledger.total.kept == 20
    assert list(result.ledger.accounts) == [server]
    assert not files_with(tmp_path / "run", FIRST, "X-Amz")
    opens = FilterConfig.model_validate(made).reads
    assert [check.name for check in verify_run(tmp_path / "run", opens=opens) if check.ok is False] == []


def test_a_resume_with_a_renewed_signature_is_the_same_input(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Observer):
        def phase(self, name: str, done: int, units: int) -> None:
            if name == "join":
                raise KeyboardInterrupt

    first = FilterConfig.model_validate(config(tmp_path, f"{server}?X-Amz-Signature={FIRST}"))
    with pytest.raises(KeyboardInterrupt):
        run_filter(first, observer=Stop())
    monkeypatch.setattr(Signed, "valid", RENEWED)
    with pytest.raises(FinesieveError) as refused:
        run_filter(first)
    assert FIRST not in str(refused.value)
    second = FilterConfig.model_validate(config(tmp_path, f"{server}?X-Amz-Signature={RENEWED}"))
    assert run_filter(second).ledger.total.kept == 20


@pytest.mark.parametrize("key", ["paths", "paths_file", "prefix"])
def test_a_user_in_an_address_is_refused_and_not_repeated(tmp_path: Path, key: str) -> None:
    address = "http://bob:S3cret@127.0.0.1:9/in.jsonl"
    given: dict[str, Any] = {"paths": [address]} if key == "paths" else {"paths_file": "list.txt", key: address}
    (tmp_path / "c.yaml").write_text(json.dumps(config(tmp_path, "stream", **given)))
    with pytest.raises(ConfigError, match="storage_options") as refused:
        FilterConfig.load(tmp_path / "c.yaml")
    assert "S3cret" not in str(refused.value)
    done = CliRunner().invoke(app, ["filter", str(tmp_path / "c.yaml")])
    assert done.exit_code == 1
    assert "S3cret" not in done.output


def test_a_user_in_an_earlier_run_or_a_list_is_refused(tmp_path: Path) -> None:
    made = config(tmp_path, "in.jsonl")
    made["dedup"] = {"against": ["s3://key:S3cret@bucket/run"]}
    (tmp_path / "c.yaml").write_text(json.dumps(made))
    with pytest.raises(ConfigError) as refused:
        FilterConfig.load(tmp_path / "c.yaml")
    assert "S3cret" not in str(refused.value)
    (tmp_path / "list.txt").write_text("http://bob:S3cret@127.0.0.1:9/in.jsonl\n")
    listed = FilterConfig.model_validate(config(tmp_path, paths_file=str(tmp_path / "list.txt")))
    with pytest.raises(InputError, match="lists an address") as refused_list:
        run_filter(listed)
    assert "S3cret" not in str(refused_list.value)
