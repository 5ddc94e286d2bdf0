from __future__ import annotations

import tempfile
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from server import Server
from synthetic import json_lines, read_all

from filters.config.filter import InputConfig
from filters.storage import remote
from filters.storage.remote import Pace, pause_after, pause_before, retry_after


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Time:
    time = Time()
    monkeypatch.setattr(remote, "clock", lambda: time.now)
    monkeypatch.setattr(remote, "sleep", time.sleep)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return time


class RefusedError(Exception):
    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(status)
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}


def test_pauses_double_to_minutes_and_differ() -> None:
    for attempt, longest in enumerate([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]):
        drawn = [pause_before(attempt) for _ in range(50)]
        assert longest / 2 <= min(drawn) <= max(drawn) <= longest
        assert len(set(drawn)) > 10


def test_workers_share_the_rate_of_a_host_and_not_that_of_another(time: Time) -> None:
    workers = [Pace("https://user:secret@example.org/a", 4), Pace("https://example.org/b?x", 4)]
    start = time.now
    for request in range(20):
        workers[request % 2].wait()
    assert time.now - start == pytest.approx(19 / 4)
    before = time.now
    Pace("https://example.net/a", 4).wait()
    assert time.now == before
    assert "secret" not in " ".join(str(path) for path in Path(tempfile.gettempdir()).rglob("*"))


def test_while_a_host_is_busy_no_worker_asks_it(time: Time) -> None:
    one, other, elsewhere = Pace("https://a.org/1"), Pace("https://a.org/2"), Pace("https://b.org/1")
    one.hold(30)
    start = time.now
    elsewhere.wait()
    assert time.now == start
    other.wait()
    assert time.now == pytest.approx(start + 30)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), (" 0 ", 0), ("1.5", 1.5), ("-5", 0), ("soon", None), ("", None), ("nan", None), ("inf", None)],
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": value}) == seconds


def test_retry_after_in_milliseconds_comes_first() -> None:
    assert retry_after({"Retry-After": "9", "Retry-After-Ms": "800"}) == pytest.approx(0.8)
    assert retry_after({"Retry-After": "9", "retry-after-ms": "soon"}) == 9


def test_retry_after_as_a_date(time: Time) -> None:
    assert retry_after({"retry-after": formatdate(time.now + 90, usegmt=True)}) == pytest.approx(90, abs=1)
    assert retry_after({"retry-after": formatdate(time.now - 90, usegmt=True)}) == 0
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (RefusedError(503, Retry_After="120"), 120, 120),
        (RefusedError(503, Retry_After="10000000"), remote.LONGEST_ASKED, remote.LONGEST_ASKED),
        (RefusedError(503, Retry_After="0"), 0.5, 1),
        (RefusedError(503), 0.5, 1),
        (ConnectionError("dropped"), 0.5, 1),
    ],
)
def test_the_server_is_given_the_time_it_asks_for(time: Time, error: Exception, least: float, most: float) -> None:
    wrapped = FileNotFoundError("as fsspec says it")
    wrapped.__cause__ = error
    for each in (error, wrapped):
        time.slept.clear()
        pause_after(each, 0, None)
        assert least <= time.slept[0] <= most


def test_botocore_keeps_replies_elsewhere(time: Time) -> None:
    error: Any = OSError("reduce your request rate")
    error.response = {
        "Error": {"Code": "SlowDown"},
        "ResponseMetadata": {"HTTPStatusCode": 503, "HTTPHeaders": {"retry-after": "7"}},
    }
    here, elsewhere = Pace("s3://b/1"), Pace("s3://b/2")
    pause_after(error, 0, here)
    assert time.slept == [7]
    error.response = {"Error": {"Code": "SlowDown"}}
    start = time.now
    pace_before = len(time.slept)
    pause_after(error, 3, here)
    assert len(time.slept) == pace_before + 1
    elsewhere.hold(5)
    here.wait()
    assert time.now >= start + 5


def test_a_server_that_is_busy_for_long_is_asked_as_often_as_wanted(time: Time) -> None:
    server = Server()
    try:
        server.files["/a.jsonl"] = json_lines(5)
        server.busy = 40
        config = {"kind": "jsonl", "paths": [server.url + "/a.jsonl"]}
        assert InputConfig.model_validate(config).retries == 10
        assert len(read_all(InputConfig.model_validate(config | {"retries": 40}))) == 5
        assert server.busy == 0
    finally:
        server.close()
    assert sum(time.slept) > 600
    assert max(time.slept) <= remote.LONGEST_PAUSE
