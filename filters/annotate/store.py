"""The answer store: one SQLite file that holds documents, draws, rubrics, judges and every answer that was paid for.

One row per (judge, rubric digest, text digest, repeat): whoever asks again finds the answer and does not pay twice. An
answer that could not be read is kept too, with its cause; a request that brought no answer is a row in `failures`, and
the next run asks again. Writes are transactions in WAL mode, so a killed run leaves a store that opens.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from operator import add, sub
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from filters.annotate.rubric import Rubric, Scale
from filters.errors import AnnotationsError
from filters.storage.files import LockedError, locked

Design = Literal["random", "stratified", "active"]
Kind = Literal["model", "human"]
Status = Literal["ok", "rejected"]


@dataclass(frozen=True, slots=True)
class Document:
    """A document to annotate.

    Attributes:
        text: the page.
        probability: that the sampling design drew this document, in (0, 1]; its inverse is the natural weight.
        design: how it was drawn; "active" documents more often the more they looked like what was preferred.
        stratum: of a stratified design.
        columns: further columns of the input, JSON values.
    """

    text: str
    id: str | None = None
    url: str | None = None
    source: str | None = None
    position: int | None = None
    language: str | None = None
    probability: float = 1.0
    design: Design = "random"
    stratum: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a judge said about a document, read or rejected.

    Attributes:
        document: number in the store.
        repeat: from 0.
        status: "ok", or "rejected": paid for, kept, and without a score.
        cause: why it was rejected, one word of snake case.
        score: the judge's score: the mode of its distribution, or what it wrote; of a reward model, rounded.
        expected: mean of the distribution, or the score.
        entropy: of the distribution, in nats; None where there is none.
        coverage: probability the server's candidates gave to the scale before renormalising; None as above.
        distribution: probability of each value of the scale, ascending; with attributes, one such list for each.
        attributes: expected score of each attribute.
        raw: the answer as it came.
        mode: the mode it was read in; "sample" where a server had no log-probabilities for `expected`.
        tokens_in: tokens of the prompt as the server counted them, else an upper bound.
        cost: money.
        seconds: from sending to the last byte, of the attempt that succeeded.
        attempts: requests it took.
        text_cut: characters of the page that were shown where it was cut; None: all of it.
    """

    document: int
    repeat: int
    status: Status
    raw: str
    cause: str | None = None
    score: float | None = None
    expected: float | None = None
    entropy: float | None = None
    coverage: float | None = None
    distribution: Any = None
    attributes: dict[str, float] | None = None
    mode: str = "expected"
    model: str = ""
    endpoint: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    attempts: int = 1
    text_cut: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that brought no answer, after all retries. The next run asks again."""

    document: int
    repeat: int
    cause: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Spending:
    """What requests cost, answered or not; a request whose fate is unknown counts with its upper bound."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0

    def __add__(self, other: Spending) -> Spending:
        return Spending(*map(add, astuple(self), astuple(other)))

    def __sub__(self, other: Spending) -> Spending:
        return Spending(*map(sub, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class JudgeRecord:
    """A judge in the store.

    Attributes:
        logprobs: candidates per token its servers give: 0: none; None: not known yet.
    """

    number: int
    name: str
    kind: Kind
    model: str
    settings: dict[str, Any]
    logprobs: int | None

    @property
    def answers_in(self) -> str:
        """The mode in which it answers: `sample` where its servers have no log-probabilities; "" if unknown."""
        return "sample" if self.logprobs == 0 else str(self.settings.get("mode", ""))


@dataclass(frozen=True, slots=True)
class RubricRecord:
    """A rubric in the store, with the number of answers under it."""

    number: int
    rubric: Rubric
    digest: str
    answers: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A document that a judge has not fully answered, the place of its draw, and which repeats are missing."""

    place: int
    document: int
    text: str
    repeats: tuple[int, ...]


BUSY_SECONDS = 30.0
LAST = 2**62

FORMAT = 2
"""`user_version` of the SQLite file; raised whenever a table changes."""
RAISE = {1: "ALTER TABLE answers ADD COLUMN text_cut INTEGER"}
"""What makes a store of an earlier format one of the next: its answers were paid for."""

SCHEMA = """
CREATE TABLE documents (
    document INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, id TEXT, url TEXT, source TEXT, position INTEGER,
    language TEXT, columns TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE samples (
    sample INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, description TEXT NOT NULL, complete INTEGER NOT NULL);
CREATE TABLE draws (
    place INTEGER PRIMARY KEY, sample INTEGER NOT NULL, document INTEGER NOT NULL, probability REAL NOT NULL,
    design TEXT NOT NULL, stratum TEXT, UNIQUE (sample, document));
CREATE TABLE rubrics (
    rubric INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, name TEXT NOT NULL, version TEXT NOT NULL,
    content TEXT NOT NULL);
CREATE TABLE judges (
    judge INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, model TEXT NOT NULL,
    settings TEXT NOT NULL, logprobs INTEGER);
CREATE TABLE answers (
    judge INTEGER NOT NULL, rubric INTEGER NOT NULL, document INTEGER NOT NULL, repeat INTEGER NOT NULL,
    status TEXT NOT NULL, cause TEXT, score REAL, expected REAL, entropy REAL, coverage REAL, distribution TEXT,
    attributes TEXT, raw TEXT NOT NULL, mode TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, cost REAL NOT NULL, seconds REAL NOT NULL,
    attempts INTEGER NOT NULL, time REAL NOT NULL, text_cut INTEGER);
CREATE UNIQUE INDEX answered ON answers (judge, rubric, document, repeat);
CREATE INDEX rejected ON answers (judge, rubric, cause) WHERE status = 'rejected';
CREATE TABLE failures (
    judge INTEGER NOT NULL, rubric INTEGER NOT NULL, document INTEGER NOT NULL, repeat INTEGER NOT NULL,
    cause TEXT NOT NULL, attempts INTEGER NOT NULL, time REAL NOT NULL,
    PRIMARY KEY (judge, rubric, document, repeat)) WITHOUT ROWID;
CREATE TABLE runs (
    run INTEGER PRIMARY KEY, started REAL NOT NULL, ended REAL, outcome TEXT, config TEXT NOT NULL);
CREATE TABLE spending (
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

KEEP_RUBRIC = Rubric(
    name="keep",
    version="1",
    scale=Scale(min=0, max=1),
    label="Keep",
    prompt="Would you keep this page for training a language model? 1: keep, 0: drop.",
)
"""What a human answers in `Store.record_keep`."""


def text_digest(text: str) -> bytes:
    """16 bytes of blake2b of the text as UTF-8."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _digest(description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


class Store:
    """An open store. One process writes answers at a time (`writing`); any number may read meanwhile.

    Args:
        path: the SQLite file.
        create: make it if it is not there.

    Raises:
        AnnotationsError: it is not there, is no store, or was written by a newer finesieve.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise AnnotationsError(f"{path}: no such store. Remedy: run finesieve annotate first, or check `store`")
        try:
            if create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            self._open()
        except (sqlite3.DatabaseError, OSError) as error:
            raise AnnotationsError(
                f"{path}: cannot open this answer store: {error}. Remedy: name another file in `store`, or restore it"
            ) from error

    def _open(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version not in (0, FORMAT, *RAISE) or (version == 0 and tables):
            self._db.close()
            raise AnnotationsError(
                f"{self.path}: not an answer store of this finesieve (format {version}, known is {FORMAT}). "
                "Remedy: name another file in `store`, or update finesieve"
            )
        # Without WAL a reader would wait for the run; NORMAL survives a killed process, and of a power failure the
        # last few answers are lost, never the store.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if not tables:
            self._db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")
            return
        for older in range(version, FORMAT):
            self._db.executescript(f"BEGIN IMMEDIATE; {RAISE[older]}; PRAGMA user_version = {older + 1}; COMMIT;")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to ask judges: two runs on one store would pay twice.

        Raises:
            AnnotationsError: another process holds it.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path.with_name(self.path.name + "-lock")))
            except LockedError as error:
                who = f" ({error})" if str(error) else ""
                raise AnnotationsError(
                    f"{self.path}: another run is annotating into this store{who}. Remedy: wait for it, or use another "
                    "store"
                ) from None
            yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise AnnotationsError(f"{self.path}: cannot write to the answer store: {error}") from error
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _one(self, query: str, *values: Any) -> Any:
        """The first row of an answer, or None."""
        return self._db.execute(query, values).fetchone()

    # --- documents and samples

    def find_sample(self, description: dict[str, Any]) -> int | None:
        """Number of the completely drawn sample of this description (input and design); None: there is none."""
        row = self._one("SELECT sample FROM samples WHERE digest = ? AND complete", _digest(description))
        return None if row is None else int(row[0])

    def begin_sample(self, description: dict[str, Any]) -> int:
        """Number of a sample to be drawn. What an interrupted run had drawn of it is forgotten."""
        digest = _digest(description)
        with self._transaction() as db:
            written = json.dumps(description, sort_keys=True)
            db.execute("INSERT OR IGNORE INTO samples VALUES (NULL, ?, ?, 0)", (digest, written))
            number = int(self._one("SELECT sample FROM samples WHERE digest = ?", digest)[0])
            db.execute("DELETE FROM draws WHERE sample = ?", (number,))
            return number

    def draw(self, sample: int, documents: Iterable[Document]) -> int:
        """Fill a sample, all or nothing. A text that comes twice is one document; the first draw counts.

        Returns:
            How many documents the sample has.
        """
        with self._transaction() as db:
            for document in documents:
                number = self._enter(db, document)
                db.execute(
                    "INSERT OR IGNORE INTO draws VALUES (NULL, ?, ?, ?, ?, ?)",
                    (sample, number, document.probability, document.design, document.stratum),
                )
            db.execute("UPDATE samples SET complete = 1 WHERE sample = ?", (sample,))
        return self.sample_size(sample)

    def sample_size(self, sample: int, until: int = LAST) -> int:
        """Documents in a sample, up to place `until`."""
        return int(self._one("SELECT count(*) FROM draws WHERE sample = ? AND place <= ?", sample, until)[0])

    def samples(self) -> list[int]:
        """Number of every completely drawn sample, the latest last."""
        return [number for (number,) in self._db.execute("SELECT sample FROM samples WHERE complete ORDER BY sample")]

    def _enter(self, db: sqlite3.Connection, document: Document) -> int:
        digest = text_digest(document.text)
        row = self._one("SELECT document FROM documents WHERE digest = ?", digest)
        if row is not None:
            return int(row[0])
        known = (document.id, document.url, document.source, document.position, document.language)
        columns = json.dumps(document.columns, ensure_ascii=False, default=str)
        cursor = db.execute(
            "INSERT INTO documents VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", (digest, *known, columns, document.text)
        )
        return int(cursor.lastrowid or 0)

    def drawn(self, sample: int) -> Iterator[tuple[int, Document]]:
        """(number, document) of a sample, in the order drawn."""
        rows = self._db.execute(
            "SELECT d.document, d.text, d.id, d.url, d.source, d.position, d.language, w.probability, w.design, "
            "w.stratum, d.columns FROM draws w JOIN documents d USING (document) WHERE w.sample = ? ORDER BY w.place",
            (sample,),
        )
        names = ("text", "id", "url", "source", "position", "language", "probability", "design", "stratum")
        for number, *values, columns in rows:
            yield number, Document(**dict(zip(names, values, strict=True)), columns=json.loads(columns))

    # --- judges and rubrics

    def rubric(self, rubric: Rubric) -> int:
        """Number of a rubric, which is entered if it is new."""
        row = self._one("SELECT rubric FROM rubrics WHERE digest = ?", rubric.digest)
        if row is not None:
            return int(row[0])
        with self._transaction() as db:
            values = (rubric.digest, rubric.name, rubric.version, rubric.model_dump_json())
            return int(db.execute("INSERT INTO rubrics VALUES (NULL, ?, ?, ?, ?)", values).lastrowid or 0)

    def rubrics(self) -> list[RubricRecord]:
        """Every rubric that was used, oldest first."""
        rows = self._db.execute(
            "SELECT rubric, content, digest, (SELECT count(*) FROM answers a WHERE a.rubric = r.rubric) FROM rubrics r "
            "ORDER BY rubric"
        )
        return [RubricRecord(n, Rubric.model_validate_json(c), digest, count) for n, c, digest, count in rows]

    def judge(self, name: str, kind: Kind, model: str, settings: dict[str, Any]) -> JudgeRecord:
        """A judge, entered if it is new.

        Raises:
            AnnotationsError: a judge of this name answered before with another model or other settings.
        """
        written = json.dumps(settings, sort_keys=True)
        found = next((judge for judge in self.judges() if judge.name == name), None)
        if found is None:
            with self._transaction() as db:
                db.execute("INSERT INTO judges VALUES (NULL, ?, ?, ?, ?, NULL)", (name, kind, model, written))
            return self.judges()[-1]
        before = {"kind": found.kind, "model": found.model} | found.settings
        now = {"kind": kind, "model": model} | json.loads(written)
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                raise AnnotationsError(
                    f"{self.path}: judge {name!r} has answered with {key} = {before.get(key)!r}, and now it is "
                    f"{now.get(key)!r}. Remedy: give the changed judge another name, so that its answers stay apart"
                )
        return found

    def judges(self) -> list[JudgeRecord]:
        """Every judge, in the order they came."""
        rows = self._db.execute("SELECT judge, name, kind, model, settings, logprobs FROM judges ORDER BY judge")
        return [
            JudgeRecord(number, name, kind, model, json.loads(settings), logprobs)
            for number, name, kind, model, settings, logprobs in rows
        ]

    def learn_logprobs(self, judge: int, candidates: int) -> None:
        """Remember how many candidates per token a judge's servers give, so that a resumed run need not find out."""
        with self._transaction() as db:
            db.execute("UPDATE judges SET logprobs = ? WHERE judge = ?", (candidates, judge))

    def record_keep(self, judge: str, document: Document | str, keep: bool) -> None:
        """A human's decision on a page: the latest one counts.

        Args:
            judge: who decided.
            document: the page, or only its text.
            keep: whether to keep it.

        Raises:
            AnnotationsError: a model of this name answers in this store.
        """
        number, rubric, score = self.judge(judge, "human", "", {}).number, self.rubric(KEEP_RUBRIC), float(keep)
        with self._transaction() as db:
            entered = self._enter(db, Document(document) if isinstance(document, str) else document)
            answer = Answer(entered, 0, "ok", "keep" if keep else "drop", score=score, expected=score, mode="human")
            self._save_answers(db, number, rubric, [answer])

    # --- answers

    def pending(
        self, sample: int, judge: int, rubric: int, repeats: int, *, after: int = 0, until: int = LAST, limit: int = 256
    ) -> list[Pending]:
        """The next documents of a sample, drawn after place `after` and up to `until`, that lack one of `repeats`."""
        rows = self._db.execute(
            "SELECT w.place, w.document, d.text FROM (SELECT place, document FROM draws WHERE sample = ? AND place > ? "
            "AND place <= ? AND (SELECT count(*) FROM answers a WHERE a.judge = ? AND a.rubric = ? AND "
            "a.document = draws.document AND a.repeat < ?) < ? ORDER BY place LIMIT ?) w JOIN documents d "
            "USING (document) ORDER BY w.place",
            (sample, after, until, judge, rubric, repeats, repeats, limit),
        ).fetchall()
        found = []
        for place, number, text in rows:
            answered = self._db.execute(
                "SELECT repeat FROM answers WHERE judge = ? AND rubric = ? AND document = ?", (judge, rubric, number)
            )
            missing = sorted(set(range(repeats)) - {repeat for (repeat,) in answered})
            found.append(Pending(place, number, text, tuple(missing)))
        return found

    def place(self, sample: int, number: int) -> int:
        """Place of the `number`-th draw of a sample, from 1; of the last one if it has fewer."""
        places = "SELECT place FROM draws WHERE sample = ? ORDER BY place LIMIT ?"
        return int(self._one(f"SELECT max(place) FROM ({places})", sample, number)[0] or 0)  # noqa: S608

    def costs(self, sample: int, judge: int, rubric: int, limit: int = 10_000) -> npt.NDArray[np.float64]:
        """float64[n, 4]: answers, prompt tokens, answer tokens and money of a document, of the first `limit` drawn."""
        rows = self._db.execute(
            "SELECT count(*), sum(tokens_in), sum(tokens_out), sum(cost) FROM (SELECT document FROM draws "
            "WHERE sample = ? ORDER BY place LIMIT ?) JOIN answers a USING (document) WHERE a.judge = ? AND "
            "a.rubric = ? GROUP BY document",
            (sample, limit, judge, rubric),
        ).fetchall()
        return np.array(rows, dtype=np.float64).reshape(len(rows), 4)

    def answered(self, sample: int, judge: int, rubric: int, repeats: int, until: int = LAST) -> int:
        """Answers of a judge to a sample up to place `until`, rejected ones included, up to `repeats` a document."""
        query = (
            "SELECT count(*) FROM draws w CROSS JOIN answers a ON a.judge = ? AND a.rubric = ? AND "
            "a.document = w.document AND a.repeat < ? WHERE w.sample = ? AND w.place <= ?"
        )
        return int(self._one(query, judge, rubric, repeats, sample, until)[0])

    def missing(self, texts: Sequence[str], judge: str, rubric: Rubric, repeats: int) -> npt.NDArray[np.int64]:
        """int64[n]: how many of `repeats` answers each text lacks from a judge, which need not be in the store."""
        query = (
            "SELECT count(*) FROM answers a JOIN judges j USING (judge) JOIN rubrics r USING (rubric) "
            "JOIN documents d USING (document) WHERE d.digest = ? AND j.name = ? AND r.digest = ? AND repeat < ?"
        )
        digest = rubric.digest
        done = [self._one(query, text_digest(text), judge, digest, repeats)[0] for text in texts]
        return repeats - np.array(done, np.int64)

    def save(
        self,
        run: int,
        judge: int,
        rubric: int,
        answers: Sequence[Answer],
        failures: Sequence[Failure] = (),
        spent: Spending | None = None,
    ) -> None:
        """Write what came in, in one transaction. An answer clears an earlier failure of the same request."""
        with self._transaction() as db:
            self._save_answers(db, judge, rubric, answers)
            db.executemany(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(judge, rubric, *astuple(failure), time.time()) for failure in failures],
            )
            if spent is not None:
                db.execute(
                    "INSERT INTO spending VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                    "requests = requests + excluded.requests, tokens_in = tokens_in + excluded.tokens_in, "
                    "tokens_out = tokens_out + excluded.tokens_out, cost = cost + excluded.cost",
                    (run, judge, *astuple(spent)),
                )

    def _save_answers(self, db: sqlite3.Connection, judge: int, rubric: int, answers: Sequence[Answer]) -> None:
        now = time.time()
        rows = []
        for answer in answers:
            values = {name: getattr(answer, name) for name in ANSWER_COLUMNS}
            values |= {name: json.dumps(values[name]) for name in JSON_COLUMNS if values[name] is not None}
            rows.append((judge, rubric, now, *values.values()))
        db.executemany(INSERT_ANSWER, rows)
        keys = [(judge, rubric, answer.document, answer.repeat) for answer in answers]
        db.executemany("DELETE FROM failures WHERE judge = ? AND rubric = ? AND document = ? AND repeat = ?", keys)

    def answers(self, rubric: int, sample: int | None = None) -> Iterator[tuple[str, Answer]]:
        """(judge's name, answer) under a rubric, by document, judge and repeat; of one sample, or of all documents."""
        for judge, *values in self._db.execute(SELECT_ANSWERS, (rubric, sample)):
            fields = dict(zip(ANSWER_COLUMNS, values, strict=True))
            fields |= {name: json.loads(fields[name]) for name in JSON_COLUMNS if fields[name] is not None}
            yield judge, Answer(**fields)

    def scores(self, judge: int, rubric: int) -> dict[int, float]:
        """Document -> score of a judge's latest readable answer under a rubric."""
        return self._counts("document, score", judge, rubric, "status = 'ok' ORDER BY document, repeat")

    def score_counts(self, judge: int, rubric: int) -> dict[int, int]:
        """Readable answers of a judge under a rubric by rounded expected score, ascending."""
        columns = "CAST(round(expected) AS INTEGER), count(*)"
        return self._counts(columns, judge, rubric, "status = 'ok' GROUP BY 1 ORDER BY 1")

    def causes(self, judge: int, rubric: int) -> tuple[dict[str, int], dict[str, int]]:
        """(rejected answers by cause, failed requests by cause), the most frequent first."""
        grouped = "GROUP BY cause ORDER BY 2 DESC, 1"
        rejected = self._counts("cause, count(*)", judge, rubric, f"status = 'rejected' {grouped}")
        return rejected, self._counts("cause, count(*)", judge, rubric, f"1 {grouped}", "failures")

    def _counts(self, columns: str, judge: int, rubric: int, rest: str, table: str = "answers") -> dict[Any, Any]:
        """Two columns of a judge's rows under a rubric."""
        query = f"SELECT {columns} FROM {table} WHERE judge = ? AND rubric = ? AND {rest}"  # noqa: S608 (all ours)
        return dict(self._db.execute(query, (judge, rubric)).fetchall())

    # --- runs

    def begin_run(self, config: str) -> int:
        """Number of a new run; `config` is kept as JSON."""
        with self._transaction() as db:
            cursor = db.execute("INSERT INTO runs VALUES (NULL, ?, NULL, NULL, ?)", (time.time(), config))
            return int(cursor.lastrowid or 0)

    def end_run(self, run: int, outcome: str) -> None:
        """Note how a run ended."""
        with self._transaction() as db:
            db.execute("UPDATE runs SET ended = ?, outcome = ? WHERE run = ?", (time.time(), outcome, run))

    def spent(self) -> Spending:
        """Requests, tokens and money that all runs on this store have spent."""
        columns = "ifnull(sum(requests), 0), ifnull(sum(tokens_in), 0), ifnull(sum(tokens_out), 0)"
        return Spending(*self._one(f"SELECT {columns}, ifnull(sum(cost), 0.0) FROM spending"))  # noqa: S608
