"""Rules: what they keep, what NULL and NaN mean, what is refused and how the mistake is shown."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from filters.errors import ConfigError
from filters.scores.rules import LONGEST, Rule, UrlList, columns_of

COLUMNS = columns_of(["topic"], {})


@pytest.fixture
def table() -> pa.Table:
    return pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "score": pa.array([1.4, float("nan"), None, 3], pa.float32()),
            "language_score": pa.array([0.5, 0.25, 1, None], pa.float32()),
            "tokens": pa.array([10, 0, 5, None], pa.int32()),
            "bytes": pa.array([40, 4, 20, 2**40], pa.int64()),
            "position": pa.array([0, 1, 2, 3], pa.int64()),
            "language": pa.array(["en", None, "de", "en"]).dictionary_encode(),
            "url": ["http://x.org/1", None, "https://www.spam.com/a", "http://b.spam.com/"],
            "host": ["x.org", None, "spam.com", "b.spam.com"],
            "source": ["in.jsonl"] * 4,
            "topic": ["1", "x", "2.5", None],
            "cluster_size": pa.array([1, 2, 3, 4], pa.int32()),
        }
    )


def kept(where: str, table: pa.Table) -> str:
    """Ids of what a condition keeps."""
    keeps = Rule(where, None, COLUMNS).decide(table).keeps
    return "".join(name for name, keep in zip(table["id"].to_pylist(), keeps.tolist(), strict=True) if keep)


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("score >= 1.4", "ad"),  # 1.4 in float32 is less than 1.4
        ("score > 1.4", "d"),
        ("not (score < 1.4)", "ad"),
        ("score * 2 >= 2.8", "ad"),
        ("score between 1.4 and 3", "ad"),
        ("score in (1.4, 7)", "a"),
        ("greatest(score, tokens) >= 3", "acd"),
        ("SCORE > 0 AND 2 < Score", "d"),
        ("score is null", "bc"),  # NaN is NULL
        ("score > 1 or null", "ad"),
        ("score / tokens > 0", "a"),  # by zero, by NULL: NULL
        ("score / (tokens - 10) is null", "abcd"),
        ("10 % tokens = 0", "ac"),
        ("sqrt(-score) is null and ln(-1 - tokens) is null", "abcd"),
        ("ln(tokens - 7) > 0", "a"),
        ("tokens * 100000 * 100000 * 100000 > 1e15", "ac"),
        ("bytes + bytes = 2199023255552", "d"),
        ("cast(topic as double) > 1", "c"),
        ("cast(topic as int) = 3", "c"),
        ("topic::double is not null", "ac"),
        ("language = 'en' and tokens > 5", "a"),
        ("language <> 'en'", "c"),
        ("language is distinct from 'en'", "bc"),
        ("language not in ('de', 'fr')", "ad"),
        ("coalesce(language, 'xx') = 'xx'", "b"),
        ("url like '%spam%' and url not ilike '%B.SPAM%'", "c"),
        ("regexp_matches(url, '^https?://[a-z]\\.')", "ad"),
        ("starts_with(url, 'https') or ends_with(host, '.org') or contains(id, 'b')", "abc"),
        ("length(url) > 15 and lower(upper(host)) = host", "cd"),
        ("case when tokens > 5 then language = 'en' when score > 2 then true else false end", "ad"),
        ("if(score > 2, 1, 0) = 1", "d"),
        ("nullif(tokens, 5) is null", "cd"),
        ("cluster_size ^ 2 = 9 and abs(-position) = 2 and round(2.46, 1) = 2.5", "c"),
        ("true", "abcd"),
        ("topic = 'it''s' or source = 'in.jsonl' -- a remark", "abcd"),
        ("\"topic\" = 'x' /* and so on */", "b"),
        ("(" * 200 + "tokens > 5" + ")" * 200, "a"),
    ],
)
def test_what_a_condition_keeps(where: str, ids: str, table: pa.Table) -> None:
    assert kept(where, table) == ids


def test_a_number_to_rank_by_is_nan_where_it_is_null(table: pa.Table) -> None:
    values = Rule(None, "score * tokens", COLUMNS).decide(table).values
    assert values is not None
    assert values.dtype == np.float32
    assert values[0] == np.float32(14)
    assert np.isnan(values[1:]).all()
    huge = Rule(None, "exp(1000 * tokens) - 1", COLUMNS).decide(table).values
    assert huge is not None
    assert np.isnan(huge[0])
    assert huge[1] == 0


def test_parts_are_counted_by_themselves(table: pa.Table) -> None:
    rule = Rule("tokens >= 5 and language = 'en' and (score > 1 or draw(id) < 0)", None, COLUMNS)
    decided = rule.decide(table)
    assert rule.parts == ("tokens >= 5", "language = 'en'", "score > 1 or draw(id) < 0")
    assert decided.held == [2, 2, 2]
    assert decided.keeps.tolist() == [True, False, False, False]
    assert rule.columns == ("tokens", "language", "score", "id")
    empty = rule.decide(table.slice(0, 0))
    assert len(empty.keeps) == 0
    assert empty.held == [0, 0, 0]


def test_a_draw_follows_from_the_text_alone() -> None:
    ids = [f"<urn:{n}>" for n in range(20_000)]
    table = pa.table({"id": ids})
    drawn = Rule(None, "draw(id)", COLUMNS).decide(table).values
    other = Rule(None, "draw(id, 7)", COLUMNS).decide(table).values
    assert drawn is not None
    assert other is not None
    expected = [int.from_bytes(hashlib.md5(name.encode()).digest()[8:], "little") >> 11 for name in ids[:50]]
    assert drawn[:50].tolist() == np.array(expected, np.float64).__truediv__(2.0**53).astype(np.float32).tolist()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(float(drawn.mean()) - 0.5) < 0.02
    assert abs(float(np.corrcoef(drawn, other)[0, 1])) < 0.05
    keeps = Rule("draw(id) < 0.25", None, COLUMNS).decide(table).keeps
    assert np.array_equal(keeps, Rule("draw(id) < 0.25", None, COLUMNS).decide(table.slice(0)).keeps)
    assert 4700 < keeps.sum() < 5300


def test_lists_hold_addresses_and_hosts(tmp_path: Path, table: pa.Table) -> None:
    path = tmp_path / "it's a list.txt"
    path.write_text("# bad\n\nSPAM.com\nhttp://x.org/1\nhttps://nowhere.org/2\n", encoding="utf-8-sig")
    quoted = str(path).replace("'", "''")
    assert kept(f"url_in('{quoted}')", table) == "acd"
    assert kept(f"not url_in('{quoted}')", table) == "b"  # what has no address is in no list
    assert Rule(f"url_in('{quoted}')", None, COLUMNS).lists == (str(path),)
    assert UrlList.read(str(path)).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ConfigError, match=r"nowhere.txt: cannot read this list: No such file"):
        kept("url_in('nowhere.txt')", table)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="no text in UTF-8"):
        kept(f"url_in('{quoted}')", table)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "keep.where: is empty"),
        ("scor >= 1.5 and tokens > 3", "no column 'scor'; did you mean 'score'?"),
        ("tokens > 3 and\n  langage = 'en'", "did you mean 'language'"),
        ("\"x y\" = 'a'", "no column 'x y'"),
        ("run.score > 1", "no column 'run.score'"),
        ("score", "is a number, where a condition is needed"),
        ("'en'", "is text, where a condition is needed"),
        ("tokens > 3 and score", "is a number, where a condition is needed"),
        ("null", "is NULL for every document"),
        ("1 = 2", "is never true"),
        ("score > 1 and false", "is never true"),
        ("reason = 'low_score'", "reason says what was decided"),
        ("score > '1.5'", "is text, beside a number"),
        ("language > 3", "is a number, beside text"),
        ("language + 1 > 3", "is text, where a number is needed"),
        ("lower(score) = 'a'", "is a number, where text is needed"),
        ("score > 1e999", "too large a number"),
        ("score / 0 > 1", "division by zero"),
        ("score % (2 - 2) > 1", "division by zero"),
        ("score > 3 and tokens > 5 and score < 2", "contradicts 'score > 3'"),
        ("score > 3 and 3 >= score", "contradicts 'score > 3'"),
        ("score = 2 and score between 3 and 4", "contradicts 'score = 2'"),
        ("score >", "ends before it is complete"),
        ("(score > 1", "ends before it is complete"),
        ("score > 1)", "ends before it is complete"),
        ("score >= 1.5 et tokens > 3", "syntax error"),
        ("round(score, 1.5) > 1", "whole number from -15 to 15"),
        ("draw() < 0.5", "takes 1 or 2 argument"),
        ("draw('a') < 0.5", "draw takes a column"),
        ("draw(id, 0.5) < 0.5", "a whole number"),
        ("url_in(url)", "the name of a file"),
        ("rond(score) > 1", "did you mean round?"),
        ("regexp_matches(url, host)", "is a text constant"),
        ("regexp_matches(url, '(')", "is no regular expression"),
        ("cast(score as varchar) = '1'", "a cast to 'varchar' is not allowed"),
        ("not " * 500 + "true", "nested too deeply"),
        ("1 + " * 900 + "score > 1", "nested too deeply"),
        ("abs(" * 3000 + "score" + ")" * 3000 + " > 1", "nested too deeply"),
        ("score" + " / (1 / (2 / tokens" * 12 + "))" * 12 + " > 1", "nested too deeply"),
        ("score > 1" + " " * LONGEST, "20,000 at most"),
    ],
)
def test_what_is_no_condition_is_refused(where: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rule(where, None, COLUMNS)
    assert message in str(caught.value)
    assert str(caught.value).startswith("keep.where: ")


def test_the_mistake_is_marked() -> None:
    with pytest.raises(ConfigError) as caught:
        Rule("tokens > 3 and -- ä\n  langage = 'dä' or scor > 1", None, COLUMNS)
    assert str(caught.value).splitlines()[1:] == ["    langage = 'dä' or scor > 1", "    ^^^^^^^"]
    with pytest.raises(ConfigError) as caught:
        Rule("language = 'ä' and scor > 1", None, COLUMNS)
    assert str(caught.value).splitlines()[1:] == ["  language = 'ä' and scor > 1", " " * 21 + "^^^^"]


@pytest.mark.parametrize("by", ["score > 1", "language", "5", "count(score)", "score, tokens", "tokens / 0"])
def test_what_is_no_number_is_refused(by: str) -> None:
    with pytest.raises(ConfigError, match=r"keep\.by: "):
        Rule(None, by, COLUMNS)


def test_a_threshold_beside_the_condition_must_not_contradict_it() -> None:
    with pytest.raises(ConfigError, match="contradicts 'min_score 2'"):
        Rule("tokens > 5 and score < 1", None, COLUMNS, min_score=2.0)
    assert Rule("score < 3", None, COLUMNS, min_score=2.0).parts == ("score < 3",)


@pytest.mark.parametrize(
    "attack",
    [
        "read_csv('/etc/passwd') is not null",
        "(select count(*) from read_csv('/etc/passwd')) > 0",
        "(FROM '/etc/passwd') is not null",
        "exists (from '/etc/passwd')",
        "score in (select 1)",
        "score = any (select 1)",
        "1) FROM read_parquet('/etc/passwd') WHERE (true",
        "1) FROM '/etc/passwd' --",
        "true) FROM batch; COPY (SELECT 1) TO '/tmp/x'; SELECT (true",
        "score > 1; DROP TABLE batch",
        "true), (false",
        "true) UNION ALL SELECT (true",
        "true) AS x, (read_blob('/etc/passwd') IS NULL",
        "true) ORDER BY (1",
        "true) LIMIT (SELECT 1",
        "true) QUALIFY (row_number() OVER () = 1",
        "read_text('/etc/passwd') = ''",
        "glob('/etc/*') = ''",
        "getenv('HOME') = '/root'",
        "getvariable('x') = 'y'",
        "current_setting('threads') = '1'",
        "current_user = 'duckdb'",
        "current_date > '2020-01-01'",
        "pragma_version() = ''",
        "PRAGMA database_list",
        "SET enable_external_access = true",
        "ATTACH '/tmp/x.db'",
        "COPY (SELECT 1) TO '/tmp/x'",
        "INSTALL httpfs",
        "LOAD '/tmp/x.so'",
        "EXPORT DATABASE '/tmp/x'",
        "CALL pragma_version()",
        "random() < 0.5",
        "nextval('s') > 1",
        "uuid() = ''",
        "now() is null",
        "error('x') is null",
        "query('select 1') is null",
        "count(*) > 1",
        "sum(score) filter (where true) > 1",
        "avg(score) over () < score",
        "row_number() over () < 10",
        "main.lower(language) = 'en'",
        "system.main.lower(language) = 'en'",
        "list_transform([1], x -> x)[1] = 1",
        "[score][1] > 1",
        "{'a': score}.a > 1",
        "$1 > 2",
        "? > 2",
        "columns('.*') > 1",
        "* > 1",
        "score::json is null",
        "cast(url as blob) is null",
        "date '2020-01-01' is null",
        "interval 1 day is null",
        "url collate nocase = 'x'",
        "regexp_matches(url, '(a{1000}){1000}')",
        "regexp_matches(url, repeat('(a|b)', 1000))",
        "repeat('x', 1000000000) = url",
        "lower(distinct url) = 'x'",
        "lower(url order by url) = 'x'",
        "lower(string := url) = 'x'",
        "unnest([1, 2]) = 1",
        "url = chr(0)",
        "\0 = 1",
        "url = E'\\0'",
    ],
)
def test_a_rule_reaches_nothing_but_its_columns(attack: str) -> None:
    with pytest.raises(ConfigError):
        Rule(attack, None, COLUMNS)


def test_the_database_is_locked(table: pa.Table) -> None:
    """What DuckDB runs is written anew; were something forgotten, there is nothing it could reach."""
    import duckdb

    from filters.scores import rules

    connection = rules._connection()
    secret = Path(__file__)
    for statement in (
        f"SELECT * FROM read_csv('{secret}')", f"SELECT * FROM read_text('{secret}')", f"FROM '{secret}'",
        f"COPY (SELECT 1) TO '{secret}.x'", f"ATTACH '{secret}.db'", "INSTALL httpfs", "SET threads = 4",
        "SET enable_external_access = true", "RESET lock_configuration", f"SELECT * FROM glob('{secret.parent}/*')",
        "FROM table",
    ):  # fmt: skip
        with pytest.raises(duckdb.Error):
            connection.execute(statement).fetchall()
    assert not Path(f"{secret}.x").exists()
    assert connection.execute("SELECT current_setting('threads')").fetchall() == [(1,)]


def test_a_rule_may_be_as_long_as_it_is_flat() -> None:
    hosts = ", ".join(f"'host-{n}.org'" for n in range(1000))
    table = pa.table({"host": ["host-7.org", "host-1000.org", None]})
    assert Rule(f"host in ({hosts})", None, COLUMNS).decide(table).keeps.tolist() == [True, False, False]
    assert not math.isnan(Rule(None, " + ".join(["length(host)"] * 40), COLUMNS).decide(table).values[0])  # type: ignore[index]
