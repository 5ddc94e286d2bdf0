"""Damage at seeded random places: never an error but FinesieveError, and the sums hold (`synthetic.checked`)."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from synthetic import COMPRESS, html_page, http_response, json_lines, read_file, responses, warc_record

from filters.config.filter import ExtractConfig
from filters.errors import FinesieveError
from filters.read.extract import extract

ROUNDS = 150


def flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 1, 5))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def cut_out(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.randrange(1, 400)]


def overwrite(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    size = min(chance.randrange(1, 400), len(data) - start)
    data[start : start + size] = chance.choice((bytes(size), chance.randbytes(size)))


def insert(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    data[start:start] = chance.randbytes(chance.randrange(1, 400))


DAMAGE: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, truncate, cut_out, overwrite, insert)


def warc_members(compress: Callable[[bytes], bytes]) -> bytes:
    records = [warc_record(9, b"GET / HTTP/1.1\r\n\r\n", "request"), *responses(8)]
    packed = http_response(gzip.compress(html_page(8)), headers={"Content-Encoding": "gzip"})
    return b"".join(map(compress, [*records, warc_record(8, packed)]))


def parquet(tmp_path: Path, **options: object) -> bytes:
    chance = random.Random(0)
    rows = [f"row {row} " + " ".join(chance.choices(["alpha", "beta", "gamma", "delta"], k=30)) for row in range(400)]
    table = pa.table({"text": rows, "id": [str(row) for row in range(400)], "url": ["u", None] * 200})
    pq.write_table(table, tmp_path / "seed.parquet", row_group_size=150, **options)
    return (tmp_path / "seed.parquet").read_bytes()


SEEDS: dict[str, Callable[[Path], bytes]] = {
    **{f"a.jsonl{suffix}": lambda _, pack=pack: pack(json_lines(300)) for suffix, pack in COMPRESS.items()},
    "members.jsonl.gz": lambda _: b"".join(gzip.compress(json_lines(60)) for _ in range(5)),
    "a.warc.gz": lambda _: warc_members(gzip.compress),
    "a.warc.zst": lambda _: warc_members(zstandard.compress),
    "a.warc": lambda _: warc_members(bytes),
    "whole.warc.gz": lambda _: gzip.compress(warc_members(bytes)),
    "zstd.parquet": lambda folder: parquet(folder, compression="zstd", write_page_checksum=True),
    "snappy.parquet": lambda folder: parquet(folder, compression="snappy"),
    "plain.parquet": lambda folder: parquet(folder, compression="none", use_dictionary=False, data_page_version="2.0"),
}


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files(tmp_path: Path, name: str) -> None:
    whole = SEEDS[name](tmp_path)
    kind = next(kind for kind in ("jsonl", "parquet", "warc") if f".{kind}" in name)
    path = tmp_path / name
    path.write_bytes(whole)
    expected = len(read_file(path, kind))
    assert expected in (9, 300, 400)
    noticed = 0
    for seed in range(ROUNDS):
        chance = random.Random(seed)
        data = bytearray(whole)
        chance.choice(DAMAGE)(data, chance)
        path.write_bytes(data)
        try:
            result = read_file(path, kind)
        except FinesieveError:
            noticed += 1
            continue
        for batch in result.batches:
            extract(batch, ExtractConfig())
        assert len(result) <= 2 * expected
        noticed += bool(result.quarantined) or len(result) != expected
    if name not in ("a.jsonl", "a.warc", "a.warc.zst", "snappy.parquet", "plain.parquet"):  # without checksums
        assert noticed > 0.9 * ROUNDS


@settings(max_examples=150)
@given(lines=st.lists(st.binary(max_size=60) | st.sampled_from([b'{"text":"a"}', b"{}", b"[]", b""]), max_size=12))
def test_any_lines(tmp_path: Path, lines: list[bytes]) -> None:
    data = b"\n".join(lines)
    (tmp_path / "a.jsonl").write_bytes(data)
    compressed = data.startswith((b"\x1f\x8b\x08", b"BZh", b"\x28\xb5\x2f\xfd"))
    delimited = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    assert compressed or read_file(tmp_path / "a.jsonl", "jsonl").records in (delimited, delimited - 1)


@settings(max_examples=150)
@given(
    head=st.binary(max_size=80),
    body=st.binary(max_size=200),
    coding=st.sampled_from(["gzip", "br", "deflate", "zstd", "x"]),
)
def test_any_response(tmp_path: Path, head: bytes, body: bytes, coding: str) -> None:
    block = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\n%s\r\n\r\n%s" % (coding.encode(), head, body)
    (tmp_path / "a.warc").write_bytes(warc_record(0, block))
    result = read_file(tmp_path / "a.warc", "warc")
    assert result.records == 1
    for batch in result.batches:
        extract(batch, ExtractConfig())


@settings(max_examples=200)
@given(data=st.binary(max_size=400))
def test_any_bytes_as_warc(tmp_path: Path, data: bytes) -> None:
    assume(not data.startswith(b"filedesc://"))  # an ARC, which is refused as one
    for content in (data, b"WARC/1.0\r\n" + data, gzip.compress(data), b"WARC/1.0\r\nContent-Length: 9\r\n\r\n" + data):
        (tmp_path / "a.warc").write_bytes(content)
        read_file(tmp_path / "a.warc", "warc")
