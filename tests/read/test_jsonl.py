from __future__ import annotations

import gzip
import itertools
import json
import random
import tracemalloc
import zlib
from pathlib import Path

import pytest
import zstandard
from synthetic import COMPRESS, json_lines, read_file

from filters import FilterConfig, run_filter
from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.read.jsonl import check_keys
from filters.read.units import plan_units, read_unit
from tests.run.conftest import digest, page


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("count", [1, 999, 2500])
def test_reads_every_line_in_order(tmp_path: Path, suffix: str, count: int) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](json_lines(count)))
    result = read_file(path, "jsonl", id_key="id")
    assert result.ids == [f"doc-{row}" for row in range(count)]
    assert result.positions == list(range(1, count + 1))
    assert result.reasons == [None] * count
    assert not result.quarantined
    assert sum(batch.input_bytes for batch in result.batches) == path.stat().st_size


@pytest.mark.parametrize("suffix", COMPRESS)
def test_an_empty_file_has_no_documents(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.jsonl{suffix}").write_bytes(COMPRESS[suffix](b""))
    (tmp_path / f"b.jsonl{suffix}").write_bytes(b"")
    assert read_file(tmp_path, "jsonl").records == 0


def test_the_last_line_needs_no_newline_and_the_first_may_follow_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n{"text": "two"}')
    assert read_file(tmp_path / "a.jsonl", "jsonl").texts == ["one", "two"]


BAD_LINES = {
    b"": "blank_line",
    b"  \t\r": "blank_line",
    b'{"other": 1}': "missing_text",
    b'{"text": null}': "missing_text",
    b'{"text": ""}': "empty_text",
    '{"text": " \u2003\\n"}'.encode(): "empty_text",
}
REFUSED_LINES = {
    b'{"text": "cut': "bad_json",
    b'{"text": NaN}': "bad_json",
    b'{"text": "\\ud800"}': "bad_json",
    b'["text"]': "not_an_object",
    b'"text"': "not_an_object",
    b"17": "not_an_object",
    b'{"text": 17}': "text_not_a_string",
    b'{"text": ["a"]}': "text_not_a_string",
    b'{"text": "caf\xe9"}': "invalid_utf8",
    b"\xff": "invalid_utf8",
    b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}": "bad_json",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_line_without_text_is_a_document_with_a_reason(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    result = read_file(tmp_path / "a.jsonl", "jsonl")
    assert result.texts[0] == "before"
    assert result.texts[2] == "after"
    assert result.reasons == [None, BAD_LINES[line], None]
    assert len(set(result.ids)) == 3


@pytest.mark.parametrize("line", REFUSED_LINES, ids=list(REFUSED_LINES.values()))
def test_a_line_that_cannot_be_a_document_costs_only_itself(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    result = read_file(tmp_path / "a.jsonl", "jsonl")
    assert result.texts == ["before", "after"]
    assert result.positions == [1, 3]
    assert result.causes == [REFUSED_LINES[line]]
    assert result.quarantined[0].position == 2
    assert result.quarantined[0].first_bytes == line[:200]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
def test_truncated_file_keeps_what_is_whole(tmp_path: Path, suffix: str) -> None:
    data = b"".join(COMPRESS[suffix](json_lines(500)) for _ in range(4))
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(data[: len(data) - len(data) // 8])
    result = read_file(path, "jsonl")
    assert len(result) >= 1500
    assert result.texts[:1500] == 3 * result.texts[:500]
    assert result.causes == ["truncated"]
    assert "how many records follow is unknown" in result.quarantined[0].cause
    assert result.quarantined[0].position == len(result) + 1


def test_truncated_gzip_is_read_up_to_the_last_line_it_holds(tmp_path: Path) -> None:
    lines = json_lines(2000, words=3)
    whole = gzip.compress(lines)
    cut = whole[: len(whole) // 2]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(cut)
    held = zlib.decompressobj(31).decompress(cut)
    assert len(read_file(path, "jsonl")) == held.count(b"\n")


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
def test_damage_in_a_later_member_keeps_the_earlier_ones(tmp_path: Path, suffix: str) -> None:
    first = COMPRESS[suffix](json_lines(700))
    second = bytearray(COMPRESS[suffix](json_lines(700)))
    second[len(second) // 3] ^= 0xFF
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(first + bytes(second))
    result = read_file(path, "jsonl")
    assert len(result) >= 700
    assert result.causes[-1] == "corrupt"


def test_garbage_behind_a_gzip_member_is_quarantined_and_padding_is_not(tmp_path: Path) -> None:
    data = gzip.compress(json_lines(3))
    (tmp_path / "a.jsonl.gz").write_bytes(data + b"garbage that is no member")
    (tmp_path / "b.jsonl.gz").write_bytes(data + b"\0" * 700)
    assert read_file(tmp_path / "a.jsonl.gz", "jsonl").causes == ["corrupt"]
    padded = read_file(tmp_path / "b.jsonl.gz", "jsonl")
    assert (len(padded), padded.causes) == (3, [])


def test_a_wrong_checksum_is_reported(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(json_lines(50)))
    data[-6] ^= 1
    (tmp_path / "a.jsonl.gz").write_bytes(bytes(data))
    result = read_file(tmp_path / "a.jsonl.gz", "jsonl")
    assert len(result) == 50
    assert result.causes == ["corrupt"]
    assert "incorrect data check" in result.quarantined[0].cause


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_bomb_is_refused_in_bounded_memory(tmp_path: Path, suffix: str) -> None:
    limit = 4 << 20
    bomb = b'{"text": "' + b"a" * (64 << 20) + b'"}\n'
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](b'{"text": "before"}\n' + bomb + b'{"text": "after"}\n'))
    del bomb
    tracemalloc.start()
    result = read_file(path, "jsonl", max_document_bytes=limit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.texts == ["before", "after"]
    assert result.causes == ["too_large"]
    assert result.positions == [1, 3]
    assert peak < 48 << 20


def test_a_document_of_50_mb_is_read(tmp_path: Path) -> None:
    text = "forty-two bytes of text in a long document " * (50_000_000 // 43)
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(json.dumps({"text": text}).encode() + b'\n{"text": "after"}\n'))
    result = read_file(path, "jsonl")
    assert len(result.texts[0]) == len(text)
    assert result.texts[1] == "after"


def test_batches_end_at_a_size_of_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(b'{"text": "%s"}\n' % (b"x" * 5_000_000) for _ in range(20)))
    assert [len(batch) for batch in read_file(path, "jsonl").batches] == [7, 7, 6]


def test_ids_are_given_or_derived_from_source_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text":"a","id":7}\n{"text":"b","id":null}\n{"text":"c"}\n{"text":"d","id":{"x":1}}\n')
    given = read_file(path, "jsonl", id_key="id").ids
    derived = read_file(path, "jsonl").ids
    assert given[0] == "7"
    assert given[1:] == derived[1:]
    assert all(len(value) == 32 and set(value) <= set("0123456789abcdef") for value in derived)
    assert len(set(derived)) == 4
    other = tmp_path / "b.jsonl"
    other.write_bytes(path.read_bytes())
    assert not set(read_file(other, "jsonl").ids) & set(derived)


def test_pass_through_columns_have_one_type_whatever_the_rows_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    path.write_bytes(
        b'{"text":"a","n":1,"url":"u"}\n{"text":"b","n":"two"}\n{"text":"c","n":{"x":[1.5]}}\n{"text":"d","n":'
        + deep
        + b"}\n"
    )
    result = read_file(path, "jsonl", columns=["n"])
    assert result.column("n") == ["1", "two", '{"x":[1.5]}', None]
    assert result.column("url") == ["u", None, None, None]


def test_text_key_names_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"content": "a", "text": 3}\n')
    assert read_file(tmp_path / "a.jsonl", "jsonl", text_key="content").texts == ["a"]


def test_compression_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(json_lines(5)))
    (tmp_path / "b.jsonl.gz").write_bytes(json_lines(5))
    assert len(read_file(tmp_path, "jsonl")) == 10


def test_a_file_that_may_not_be_read_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json_lines(1))
    config = InputConfig(kind="jsonl", paths=(str(path),))
    (unit,) = plan_units(config)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.jsonl"):
        list(read_unit(unit, config))


def test_integers_of_any_size_stay_what_they_are(tmp_path: Path) -> None:
    numbers = ["18446744073709551615", "18446744073709551616", "-9223372036854775809", "9" * 40, "1" * 300, "1e30"]
    lines = [
        f'{{"text": "t", "id": {digits}, "n": {digits}, "deep": {{"a": [{digits}, "1e99"], "f": 2.5}}}}'
        for digits in numbers
    ]
    expected = [*numbers[:-1], "1e+30"]
    for extra in ([], ["no json"]):  # read at once, and line by line
        path = tmp_path / "a.jsonl"
        path.write_text("\n".join([*lines, *extra]))
        result = read_file(path, "jsonl", id_key="id", columns=["n", "deep"])
        assert result.ids == expected
        assert result.column("n") == expected
        assert result.column("deep") == [f'{{"a":[{digits},"1e99"],"f":2.5}}' for digits in expected]


def test_a_byte_order_mark_on_any_line_is_none_of_it(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n' + mark + b'{"text": "two"}\n' + mark + b"\n" + mark)
    result = read_file(tmp_path / "a.jsonl", "jsonl")
    assert result.texts[:2] == ["one", "two"]
    assert result.reasons == [None, None, "blank_line", "blank_line"]
    assert not result.quarantined


def split_into(monkeypatch: pytest.MonkeyPatch, unit_bytes: int, counted: int = 1 << 20) -> None:
    monkeypatch.setattr("filters.read.jsonl.BYTES_PER_UNIT", unit_bytes)
    monkeypatch.setattr("filters.read.jsonl.SPLIT_FILES", 1 << 40)
    monkeypatch.setattr("filters.read.jsonl._COUNTED", counted)


def everything(path: Path) -> tuple[object, ...]:
    found = read_file(path, "jsonl", id_key="id", columns=["n"], max_document_bytes=300)
    records = [(record.position, record.cause, record.first_bytes) for record in found.quarantined]
    read = sum(batch.input_bytes for batch in found.batches)
    return found.ids, found.positions, found.texts, found.reasons, found.column("n"), records, read


LINES = [
    *BAD_LINES,
    *REFUSED_LINES,
    b'{"text": "a line", "id": "one", "n": 1}\r',
    b'\xef\xbb\xbf{"text": "with a mark"}',
    b'{"text": "' + b"long " * 50 + b'"}',
    b'{"text": "' + b"too large " * 50 + b'"}',
    b'{"text": "", "n": [1, 2]}' * 20,
    b"\x1f\x8b\x08\x00 looks compressed",
    b"BZh91AY&SY looks compressed",
]


@pytest.mark.parametrize("seed", range(20))
def test_a_file_read_in_ranges_gives_what_it_gives_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    lines = [b'{"text": "first"}', *(draw.choice(LINES) for _ in range(draw.randrange(1, 60)))]
    path = tmp_path / "a.jsonl"
    path.write_bytes(draw.choice([b"", b"\xef\xbb\xbf"]) + b"\n".join(lines) + draw.choice([b"", b"\n", b"\n\n"]))
    whole = everything(path)
    assert len(plan_units(InputConfig(kind="jsonl", paths=(str(path),)))) == 1
    size = path.stat().st_size
    for unit_bytes in {1, 2, size - 1, size // 2, *(draw.randrange(1, size) for _ in range(12))}:
        split_into(monkeypatch, unit_bytes, draw.choice([1, 7, 64, 1 << 20]))
        units = plan_units(InputConfig(kind="jsonl", paths=(str(path),)))
        assert everything(path) == whole
        assert [unit.offset for unit in units] == [*itertools.accumulate((unit.size for unit in units[:-1]), initial=0)]  # type: ignore[arg-type]
        assert sum(unit.size or 0 for unit in units) == size
        assert [unit.stop for unit in units[:-1]] == [unit.start for unit in units[1:]]
        assert [unit.is_first for unit in units] == [True] + [False] * (len(units) - 1)
        assert len(units) > 1 or unit_bytes > size // 2


@pytest.mark.parametrize("name", ["a.jsonl.gz", "plain-name.jsonl"])
def test_a_compressed_file_is_not_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    split_into(monkeypatch, 100)
    (tmp_path / name).write_bytes(gzip.compress(json_lines(500)))
    (unit,) = plan_units(InputConfig(kind="jsonl", paths=(str(tmp_path / name),)))
    assert unit.offset is None
    assert len(read_file(tmp_path / name, "jsonl")) == 500


def test_files_are_split_where_they_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split_into(monkeypatch, 1000)
    monkeypatch.setattr("filters.read.jsonl.SPLIT_FILES", 4)
    for number in range(8):
        (tmp_path / f"{number}.jsonl").write_bytes(json_lines(20))
    (tmp_path / "8.jsonl").write_bytes(json_lines(200))
    units = plan_units(InputConfig(kind="jsonl", paths=(str(tmp_path),)))
    assert [unit.offset for unit in units[:8]] == [None] * 8
    assert len(units) > 20


@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_over_ranges_publishes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr("filters.run.engine.threads_will_do", lambda config: True)
    lines = [json.dumps({"text": page(n % 150, 60), "id": f"{n % 170}"}).encode() for n in range(200)]
    for place in (0, 50, 120):
        lines.insert(place, b"{broken")
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "b.jsonl").write_bytes(b"\n".join(lines[100:150]))

    def run(name: str) -> dict[str, str]:
        sections = {
            "input": {"kind": "jsonl", "paths": [str(tmp_path / "?.jsonl")], "id_key": "id"},
            "keep": {"fraction": 0.6},
            "output": {"path": str(tmp_path / name), "shard_size": 20_000, "rejected": True},
            "executor": {"workers": workers},
        }
        result = run_filter(FilterConfig.model_validate(sections))
        accounts = result.ledger.accounts
        assert [account.records for account in accounts.values()] == [203, 50]
        return digest(result.path / "data") | digest(result.path / "attributes")

    whole = run("whole")
    split_into(monkeypatch, 5000)
    assert run("split") == whole


def test_a_key_that_no_record_has_is_an_error_and_one_of_few_records_a_notice(tmp_path: Path) -> None:
    def told(**options: object) -> list[str]:
        config = InputConfig.model_validate({"kind": "jsonl", "paths": [str(tmp_path)], **options})
        notices: list[str] = []
        check_keys(plan_units(config), [config], notices.append)
        return notices

    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a", "licence": 1}\nno json\n17\n{"text": "b", "rare": null}\n')
    assert told(columns=["licence", "rare"]) == []
    with pytest.raises(InputError, match=r"a\.jsonl: no record .* key 'license'; did you mean 'licence'\?"):
        told(columns=["license"])
    with pytest.raises(InputError, match="'uid'"):
        told(id_key="uid")
    (tmp_path / "b.jsonl").write_bytes(json_lines(3000))
    (notice,) = told(columns=["license"])
    assert "none of the first records of this input has the key 'license'; did you mean 'licence'?" in notice
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "b.jsonl").write_bytes(b"")
    assert told(columns=["license"]) == []
