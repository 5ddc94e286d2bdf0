from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from server import Server
from synthetic import html_page, json_lines, read_all, responses

from filters.config.filter import InputConfig
from filters.errors import InputError, MissingExtraError
from filters.read.units import plan_units
from filters.storage import remote
from filters.storage.remote import ResumingFile


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    server = Server()
    yield server
    server.close()


def config(server: Server, kind: str, path: str, **options: Any) -> InputConfig:
    return InputConfig.model_validate({"kind": kind, "paths": [server.url + path], **options})


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("drops", [0, 1, 4])
def test_a_dropped_connection_is_resumed(server: Server, ranges: bool, drops: int) -> None:
    server.files["/a.warc.gz"] = b"".join(gzip.compress(record) for record in responses(40))
    server.ranges, server.drops, server.cut = ranges, drops, 3000
    result = read_all(config(server, "warc", "/a.warc.gz"))
    assert result.html == [html_page(number) for number in range(40)]
    assert not result.quarantined
    assert server.drops == 0


@pytest.mark.parametrize("ranges", [True, False])
def test_bytes_are_the_same_wherever_the_connection_drops(server: Server, ranges: bool) -> None:
    data = bytes(range(256)) * 200
    server.files["/data"] = data
    server.ranges = ranges
    for cut in (1, 999, 30_000):
        server.drops, server.cut = 2, cut
        # Small blocks, so that the file takes many requests.
        with ResumingFile(server.url + "/data", {"block_size": 7000}, retries=3) as file:
            assert b"".join(iter(lambda: file.read(1234), b"")) == data


def test_seeking_goes_to_the_byte(server: Server) -> None:
    data = bytes(range(256)) * 20
    server.files["/data"] = data
    with ResumingFile(server.url + "/data", {}, retries=1) as file:
        assert file.seek(-10, 2) == len(data) - 10
        assert file.read(100) == data[-10:]
        assert file.read(100) == b""
        assert file.seek(300) == 300
        assert file.seek(5, 1) == 305
        buffer = bytearray(7)
        assert file.readinto(buffer) == 7
        assert bytes(buffer) == data[305:312]


def test_after_the_last_retry_the_error_names_address_and_byte(server: Server) -> None:
    server.files["/a.jsonl"] = json_lines(500)
    server.drops, server.cut = 10**6, 5000
    with pytest.raises(InputError, match=rf"{server.url}/a\.jsonl: reading failed at byte 0 after 2 retries"):
        read_all(config(server, "jsonl", "/a.jsonl", retries=2))
    assert len([request for request in server.requests if request[0] == "GET"]) == 3


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.files["/a.jsonl"] = json_lines(5)
    server.errors = 2
    assert len(read_all(config(server, "jsonl", "/a.jsonl"))) == 5


def test_an_unreachable_host_is_not_a_missing_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.jsonl"
    options = {"kind": "jsonl", "paths": [url], "retries": 2}
    with pytest.raises(InputError, match=r"/a\.jsonl: failed after 2 retries: ClientConnector"):
        plan_units(InputConfig.model_validate(options))
    with pytest.raises(InputError, match=r"reading failed at byte 0 after 2 retries \(ClientConnector"):
        ResumingFile(url, {}, 2).read(1)


def test_a_server_that_is_busy_at_first_is_asked_again(server: Server) -> None:
    server.files["/a.jsonl"] = json_lines(5)
    server.busy = 4
    assert len(read_all(config(server, "jsonl", "/a.jsonl", retries=6))) == 5
    assert server.busy == 0


def test_the_query_of_an_address_is_no_pattern(server: Server) -> None:
    server.files["/a.jsonl?part=1&token=abc"] = json_lines(5)
    server.busy = 4
    assert len(read_all(config(server, "jsonl", "/a.jsonl?part=1&token=abc", retries=6))) == 5
    with pytest.raises(InputError, match=r"none\.jsonl: no such file.*404"):
        plan_units(config(server, "jsonl", "/none.jsonl?token=abc"))


def test_a_file_that_changes_while_it_is_read_is_refused(server: Server) -> None:
    server.files["/data"] = bytes(50_000)
    with ResumingFile(server.url + "/data", {"block_size": 5000}, retries=2) as file:
        file.read(5000)
        server.files["/data"] = bytes(60_000)
        file.seek(10_000)
        with pytest.raises(InputError, match="size changed from 50,000 to 60,000"):
            file.read(10)


def test_a_missing_file_is_an_input_error_of_the_plan(server: Server) -> None:
    with pytest.raises(InputError, match=rf"{server.url}/none\.jsonl"):
        plan_units(config(server, "jsonl", "/none.jsonl"))


def test_a_paths_file_lists_files_behind_a_prefix(server: Server) -> None:
    for number in range(3):
        server.files[f"/crawl/{number}.warc.gz"] = gzip.compress(responses(3)[number])
    listing = "".join(f"crawl/{number}.warc.gz\n" for number in (2, 0, 1))
    server.files["/warc.paths.gz"] = gzip.compress(listing.encode())
    options = {"kind": "warc", "paths_file": f"{server.url}/warc.paths.gz", "prefix": f"{server.url}/"}
    units = plan_units(InputConfig.model_validate(options))
    assert [unit.source for unit in units] == [f"{server.url}/crawl/{number}.warc.gz" for number in (2, 0, 1)]
    assert [unit.size for unit in units] == [len(server.files[f"/crawl/{number}.warc.gz"]) for number in (2, 0, 1)]
    result = read_all(InputConfig.model_validate({**options, "max_files": 2}))
    assert result.html == [html_page(2), html_page(0)]


def test_parquet_is_read_over_http_with_dropped_connections(server: Server, tmp_path: Path) -> None:
    texts = [f"row {row} " * 50 for row in range(3000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=500, compression="none")
    server.files["/a.parquet"] = (tmp_path / "a.parquet").read_bytes()
    server.drops, server.cut = 3, 10_000
    assert read_all(config(server, "parquet", "/a.parquet")).texts == texts


def test_in_memory_and_unknown_file_systems(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({"/crawl/b.jsonl": json_lines(2), "/crawl/a.jsonl": json_lines(3), "/crawl/readme.md": b"no"})
    for pattern in ("memory://crawl", "memory://crawl/*.jsonl"):
        units = plan_units(InputConfig(kind="jsonl", paths=(pattern,)))
        assert [unit.source for unit in units] == ["memory:///crawl/a.jsonl", "memory:///crawl/b.jsonl"]
        assert len(read_all(InputConfig(kind="jsonl", paths=(pattern,)))) == 5
    with pytest.raises(InputError, match=r"zip://a\.jsonl::file://.*none\.zip: cannot be opened: FileNotFoundError"):
        plan_units(InputConfig(kind="jsonl", paths=(f"zip://a.jsonl::file://{tmp_path}/none.zip",)))
    with pytest.raises(InputError, match="nosuch://x"):
        plan_units(InputConfig(kind="jsonl", paths=("nosuch://x",)))


def test_a_protocol_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(*args: object, **kwargs: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingExtraError, match=r"\[s3\]"):
        plan_units(InputConfig(kind="warc", paths=("s3://commoncrawl/a.warc.gz",)))


@pytest.mark.parametrize("ranges", [True, False])
def test_real_crawls_over_http(server: Server, shared_data: Path, ranges: bool) -> None:
    for path in (shared_data / "warc").glob("sample*.warc.gz"):
        server.files[f"/{path.name}"] = path.read_bytes()
    server.files["/paths"] = "\n".join(name[1:] for name in sorted(server.files)).encode()
    server.ranges, server.drops, server.cut = ranges, 3, 100_000
    options = {"kind": "warc", "paths_file": f"{server.url}/paths", "prefix": f"{server.url}/"}
    remote_result = read_all(InputConfig.model_validate(options))
    local = read_all(InputConfig(kind="warc", paths=(str(shared_data / "warc" / "sample*.warc.gz"),)))
    assert remote_result.html == local.html
    assert remote_result.ids == local.ids
    assert len(local) == 37
