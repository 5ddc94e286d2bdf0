"""The tables of the answer store."""

from __future__ import annotations

from filters.annotate.records import Answer

FORMAT = 2
"""`user_version` of the SQLite file; raised whenever a table changes."""
RAISE = {1: "ALTER TABLE answers ADD COLUMN text_cut INTEGER"}
"""What makes a store of an earlier format one of the next: its answers were paid for."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    document INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, id TEXT, url TEXT, source TEXT, position INTEGER,
    language TEXT, columns TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS samples (
    sample INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, description TEXT NOT NULL, complete INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS draws (
    place INTEGER PRIMARY KEY, sample INTEGER NOT NULL, document INTEGER NOT NULL, probability REAL NOT NULL,
    design TEXT NOT NULL, stratum TEXT, UNIQUE (sample, document));
CREATE TABLE IF NOT EXISTS rubrics (
    rubric INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, name TEXT NOT NULL, version TEXT NOT NULL,
    content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS judges (
    judge INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, model TEXT NOT NULL,
    settings TEXT NOT NULL, logprobs INTEGER);
CREATE TABLE IF NOT EXISTS answers (
    judge INTEGER NOT NULL, rubric INTEGER NOT NULL, document INTEGER NOT NULL, repeat INTEGER NOT NULL,
    status TEXT NOT NULL, cause TEXT, score REAL, expected REAL, entropy REAL, coverage REAL, distribution TEXT,
    attributes TEXT, raw TEXT NOT NULL, mode TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, cost REAL NOT NULL, seconds REAL NOT NULL,
    attempts INTEGER NOT NULL, time REAL NOT NULL, text_cut INTEGER);
CREATE UNIQUE INDEX IF NOT EXISTS answered ON answers (judge, rubric, document, repeat);
CREATE INDEX IF NOT EXISTS rejected ON answers (judge, rubric, cause) WHERE status = 'rejected';
CREATE TABLE IF NOT EXISTS failures (
    judge INTEGER NOT NULL, rubric INTEGER NOT NULL, document INTEGER NOT NULL, repeat INTEGER NOT NULL,
    cause TEXT NOT NULL, attempts INTEGER NOT NULL, time REAL NOT NULL,
    PRIMARY KEY (judge, rubric, document, repeat)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    run INTEGER PRIMARY KEY, started REAL NOT NULL, ended REAL, outcome TEXT, config TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS spending (
    run INTEGER NOT NULL, judge INTEGER NOT NULL, requests INTEGER NOT NULL, tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL, cost REAL NOT NULL, PRIMARY KEY (run, judge)) WITHOUT ROWID;
"""

ANSWER_COLUMNS = tuple(Answer.__dataclass_fields__)
JSON_COLUMNS = ("distribution", "attributes")
INSERT_ANSWER = (
    f"INSERT OR REPLACE INTO answers (judge, rubric, time, {', '.join(ANSWER_COLUMNS)}) "  # noqa: S608
    f"VALUES (?, ?, ?, {', '.join('?' * len(ANSWER_COLUMNS))})"
)
SELECT_ANSWERS = (
    f"SELECT j.name, {', '.join('a.' + name for name in ANSWER_COLUMNS)} FROM answers a JOIN judges j USING (judge) "  # noqa: S608
    "WHERE rubric = ?1 AND (?2 IS NULL OR document IN (SELECT document FROM draws WHERE sample = ?2)) "
    "ORDER BY document, judge, repeat"
)
