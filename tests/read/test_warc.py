from __future__ import annotations

import base64
import gzip
import hashlib
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import zstandard
from synthetic import Result, html_page, http_response, read_file, responses, warc_record

from filters.errors import InputError


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


LAYOUTS = {
    "per record.warc.gz": lambda records: b"".join(gzip.compress(record) for record in records),
    "whole.warc.gz": lambda records: gzip.compress(b"".join(records)),
    "plain.warc": b"".join,
    "per record.warc.zst": lambda records: b"".join(map(zstd, records)),
}
URLS = [f"https://example.org/{number}" for number in range(6)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_reads_responses_of_every_layout(tmp_path: Path, name: str) -> None:
    records = [warc_record(100, b"software: test\r\n", "warcinfo")]
    for number, record in enumerate(responses(6)):
        records += [warc_record(200 + number, b"GET / HTTP/1.1\r\n\r\n", "request"), record]
    path = tmp_path / name
    path.write_bytes(LAYOUTS[name](records))
    result = read_file(path, "warc")
    assert result.html == [html_page(number) for number in range(6)]
    assert result.column("url") == URLS
    assert result.column("date") == 6 * ["2024-05-18T01:58:10Z"]
    assert result.ids[0] == "00000000-0000-4000-8000-000000000000"
    assert len(set(result.positions)) == 6
    assert result.positions == sorted(result.positions)
    assert (result.skipped, result.quarantined) == (7, [])
    assert sum(batch.input_bytes for batch in result.batches) == path.stat().st_size


def test_position_is_the_offset_of_the_record_as_stored(tmp_path: Path) -> None:
    members = [gzip.compress(record) for record in responses(4)]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(members))
    offsets = [sum(map(len, members[:index])) for index in range(4)]
    assert read_file(tmp_path / "a.warc.gz", "warc").positions == offsets
    (tmp_path / "b.warc").write_bytes(b"".join(responses(4)))
    offsets = [sum(map(len, responses(4)[:index])) for index in range(4)]
    assert read_file(tmp_path / "b.warc", "warc").positions == offsets


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("cut", [1, 7, 60, 200])
def test_a_truncated_file_keeps_whole_records(tmp_path: Path, name: str, cut: int) -> None:
    random.seed(1)
    records = [warc_record(n, http_response(random.randbytes(3000))) for n in range(6)]
    data = LAYOUTS[name](records)
    (tmp_path / name).write_bytes(data[:-cut])
    result = read_file(tmp_path / name, "warc")
    if name == "plain.warc" and cut == 1:  # only a part of the empty lines behind the last record is missing
        assert (len(result), result.causes) == (6, [])
    else:
        assert (len(result), result.causes) == (5, ["truncated"])
    assert result.column("url") == URLS[: len(result)]


@pytest.mark.parametrize("name", ["per record.warc.gz", "per record.warc.zst"])
def test_a_damaged_record_costs_only_itself(tmp_path: Path, name: str) -> None:
    compress = gzip.compress if "gz" in name else zstd
    for seed in range(60):
        chance = random.Random(seed)
        members = [bytearray(compress(record)) for record in responses(6)]
        members[2][chance.randrange(len(members[2]))] ^= 1 << chance.randrange(8)
        (tmp_path / name).write_bytes(b"".join(members))
        result = read_file(tmp_path / name, "warc")
        others = [url for url in result.column("url") if url != URLS[2]]
        assert others == [url for url in URLS if url != URLS[2]], seed
        # Some header bits (modification time, operating system) change nothing.
        assert len(result) == 6 or set(result.causes) <= {"corrupt", "truncated"}, seed


def test_a_wrong_checksum_is_not_a_document(tmp_path: Path) -> None:
    members = [bytearray(gzip.compress(record)) for record in responses(6)]
    members[3][-6] ^= 1
    (tmp_path / "a.warc.gz").write_bytes(b"".join(members))
    result = read_file(tmp_path / "a.warc.gz", "warc")
    assert result.column("url") == [url for url in URLS if url != URLS[3]]
    assert result.causes == ["corrupt"]
    assert result.quarantined[0].position == sum(map(len, members[:3]))
    assert result.quarantined[0].first_bytes.startswith(b"WARC/1.0")


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Content-Length: ", b"Content-Length: 9"),
        (b"Content-Length: ", b"Content-Length: -"),
        (b"Content-Length: ", b"X-Something: "),
        (b"WARC/1.0", b"WURC/1.0"),
    ],
    ids=["too long", "negative", "missing", "no record"],
)
def test_going_on_behind_a_broken_header(tmp_path: Path, name: str, before: bytes, after: bytes) -> None:
    records = responses(6)
    records[2] = records[2].replace(before, after, 1)
    (tmp_path / name).write_bytes(LAYOUTS[name](records))
    result = read_file(tmp_path / name, "warc")
    assert result.column("url") == [url for url in URLS if url != URLS[2]]
    assert len(result.quarantined) == 1


def test_a_content_length_that_is_too_short_is_noticed(tmp_path: Path) -> None:
    records = responses(3)
    page = html_page(1)
    length = len(http_response(page))
    records[1] = records[1].replace(b"Content-Length: %d" % length, b"Content-Length: %d" % (length - 40), 1)
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, records)))
    result = read_file(tmp_path / "a.warc.gz", "warc")
    assert result.causes == ["corrupt"]
    assert URLS[0] in result.column("url")
    assert URLS[2] in result.column("url")


def test_garbage_between_members_is_one_record(tmp_path: Path) -> None:
    members = list(map(gzip.compress, responses(3)))
    (tmp_path / "a.warc.gz").write_bytes(members[0] + os.urandom(5000) + members[1] + members[2])
    result = read_file(tmp_path / "a.warc.gz", "warc")
    assert result.column("url") == URLS[:3]
    assert result.causes == ["corrupt"]


@pytest.mark.parametrize("compress", [bytes, zstandard.compress], ids=["plain", "zstd without checksum"])
def test_an_altered_byte_is_found_by_the_digest(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    blocks = [http_response(html_page(number)) for number in range(3)]
    digests = [
        "sha1:" + base64.b32encode(hashlib.sha1(blocks[0]).digest()).decode(),
        "sha1:" + hashlib.sha1(blocks[1]).hexdigest(),
        "md5:unknown",
    ]
    records = [
        warc_record(number, block, headers={"WARC-Block-Digest": digest})
        for number, (block, digest) in enumerate(zip(blocks, digests, strict=True))
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(map(compress, records)))
    assert len(read_file(tmp_path / "a.warc", "warc")) == 3
    records[1] = records[1].replace(b"extractor", b"extractar", 1)
    (tmp_path / "a.warc").write_bytes(b"".join(map(compress, records)))
    result = read_file(tmp_path / "a.warc", "warc")
    assert result.column("url") == [URLS[0], URLS[2]]
    assert result.causes == ["corrupt"]


def test_a_record_above_the_limit_is_passed_over(tmp_path: Path) -> None:
    records = responses(3)
    records.insert(1, warc_record(9, http_response(b"x" * 3_000_000)))
    for name, layout in LAYOUTS.items():
        (tmp_path / name).write_bytes(layout(records))
        result = read_file(tmp_path / name, "warc", max_document_bytes="1MB")
        assert result.column("url") == URLS[:3]
        assert result.causes == ["too_large"]


def dictionary() -> zstandard.ZstdCompressionDict:
    return zstandard.train_dictionary(4096, [warc_record(n, http_response(html_page(n))) for n in range(300)])


def skippable(content: bytes, number: int = 0xD) -> bytes:
    return bytes([0x50 + number]) + b"\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


@pytest.mark.parametrize("pack", [bytes, zstandard.compress], ids=["plain", "compressed"])
def test_a_dictionary_at_the_start_of_the_file_is_used(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    trained = dictionary()
    compressor = zstandard.ZstdCompressor(dict_data=trained, write_checksum=True)
    records = list(map(compressor.compress, responses(6)))
    head = skippable(pack(trained.as_bytes()))
    path = tmp_path / "a.warc.zst"
    path.write_bytes(head + skippable(b"a note", 0) + b"".join(records) + zstd(warc_record(6, http_response(b"<p>x"))))
    result = read_file(path, "warc")
    assert result.html == [*(html_page(number) for number in range(6)), b"<p>x"]
    records[2] = records[2][:-9] + b"\xff" + records[2][-8:]
    path.write_bytes(head + b"".join(records))  # what stands behind damage still has the dictionary
    result = read_file(path, "warc")
    assert result.column("url") == [url for url in URLS if url != URLS[2]]
    assert result.causes == ["corrupt"]


def test_a_dictionary_that_is_missing_is_named(tmp_path: Path) -> None:
    trained = dictionary()
    records = list(map(zstandard.ZstdCompressor(dict_data=trained).compress, responses(3)))
    other = zstandard.train_dictionary(4096, [b"words %d of another text " % number * 20 for number in range(300)])
    for head in (b"", skippable(other.as_bytes()), skippable(b"no dictionary")):
        (tmp_path / "a.warc.zst").write_bytes(head + b"".join(records))
        result = read_file(tmp_path / "a.warc.zst", "warc")
        assert result.causes == 3 * ["missing_dictionary"]
        assert f"zstd dictionary {trained.dict_id()}" in result.quarantined[0].cause


def test_a_damaged_dictionary_is_no_traceback(tmp_path: Path) -> None:
    trained = dictionary()
    records = b"".join(map(zstandard.ZstdCompressor(dict_data=trained).compress, responses(3)))
    for content in (trained.as_bytes()[:40], zstandard.compress(b"words"), zstandard.compress(trained.as_bytes())[:60]):
        (tmp_path / "a.warc.zst").write_bytes(skippable(content) + records)
        result = read_file(tmp_path / "a.warc.zst", "warc")
        assert result.causes == 3 * ["missing_dictionary"]


ARC = b"filedesc://a.arc 127.0.0.1 20240101000000 text/plain 9\n1 0 x\n\n\nhttp://example.org/ 2\n"


@pytest.mark.parametrize("name", ["a.arc", "a.arc.gz", "A.ARC.GZ", "a.warc", "a.warc.gz", "a.warc.zst"])
def test_an_arc_is_refused_as_an_arc(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(ARC) if "gz" in name.lower() else ARC)
    with pytest.raises(InputError, match=rf"{name}: an ARC file, .* `warcio recompress"):
        read_file(tmp_path / name, "warc")


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028", "\u2029", "\r", "\0"])
def test_a_record_header_ends_at_a_line_feed_only(tmp_path: Path, character: str) -> None:
    url = f"https://example.org/a{character}Content-Length: 3"
    record = warc_record(0, http_response(html_page(0)), headers={"WARC-Target-URI": url})
    (tmp_path / "a.warc").write_bytes(record + responses(2)[1])
    result = read_file(tmp_path / "a.warc", "warc")
    assert result.column("url") == [url, URLS[1]]
    assert result.html == [html_page(0), html_page(1)]


def response_of(tmp_path: Path, block: bytes, headers: dict[str, str] | None = None, **options: object) -> Result:
    (tmp_path / "a.warc").write_bytes(warc_record(0, block, headers=headers))
    return read_file(tmp_path / "a.warc", "warc", **options)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (http_response(b"<p>x", status="404 Not Found"), "http_status"),
        (http_response(b"<p>x", status="301 Moved"), "http_status"),
        (http_response(b"%PDF", headers={"Content-Type": "application/pdf"}), "not_html"),
        (b"HTTP/1.1 200 OK\r\n\r\n\x89PNG", "not_html"),
        (b"HTTP/1.1 200 OK\r\n\r\n <html>", None),
        (http_response(b"<p>x", headers={"Content-Type": "Application/XHTML+xml"}), None),
        (http_response(b"hello", headers={"Content-Type": "text/plain"}), None),
        (b"HTTP/2 200\r\ncontent-type: text/html\r\n\r\n<p>x", None),
        (b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n<p>x", None),
    ],
)
def test_status_and_type_decide(tmp_path: Path, block: bytes, reason: str | None) -> None:
    assert response_of(tmp_path, block).reasons == [reason]


def test_a_dns_response_is_no_page_and_noise_is_quarantined(tmp_path: Path) -> None:
    assert response_of(tmp_path, b"20240101\n", {"Content-Type": "text/dns"}).reasons == ["not_html"]
    assert response_of(tmp_path, b"no status line").causes == ["bad_http"]


PAGE = html_page(5)
CHUNKED = b"".join(
    b"%x;ext=1\r\n%s\r\n" % (len(PAGE[i : i + 100]), PAGE[i : i + 100]) for i in range(0, len(PAGE), 100)
)


def deflate(data: bytes, window: int) -> bytes:
    deflater = zlib.compressobj(wbits=window)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Transfer-Encoding": "chunked"}, CHUNKED + b"0\r\n\r\n"),
        ({"Transfer-Encoding": "chunked"}, PAGE),
        ({"Content-Encoding": "gzip"}, gzip.compress(PAGE)),
        ({"Content-Encoding": "gzip"}, gzip.compress(PAGE[:50]) + gzip.compress(PAGE[50:])),
        ({"Content-Encoding": "gzip"}, PAGE),
        ({"Content-Encoding": "deflate"}, deflate(PAGE, 15)),
        ({"Content-Encoding": "deflate"}, deflate(PAGE, -15)),
        ({"Content-Encoding": "br"}, brotli.compress(PAGE)),
        ({"Content-Encoding": "zstd"}, zstandard.compress(PAGE)),
        ({"Content-Encoding": "identity"}, PAGE),
        ({"Content-Encoding": "deflate, gzip"}, gzip.compress(deflate(PAGE, 15))),
        (
            {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"},
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(gzip.compress(PAGE)), gzip.compress(PAGE)),
        ),
    ],
)
def test_encodings_are_undone_where_the_bytes_have_them(tmp_path: Path, headers: dict[str, str], body: bytes) -> None:
    assert response_of(tmp_path, http_response(body, headers=headers)).html == [PAGE]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Transfer-Encoding": "chunked"}, CHUNKED),
        ({"Transfer-Encoding": "chunked"}, CHUNKED[:-30]),
        ({"Content-Encoding": "gzip"}, gzip.compress(PAGE)[:-20]),
        ({"Content-Encoding": "gzip"}, gzip.compress(PAGE)[:20] + b"\xff\xff\xff" + gzip.compress(PAGE)[23:]),
        ({"Content-Encoding": "br"}, brotli.compress(PAGE)[:-20]),
        ({"Content-Encoding": "br"}, b"\xff" * 50),
        ({"Content-Encoding": "deflate"}, deflate(PAGE, 15)[:-20]),
        ({"Content-Encoding": "zstd"}, zstandard.compress(PAGE)[:20] + b"\xff" * 40),
    ],
)
def test_what_cannot_be_decoded_is_quarantined(tmp_path: Path, headers: dict[str, str], body: bytes) -> None:
    assert response_of(tmp_path, http_response(body, headers=headers)).causes == ["undecodable"]


def test_a_payload_that_the_crawler_cut_is_decoded_as_far_as_it_goes(tmp_path: Path) -> None:
    body = gzip.compress(b"<p>" + b"word " * 50_000)[:-30]
    block = http_response(body, headers={"Content-Encoding": "gzip"})
    result = response_of(tmp_path, block, {"WARC-Truncated": "length"})
    assert result.html[0].startswith(b"<p>word word")
    assert not result.quarantined


@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("br", brotli.compress),
        ("deflate", lambda b: deflate(b, 15)),
        ("zstd", zstandard.compress),
    ],
)
def test_a_payload_bomb_is_quarantined(tmp_path: Path, coding: str, compress: Callable[[bytes], bytes]) -> None:
    body = compress(b"<p>" + bytes(20_000_000))
    result = response_of(tmp_path, http_response(body, headers={"Content-Encoding": coding}), max_document_bytes="1MB")
    assert result.causes == ["too_large"]


def test_headers_are_folded_repeated_bracketed_and_missing(tmp_path: Path) -> None:
    block = http_response(PAGE)
    record = (
        b"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: <https://example.org/a>\r\nX-Long: one\r\n two\r\n"
        b"X-Long: three\r\nContent-Type: application/http\r\nContent-Length: %d\r\n\r\n" % len(block)
    )
    (tmp_path / "a.warc").write_bytes(record + block + b"\r\n\r\n")
    result = read_file(tmp_path / "a.warc", "warc", columns=["X-Long", "X-None"])
    assert result.column("url") == ["https://example.org/a"]
    assert result.column("date") == [None]
    assert (result.column("X-Long"), result.column("X-None")) == (["one two"], [None])
    assert len(result.ids[0]) == 32


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_conversions(tmp_path: Path, suffix: str) -> None:
    records = [
        warc_record(9, b"x", "warcinfo"),
        warc_record(0, "Text of a page\nwith café".encode(), "conversion"),
        warc_record(1, b"caf\xe9", "conversion"),
        warc_record(2, b"", "conversion"),
        warc_record(3, b"last", "conversion"),
    ]
    path = tmp_path / f"a.warc.wet{suffix}"
    path.write_bytes(b"".join(gzip.compress(record) if suffix else record for record in records))
    result = read_file(path, "wet")
    assert result.texts == ["Text of a page\nwith café", "", "last"]
    assert result.reasons == [None, "empty_text", None]
    assert result.causes == ["invalid_utf8"]
    assert result.skipped == 1
    assert result.batches[0].html is None


def test_an_empty_file_has_no_documents(tmp_path: Path) -> None:
    for name in LAYOUTS:
        (tmp_path / name).write_bytes(b"")
    assert read_file(tmp_path, "warc").records == 0


def test_a_file_that_is_no_warc_is_one_quarantined_record(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(os.urandom(3_000_000))
    result = read_file(tmp_path / "a.warc", "warc")
    assert (len(result), result.causes) == (0, ["corrupt"])


def test_real_crawls(shared_data: Path) -> None:
    result = read_file(shared_data / "warc", "warc")
    assert len(result) > 780
    assert result.reasons == [None] * len(result)
    assert not result.quarantined
    assert len(set(result.ids)) == len(result)
    assert len({(batch.source, position) for batch in result.batches for position in batch.position.tolist()}) == len(
        result
    )
    for url in result.column("url"):
        assert url.startswith("http")


def test_real_conversions(shared_data: Path) -> None:
    plain = read_file(shared_data / "warc" / "whirlwind.warc.wet", "wet")
    packed = read_file(shared_data / "warc" / "whirlwind.warc.wet.gz", "wet")
    assert plain.texts == packed.texts
    assert plain.ids == packed.ids == ["ba729a40-ff84-4085-8d48-0a5b2ee0c42d"]


WINDOW = """
import io, re, resource, sys
from filters.read.decompress import DamagedError, MemberStream
def peak():  # not ru_maxrss: it begins at what the process that started this one had
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read()).group(1))
logarithm, limit = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
before = peak()
frame = bytes([0x28, 0xB5, 0x2F, 0xFD, 0, logarithm - 10 << 3]) + (1 | 1 << 1 | 1000 << 3).to_bytes(3, "little") + b"a"
stream = MemberStream(io.BytesIO(frame + b"behind"), "a.zst")
try:
    print(len(stream.read()), end=" ")
except DamagedError as error:
    print(error.cause, end=" ")
print(peak() - before < 100_000)
"""


@pytest.mark.parametrize(
    ("logarithm", "limit", "said"),
    [
        (27, 4 << 30, "1000 True"),
        (31, 4 << 30, "1000 True"),
        (31, 1 << 30, "corrupt True"),
        (41, 4 << 30, "corrupt True"),
    ],
)
def test_a_zstd_window_takes_no_memory_that_is_not_filled(logarithm: int, limit: int, said: str) -> None:
    """16 bytes that ask for a window of up to 2 TiB, in a process with a limit."""
    command = [sys.executable, "-c", WINDOW, str(logarithm), str(limit)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == said
