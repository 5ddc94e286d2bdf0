"""configs/common-crawl.yaml as shipped, against a server on the loopback that drops connections."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from filters import FilterConfig, run_filter
from filters.errors import InputError
from tests.read.server import Server
from tests.run.conftest import digest


@pytest.fixture
def crawl(shared_data: Path) -> Iterator[Server]:
    server = Server()
    for path in sorted((shared_data / "warc").glob("sample*.warc.gz")):
        server.files[f"/crawl/{path.name}"] = path.read_bytes()
    paths = "".join(f"{name[1:]}\n" for name in server.files)
    server.files["/warc.paths.gz"] = gzip.compress(paths.encode())
    yield server
    server.close()


def config(server: Server, output: Path, *overrides: str) -> FilterConfig:
    return FilterConfig.load(
        "configs/common-crawl.yaml",
        [
            f"input.paths_file={server.url}/warc.paths.gz",
            f"input.prefix={server.url}/",
            f"output.path={output}",
            "keep.min_score=0",
            *overrides,
        ],
    )


def test_a_crawl_is_streamed_and_a_dropped_connection_costs_nothing(
    crawl: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as threads:
        threads.setattr("filters.run.engine.threads_will_do", lambda config: True)
        whole = run_filter(config(crawl, tmp_path / "whole", "executor.workers=1"))
    assert whole.ledger.total.records == 37
    assert whole.ledger.total.kept > 10
    assert set(whole.ledger.accounts) == {f"{crawl.url}/crawl/sample-000{n}.warc.gz" for n in (0, 1)}
    crawl.drops, crawl.cut = 3, 100_000
    run_filter(config(crawl, tmp_path / "dropped"))
    assert crawl.drops == 0
    assert digest(tmp_path / "dropped") == digest(tmp_path / "whole")


@pytest.mark.usefixtures("in_threads")
def test_a_server_that_stays_down_ends_the_run_with_its_address(crawl: Server, tmp_path: Path) -> None:
    crawl.drops, crawl.cut = 10**6, 100_000
    with pytest.raises(InputError, match=r"sample-000\d\.warc\.gz"):
        run_filter(config(crawl, tmp_path / "run", "input.retries=1"))
    assert not (tmp_path / "run").exists()
