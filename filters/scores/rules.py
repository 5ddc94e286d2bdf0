"""Rules: a condition, or a number to rank by, in SQL over what a run knows of each document; DuckDB computes them.

    rule = Rule("score >= 1.5 and (language = 'en' or draw(id) < 0.1)", None, columns_of((), {}))
    decided = rule.decide(table)  # a pyarrow.Table with the columns `rule.columns`

DuckDB parses a rule and never runs its text: the tree that it parses to is checked node by node against the lists
below, and the query is written anew from the tree. So a rule has no way to a file, a setting or another table.

NULL and NaN: a comparison with NULL is NULL, and a rule that is NULL does not keep. A number that is not a number is
NULL: NaN in a column, a division by zero, the logarithm or root of a negative number, text that is cast and is none;
and, in what documents are ranked by, what float32 cannot hold. Numbers are computed in double precision, but for
scores: those are compared with a constant in float32, as `keep.min_score` does.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import math
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.arrays import Bool, Float32
from filters.errors import ConfigError

if TYPE_CHECKING:
    import duckdb

Kind = Literal["text", "float", "double", "number", "bool", "null"]
"""Type of a part of a rule. float: a score, float32. double: any other number. number: a constant, float or double as
what stands beside it."""

COLUMNS: dict[str, Kind] = {
    "id": "text", "url": "text", "host": "text", "source": "text", "position": "double", "bytes": "double",
    "tokens": "double", "language": "text", "language_score": "float", "score": "float", "cluster_size": "double",
}  # fmt: skip
"""Columns of every run; those of `input.slices` come on top, as text."""
DECIDED = ("keep", "reason", "copies", "bucket", "duplicate_of", "similarity", "exact_cluster", "near_cluster")
"""Columns of side files that say what was decided."""

LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1, "enable_external_access": False, "autoinstall_known_extensions": False,
    "autoload_known_extensions": False, "allow_community_extensions": False, "python_enable_replacements": False,
    "temp_directory": "", "lock_configuration": True,
}  # fmt: skip
"""Settings of a database that reads no files and loads no code, and that nothing can set otherwise."""

LONGEST = 20_000
"""Characters of a rule."""
_DEEPEST, _LONGEST_QUERY = 100, 200_000
_OPEN = "SELECT (\n"
_NOWHERE = 2**63
_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_SCHEME = r"^[A-Za-z][A-Za-z0-9+.-]*://"

_COMPARISONS = {
    "COMPARE_EQUAL": "=", "COMPARE_NOTEQUAL": "<>", "COMPARE_LESSTHAN": "<", "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=", "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_DISTINCT_FROM": "IS DISTINCT FROM", "COMPARE_NOT_DISTINCT_FROM": "IS NOT DISTINCT FROM",
}  # fmt: skip
_FUNCTIONS: dict[str, tuple[str, Kind | Literal["same"], str]] = {
    "+": ("nn", "same", "({0} + {1})"),
    "-": ("nn", "same", "({0} - {1})"),
    "*": ("nn", "same", "({0} * {1})"),
    "abs": ("n", "same", "abs({0})"),
    "floor": ("n", "same", "floor({0})"),
    "ceil": ("n", "same", "ceil({0})"),
    "sqrt": ("n", "double", "sqrt({0})"),
    "ln": ("n", "double", "ln({0})"),
    "log10": ("n", "double", "log10({0})"),
    "log2": ("n", "double", "log2({0})"),
    "exp": ("n", "double", "exp({0})"),
    "pow": ("nn", "double", "pow({0}, {1})"),
    "length": ("t", "double", "CAST(length({0}) AS DOUBLE)"),
    "lower": ("t", "text", "lower({0})"),
    "upper": ("t", "text", "upper({0})"),
    "contains": ("tt", "bool", "contains({0}, {1})"),
    "starts_with": ("tt", "bool", "starts_with({0}, {1})"),
    "ends_with": ("tt", "bool", "ends_with({0}, {1})"),
    "~~": ("tt", "bool", "({0} LIKE {1})"),
    "!~~": ("tt", "bool", "({0} NOT LIKE {1})"),
    "~~*": ("tt", "bool", "({0} ILIKE {1})"),
    "!~~*": ("tt", "bool", "({0} NOT ILIKE {1})"),
    "regexp_matches": ("tc", "bool", "regexp_matches({0}, {1})"),
    "regexp_full_match": ("tc", "bool", "regexp_full_match({0}, {1})"),
}
"""Name -> (arguments, result, SQL): n a number, t text, c a text constant; same: as the arguments. Those that need more
care are methods of `_Writer`."""
_ALIASES = {
    "ceiling": "ceil", "power": "pow", "^": "pow", "**": "pow", "log": "log10", "len": "length",
    "prefix": "starts_with", "suffix": "ends_with", "^@": "starts_with",
}  # fmt: skip
_CARED_FOR = ("round", "/", "%", "greatest", "least", "nullif", "if", "draw", "url_in")
_NUMBERS = ("double", "float", "real", "integer", "int", "bigint", "smallint", "numeric", "decimal", "hugeint")
"""Types that text can be cast to."""
_KINDS = {"text": "text", "float": "a number", "double": "a number", "number": "a number", "bool": "a condition",
          "null": "NULL"}  # fmt: skip


def columns_of(slices: Iterable[str], scores: Mapping[str, Kind]) -> dict[str, Kind]:
    """Columns that a rule of a run may name, by what they hold.

    Args:
        slices: names that the columns of `input.slices` have in the side files.
        scores: columns of the run's `scores`.
    """
    return COLUMNS | dict.fromkeys(slices, "text") | dict(scores)


@dataclass(frozen=True)
class Decided:
    """What a rule says of n documents.

    Attributes:
        keeps: bool[n], whether the condition is true.
        held: for each part of the condition that `and` joins, how many documents it is true of.
        values: float32[n], the number to rank by, NaN where there is none; None without `by`.
    """

    keeps: Bool
    held: list[int]
    values: Float32 | None


class Rule:
    """A condition and a number to rank by, checked and ready to be computed.

    Args:
        where: the condition; None: every document fulfils it.
        by: the number; None: none is asked for.
        columns: that may be named, see `columns_of`.
        keys: what a message calls the two.
        min_score: a threshold that holds beside the condition.
        folder: that relative paths of lists are relative to; "": the working directory.

    Raises:
        ConfigError: one of them is no such thing; the message shows the place.

    Attributes:
        columns: those that `decide` needs.
        lists: files that `url_in` names.
        parts: the parts of the condition that `and` joins, as they were written.
    """

    def __init__(
        self,
        where: str | None,
        by: str | None,
        columns: Mapping[str, Kind],
        keys: tuple[str, str] = ("keep.where", "keep.by"),
        min_score: float | None = None,
        folder: str = "",
    ) -> None:
        self.where, self.by, self._folder = where, by, folder
        used: dict[str, str] = {}
        lists: dict[str, str] = {}
        self._selected: list[str] = []
        self.parts: tuple[str, ...] = ()
        if where is not None:
            writer = _Writer(where, columns, keys[0], used, lists)
            self.parts = tuple(writer.conditions(self._selected, min_score))
        if by is not None:
            self._selected.append(_Writer(by, columns, keys[1], used, lists).number())
        self._used, self.lists = used, tuple(lists)
        self._kinds = {name: columns[name] for name in used}
        self._names = {f"u{place}": path for place, path in enumerate(lists)}
        self.columns = tuple(dict.fromkeys([*used, *(("url", "host") if lists else ())]))
        try:
            self._compute(self._sample())
        except ConfigError as error:
            raise ConfigError(f"{keys[where is None]}: {error}") from error

    def _sample(self) -> pa.Table:
        """A row to try the rule on."""
        values = {used: "" if self._kinds[name] == "text" else 0.0 for name, used in self._used.items()}
        values |= dict.fromkeys(self._names, False) | {"row": 0}
        return pa.table({name: pa.repeat(pa.scalar(value), 1) for name, value in values.items()})

    def read(self, path: str) -> UrlList:
        """One of `lists`.

        Raises:
            ConfigError: it cannot be read.
        """
        return UrlList.read(os.path.join(self._folder, path))

    def decide(self, table: pa.Table) -> Decided:
        """Compute the rule for the rows of a table with the columns `columns`.

        Raises:
            ConfigError: a file of `url_in` cannot be read.
        """
        given = {used: _plain(table[name]) for name, used in self._used.items()}
        for name, path in self._names.items():
            given[name] = self.read(path).has(_plain(table["url"]), _plain(table["host"]))
        found = self._compute(pa.table(given | {"row": np.zeros(table.num_rows, np.int8)}))
        parts = [column.to_numpy(zero_copy_only=False).astype(np.bool_) for column in found[: len(self.parts)]]
        keeps = np.logical_and.reduce(parts) if parts else np.ones(table.num_rows, np.bool_)
        values = None
        if self.by is not None:
            values = pc.fill_null(found[-1], float("nan")).to_numpy(zero_copy_only=False).astype(np.float32)
            values[~np.isfinite(values)] = np.nan
        return Decided(keeps, [int(part.sum()) for part in parts], values)

    def _compute(self, table: pa.Table) -> list[pa.Array]:
        import duckdb

        # NaN is NULL from the beginning.
        inner = [
            f"CASE WHEN isnan({used}) THEN NULL ELSE {used} END AS {used}"
            if self._kinds[name] == "float" and pa.types.is_floating(table[used].type)
            else f"CAST({used} AS DOUBLE) AS {used}" if self._kinds[name] == "double" else used
            for name, used in self._used.items()
        ]  # fmt: skip
        inner = [*inner, *self._names, "row"]  # a column at least
        query = f"SELECT {', '.join(self._selected)} FROM (SELECT {', '.join(inner)} FROM batch)"  # noqa: S608
        connection = _connection()
        connection.register("batch", table)
        try:
            found = connection.sql(query).to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(f"DuckDB cannot compute this rule: {str(error).partition(chr(10))[0]}") from error
        finally:
            connection.unregister("batch")
        return [column.combine_chunks() for column in found.columns]


_threads = threading.local()


def _connection() -> duckdb.DuckDBPyConnection:
    """This thread's database: in memory, one thread, no files, no extensions, nothing that could be set otherwise."""
    found: duckdb.DuckDBPyConnection | None = getattr(_threads, "connection", None)
    if found is None:
        import duckdb

        found = _threads.connection = duckdb.connect(config=LOCKED)
    return found


def _plain(column: Any) -> Any:
    """A column without a dictionary."""
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


@dataclass(frozen=True)
class _Part:
    """A part of a rule: its SQL, what it is, and what `_Writer` must know to go on.

    Attributes:
        value: of a constant.
        computed: a number that may be NaN.
        constant: no column is in it.
    """

    sql: str
    kind: Kind
    value: Any = None
    computed: bool = False
    constant: bool = True

    def as_kind(self, kind: Kind, *, raw: bool = False) -> str:
        """SQL of a number as float or double; NULL instead of NaN, unless `raw`."""
        if self.kind == "number":
            return f"CAST('{self.value!r}' AS {kind.upper()})"
        if self.kind == "null":
            return f"CAST(NULL AS {kind.upper()})"
        return f"CASE WHEN isnan({self.sql}) THEN NULL ELSE {self.sql} END" if self.computed and not raw else self.sql


Node = dict[str, Any]


class _Writer:
    """Reads a rule, refuses what it may not hold, and writes it anew.

    Args:
        text: the rule.
        columns: that may be named, by what they hold.
        key: what a message calls it.
        used: column -> its name in the query; filled.
        lists: file of `url_in` -> its name in the query; filled.
    """

    def __init__(
        self, text: str, columns: Mapping[str, Kind], key: str, used: dict[str, str], lists: dict[str, str]
    ) -> None:
        self.text, self.columns, self.key, self._used, self._lists = text, columns, key, used, lists
        self._depth = 0

    def conditions(self, selected: list[str], min_score: float | None) -> Iterable[str]:
        """The parts that `and` joins as they were written; their SQL is appended to `selected`."""
        node = self._parse()
        parts = node["children"] if node["type"] == "CONJUNCTION_AND" else [node]
        bounds: dict[str, list[tuple[float, bool, float, bool, str]]] = {}
        if min_score is not None:
            bounds["score"] = [(min_score, True, math.inf, True, f"min_score {min_score:g}")]
        for part in parts:
            written = self._condition(part)
            if written.constant and written.kind != "null" and not _is_true(written.sql):
                raise self._wrong(part, "is never true, so nothing would be kept")
            if written.kind == "null":
                raise self._wrong(part, "is NULL for every document, so nothing would be kept")
            selected.append(f"coalesce({written.sql}, false)")
            self._check_bounds(part, bounds)
        return [self._source(part) for part in parts]

    def number(self) -> str:
        """SQL of the rule, which is a number."""
        node = self._parse()
        part = self._number(node)
        if part.constant:
            raise self._wrong(node, "is the same for every document: nothing can be ranked by it")
        return f"TRY_CAST({part.as_kind('double')} AS FLOAT)"

    # -- reading

    def _parse(self) -> Node:
        import duckdb

        text = self.text
        if not text.strip():
            raise ConfigError(f"{self.key}: is empty; write a condition such as score >= 1.5 and language = 'en'")
        if len(text) > LONGEST:
            raise ConfigError(f"{self.key}: has {len(text):,} characters, {LONGEST:,} at most are read")
        try:
            ((answer,),) = _connection().execute("SELECT json_serialize_sql(?)", [f"{_OPEN}{text}\n)"]).fetchall()
            parsed = json.loads(answer)
        except RecursionError as error:
            raise ConfigError(f"{self.key}: is nested too deeply") from error
        except (duckdb.Error, ValueError) as error:
            raise ConfigError(f"{self.key}: cannot be parsed: {str(error).partition(chr(10))[0]:.200}") from error
        if parsed.get("error"):
            raise self._syntax_error(parsed)
        statements = parsed["statements"]
        node = statements[0]["node"] if len(statements) == 1 else {}
        if set(node) != set(_PLAIN_SELECT) | {"select_list", "from_table"} or any(
            node[name] != value for name, value in _PLAIN_SELECT.items()
        ) or node["from_table"]["type"] != "EMPTY" or len(node["select_list"]) != 1:  # fmt: skip
            raise ConfigError(
                f"{self.key}: is one expression over the columns of a run; it cannot be a query or several statements"
                f"\n{_indented(text)}"
            )
        root: Node = node["select_list"][0]
        return root

    def _syntax_error(self, parsed: Mapping[str, Any]) -> ConfigError:
        message = str(parsed.get("error_message", "")).partition("\n")[0]
        position = int(parsed.get("position") or _NOWHERE)
        end = len((_OPEN + self.text).encode())
        if "Max expression depth" in message:
            return ConfigError(f"{self.key}: is nested too deeply")
        if "Only SELECT" in message:
            message = "only an expression can be a rule"
        if end <= position < _NOWHERE:
            message, position = "ends before it is complete, or a bracket is not closed", end
        return self._wrong({"query_location": position, "query_location_length": 1}, message)

    def _wrong(self, node: Mapping[str, Any], why: str) -> ConfigError:
        shown = _marked(self.text, node.get("query_location", _NOWHERE), node.get("query_location_length", 1))
        return ConfigError(f"{self.key}: {why}\n{shown}")

    def _source(self, node: Node) -> str:
        """What was written for a node: from the beginning of its first part to the end of its last."""
        places = list(_places(node))
        start, end = min(first for first, _ in places), max(last for _, last in places)
        return self.text.encode()[start - len(_OPEN) : end - len(_OPEN)].decode(errors="replace").strip()

    # -- writing

    def _write(self, node: Node) -> _Part:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ConfigError(f"{self.key}: is nested too deeply: more than {_DEEPEST} levels")
        writers: dict[str, Callable[[Node], _Part]] = {
            "COLUMN_REF": self._column, "CONSTANT": self._constant, "COMPARISON": self._comparison,
            "BETWEEN": self._between, "CONJUNCTION": self._conjunction, "OPERATOR": self._operator,
            "CASE": self._case, "CAST": self._cast, "FUNCTION": self._function,
        }  # fmt: skip
        write = writers.get(node["class"])
        if write is None:
            what = {"SUBQUERY": "a query inside of a rule", "WINDOW": "a window function", "STAR": "*",
                    "PARAMETER": "a parameter", "LAMBDA": "a lambda"}  # fmt: skip
            kind = what.get(node["class"], node["class"].lower())
            raise self._wrong(node, f"{kind} is not allowed: a rule looks at one document by itself")
        part = write(node)
        if len(part.sql) > _LONGEST_QUERY:
            raise ConfigError(f"{self.key}: is nested too deeply: written out it is too long")
        self._depth -= 1
        return part

    def _condition(self, node: Node) -> _Part:
        part = self._write(node)
        if part.kind not in ("bool", "null"):
            raise self._wrong(node, f"is {_KINDS[part.kind]}, where a condition is needed (such as score >= 1.5)")
        return part

    def _number(self, node: Node) -> _Part:
        part = self._write(node)
        if part.kind in ("bool", "text"):
            hint = ". Remedy: cast(... as double)" if part.kind == "text" else ""
            raise self._wrong(node, f"is {_KINDS[part.kind]}, where a number is needed{hint}")
        return part

    def _text(self, node: Node) -> _Part:
        part = self._write(node)
        if part.kind not in ("text", "null"):
            raise self._wrong(node, f"is {_KINDS[part.kind]}, where text is needed")
        return part

    def _column(self, node: Node) -> _Part:
        names: list[str] = node["column_names"]
        name = names[0]
        if name not in self.columns:
            same = [known for known in self.columns if known.lower() == name.lower()]
            name = same[0] if len(same) == 1 else name
        if len(names) > 1 or name not in self.columns:
            shown = ".".join(names)
            if name in DECIDED and len(names) == 1:
                raise self._wrong(node, f"{shown} says what was decided; a rule decides by what is known before")
            close = difflib.get_close_matches(shown.lower(), self.columns, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            known = ", ".join(self.columns)
            raise self._wrong(
                node,
                f"no column {shown!r:.80}{hint} Columns: {known}; input.slices adds more. Text is quoted 'so'",
            )
        used = self._used.setdefault(name, f"c{len(self._used)}")
        return _Part(used, self.columns[name], constant=False)

    def _constant(self, node: Node) -> _Part:
        kind, text = node["literal"]["kind"], str(node["literal"]["text"])
        if kind in ("INTEGER", "NUMERIC"):
            value = float(text.replace("_", ""))
            if not math.isfinite(value):
                raise self._wrong(node, "is too large a number")
            return _Part("", "number", value)
        if kind == "STRING":
            if "\0" in text:
                raise self._wrong(node, "text cannot hold U+0000")
            return _Part("'" + text.replace("'", "''") + "'", "text", text)
        if kind == "BOOLEAN":
            return _Part("true" if text == "true" else "false", "bool")
        if kind == "NULL_LITERAL":
            return _Part("NULL", "null")
        raise self._wrong(node, f"a constant of type {kind.lower()} is not allowed")

    def _alike(self, nodes: Sequence[Node]) -> tuple[list[str], Kind, bool]:
        """(SQL, kind, whether all are constants) of parts that must be of one kind."""
        parts = [self._write(inner) for inner in nodes]
        kinds = {part.kind for part in parts} - {"null"}
        constant = all(part.constant for part in parts)
        if kinds <= {"float", "double", "number"} and kinds:
            kind, written = _numbers(parts)
            return written, kind, constant
        if len(kinds) > 1:
            first = next(_KINDS[part.kind] for part in parts if part.kind != "null")
            odd, kind_of_odd = next(
                (inner, _KINDS[part.kind])
                for inner, part in zip(nodes, parts, strict=True)
                if part.kind != "null" and _KINDS[part.kind] != first
            )
            raise self._wrong(
                odd, f"is {kind_of_odd}, beside {first}. Remedy: put text in single quotes, or cast(... as double)"
            )
        return [part.sql for part in parts], next(iter(kinds), "null"), constant

    def _comparison(self, node: Node) -> _Part:
        if node["type"] not in _COMPARISONS:
            raise self._wrong(node, "this comparison is not allowed")
        (left, right), _, constant = self._alike([node["left"], node["right"]])
        return _Part(f"({left} {_COMPARISONS[node['type']]} {right})", "bool", constant=constant)

    def _between(self, node: Node) -> _Part:
        (value, low, high), _, constant = self._alike([node["input"], node["lower"], node["upper"]])
        return _Part(f"({value} BETWEEN {low} AND {high})", "bool", constant=constant)

    def _conjunction(self, node: Node) -> _Part:
        word = {"CONJUNCTION_AND": " AND ", "CONJUNCTION_OR": " OR "}[node["type"]]
        parts = [self._condition(child) for child in node["children"]]
        sql = word.join("CAST(NULL AS BOOLEAN)" if part.kind == "null" else part.sql for part in parts)
        return _Part(f"({sql})", "bool", constant=all(part.constant for part in parts))

    def _operator(self, node: Node) -> _Part:
        kind, children = node["type"], node["children"]
        if kind == "OPERATOR_NOT":
            part = self._condition(children[0])
            return _Part(f"(NOT {part.sql})", part.kind, constant=part.constant)
        if kind in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            (sql,), _, constant = self._alike(children)
            return _Part(f"({sql} IS {'NOT ' * (kind != 'OPERATOR_IS_NULL')}NULL)", "bool", constant=constant)
        if kind == "COMPARE_IN":
            (value, *others), _, constant = self._alike(children)
            return _Part(f"({value} IN ({', '.join(others)}))", "bool", constant=constant)
        if kind == "OPERATOR_COALESCE":
            written, result, constant = self._alike(children)
            return _Part(f"coalesce({', '.join(written)})", result, constant=constant)
        raise self._wrong(node, f"{kind.lower().replace('_', ' ')} is not allowed in a rule")

    def _case(self, node: Node) -> _Part:
        checks, last = node["case_checks"], node["else_expr"]
        conditions = [self._condition(check["when_expr"]) for check in checks]
        (*written, other), kind, constant = self._alike([*(check["then_expr"] for check in checks), last])
        arms = " ".join(f"WHEN {one.sql} THEN {then}" for one, then in zip(conditions, written, strict=True))
        constant = constant and all(one.constant for one in conditions)
        return _Part(f"(CASE {arms} ELSE {other} END)", kind, constant=constant)

    def _cast(self, node: Node) -> _Part:
        part, to = self._write(node["child"]), str(node["type_expr"].get("type_name", "")).lower()
        if to == "boolean" and part.kind in ("bool", "null"):
            return _Part(part.sql, "bool", constant=part.constant)
        if to not in _NUMBERS or part.kind == "bool":
            raise self._wrong(
                node, f"a cast to {to!r:.40} is not allowed; text or a number can be cast to double or int"
            )
        sql = f"TRY_CAST({part.sql} AS DOUBLE)" if part.kind == "text" else part.as_kind("double")
        sql = f"CAST({sql} AS DOUBLE)"
        if "int" in to:
            sql = f"round({sql})"
        return _Part(sql, "double", computed=True, constant=part.constant)

    def _function(self, node: Node) -> _Part:
        name = str(node["function_name"]).lower()
        name = _ALIASES.get(name, name)
        known = name in _FUNCTIONS or name in _CARED_FOR
        strange = node["schema"] or node["catalog"] or node["filter"] or node["order_bys"]["orders"] or node["distinct"]
        named = any(argument["name"] for argument in node["arguments"])
        if not known or strange or named:
            names = sorted(one for one in {*_FUNCTIONS, *_CARED_FOR, "coalesce"} if one.isidentifier())
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
            hint = f"; did you mean {close[0]}?" if close else "."
            raise self._wrong(
                node,
                f"the function {name!r:.60} is not allowed{hint} A rule looks at one document by itself, at no file. "
                f"Functions: {', '.join(names)}",
            )
        arguments = [argument["expression"] for argument in node["arguments"]]
        if name == "-" and len(arguments) == 1:
            return self._negated(arguments[0])
        if name == "+" and len(arguments) == 1:
            return self._number(arguments[0])
        if name in _FUNCTIONS:
            return self._plain_function(node, name, arguments)
        written: Callable[[Node, list[Node]], _Part] = {
            "round": self._round, "/": self._divided, "%": self._divided, "greatest": self._extreme,
            "least": self._extreme, "nullif": self._nullif, "if": self._if, "draw": self._draw, "url_in": self._url_in,
        }[name]  # fmt: skip
        return written(node | {"function_name": name}, arguments)

    def _plain_function(self, node: Node, name: str, arguments: list[Node]) -> _Part:
        wanted, result, template = _FUNCTIONS[name]
        self._check_count(node, name, arguments, len(wanted), len(wanted))
        parts = [
            self._number(one) if sort == "n" else self._text(one) for one, sort in zip(arguments, wanted, strict=True)
        ]
        for one, part, sort in zip(arguments, parts, wanted, strict=True):
            if sort == "c":
                self._check_pattern(one, part)
        constant = all(part.constant for part in parts)
        if wanted[0] == "n":
            kind, written = _numbers(parts, raw=name != "pow")  # whose result of NaN may be a number
            kind = kind if result == "same" else "double"
            return _Part(template.format(*written), kind, computed=True, constant=constant)
        sqls = ["CAST(NULL AS VARCHAR)" if part.kind == "null" else part.sql for part in parts]
        return _Part(template.format(*sqls), _result(result), constant=constant)

    def _check_count(self, node: Node, name: str, arguments: list[Node], least: int, most: int) -> None:
        if not least <= len(arguments) <= most:
            wanted = f"{least}" if least == most else f"{least} or {most}" if most < 10 else f"at least {least}"
            raise self._wrong(node, f"{name} takes {wanted} argument(s), not {len(arguments)}")

    def _check_pattern(self, node: Node, part: _Part) -> None:
        """Refuse a regular expression that is none, or that is made at run time."""
        import duckdb

        if part.value is None:
            raise self._wrong(node, "a regular expression is a text constant")
        try:
            _connection().execute("SELECT regexp_matches('', ?)", [part.value]).fetchall()
        except duckdb.Error as error:
            why = str(error).partition("\n")[0]
            raise self._wrong(node, f"is no regular expression (RE2): {why:.200}") from error

    def _negated(self, node: Node) -> _Part:
        part = self._number(node)
        if part.kind == "number":
            return _Part("", "number", -part.value)
        kind, (sql,) = _numbers([part], raw=True)
        return _Part(f"(-{sql})", kind, computed=part.computed, constant=part.constant)

    def _round(self, node: Node, arguments: list[Node]) -> _Part:
        self._check_count(node, "round", arguments, 1, 2)
        part = self._number(arguments[0])
        digits = self._number(arguments[1]) if len(arguments) > 1 else _Part("", "number", 0.0)
        if digits.kind != "number" or digits.value not in range(-15, 16):
            raise self._wrong(arguments[1], "digits are a whole number from -15 to 15")
        kind, (sql,) = _numbers([part], raw=True)
        return _Part(f"round({sql}, {int(digits.value)})", kind, computed=True, constant=part.constant)

    def _divided(self, node: Node, arguments: list[Node]) -> _Part:
        name = node["function_name"]
        self._check_count(node, name, arguments, 2, 2)
        parts = [self._number(one) for one in arguments]
        kind, (upper, lower) = _numbers(parts, raw=True)
        if parts[1].constant:
            if not _is_true(lower):
                raise self._wrong(arguments[1], "division by zero: nothing would be kept")
        else:
            lower = f"CASE WHEN {lower} = 0 THEN NULL ELSE {lower} END"
        return _Part(f"({upper} {name} {lower})", kind, computed=True, constant=all(part.constant for part in parts))

    def _extreme(self, node: Node, arguments: list[Node]) -> _Part:
        name = node["function_name"]
        self._check_count(node, name, arguments, 1, 10**6)
        written, kind, constant = self._alike(arguments)
        if kind in ("text", "bool", "null"):
            raise self._wrong(node, f"{name} takes numbers")
        return _Part(f"{name}({', '.join(written)})", kind, constant=constant)

    def _nullif(self, node: Node, arguments: list[Node]) -> _Part:
        self._check_count(node, "nullif", arguments, 2, 2)
        (one, other), kind, constant = self._alike(arguments)
        return _Part(f"nullif({one}, {other})", kind, constant=constant)

    def _if(self, node: Node, arguments: list[Node]) -> _Part:
        self._check_count(node, "if", arguments, 3, 3)
        condition = self._condition(arguments[0])
        (yes, no), kind, constant = self._alike(arguments[1:])
        sql = f"(CASE WHEN {condition.sql} THEN {yes} ELSE {no} END)"
        return _Part(sql, kind, constant=constant and condition.constant)

    def _draw(self, node: Node, arguments: list[Node]) -> _Part:
        """A number in [0, 1) from the upper 53 of 64 bits of an MD5 digest: of the text, and of a whole number after
        it where one is given."""
        self._check_count(node, "draw", arguments, 1, 2)
        part = self._text(arguments[0])
        if part.constant:
            raise self._wrong(arguments[0], "draw takes a column, such as id or host: what is equal is drawn together")
        seed = self._number(arguments[1]) if len(arguments) > 1 else None
        if seed is not None and (seed.kind != "number" or not seed.value.is_integer() or abs(seed.value) > 2**53):
            raise self._wrong(
                arguments[1], "the second argument of draw is a whole number, which makes it another draw"
            )
        text = part.sql if seed is None else f"({part.sql} || '#{int(seed.value)}')"
        return _Part(
            f"(CAST(md5_number_lower({text}) >> 11 AS DOUBLE) / CAST({2**53} AS DOUBLE))", "double", constant=False
        )

    def _url_in(self, node: Node, arguments: list[Node]) -> _Part:
        self._check_count(node, "url_in", arguments, 1, 1)
        path = self._text(arguments[0]).value
        if not path:
            raise self._wrong(arguments[0], "url_in takes the name of a file, as text: url_in('blocklist.txt')")
        used = self._lists.setdefault(path, f"u{len(self._lists)}")
        return _Part(used, "bool", constant=False)

    # -- thresholds that contradict

    def _check_bounds(self, node: Node, bounds: dict[str, list[tuple[float, bool, float, bool, str]]]) -> None:
        """Refuse a part that leaves nothing of the range that the parts before it leave of a column."""
        column, low, low_in, high, high_in = _bounds(node)
        if column is None:
            return
        for before_low, before_low_in, before_high, before_high_in, source in bounds.setdefault(column, []):
            lowest, highest = max(low, before_low), min(high, before_high)
            lowest_in = (low_in or low < lowest) and (before_low_in or before_low < lowest)
            highest_in = (high_in or high > highest) and (before_high_in or before_high > highest)
            if lowest > highest or (lowest == highest and not (lowest_in and highest_in)):
                raise self._wrong(node, f"contradicts {source!r:.200}: no document can fulfil both")
        bounds[column].append((low, low_in, high, high_in, self._source(node)))


_PLAIN_SELECT: dict[str, Any] = {
    "type": "SELECT_NODE", "modifiers": [], "cte_map": {"map": []}, "where_clause": None, "group_expressions": [],
    "group_sets": [], "aggregate_handling": "STANDARD_HANDLING", "having": None, "sample": None, "qualify": None,
}  # fmt: skip
"""What is said of a SELECT that has an expression and nothing else."""


def _places(node: Any) -> Iterator[tuple[int, int]]:
    """(first byte, byte after the last) of a node and of every node in it."""
    if isinstance(node, dict):
        if node.get("query_location", _NOWHERE) < _NOWHERE:
            yield node["query_location"], node["query_location"] + node["query_location_length"]
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from _places(inner)


def _result(kind: str) -> Kind:
    return "text" if kind == "text" else "bool" if kind == "bool" else "double"


def _numbers(parts: Sequence[_Part], *, raw: bool = False) -> tuple[Kind, list[str]]:
    """Numbers that meet: all as float where scores meet constants, else as double; see `_Part.as_kind`."""
    kinds = {part.kind for part in parts}
    large = any(part.kind == "number" and abs(part.value) > _LARGEST_FLOAT for part in parts)
    kind: Kind = "float" if "float" in kinds and "double" not in kinds and not large else "double"
    return kind, [part.as_kind(kind, raw=raw) for part in parts]


def _is_true(sql: str) -> bool:
    """Whether a part without columns is true, or is a number other than zero."""
    ((value,),) = _connection().execute(f"SELECT {sql}").fetchall()
    return bool(value)


def _bounds(node: Node) -> tuple[str | None, float, bool, float, bool]:
    """(column, low, whether low is in, high, whether high is in) of a comparison of a column with a constant."""

    def constant(one: Node) -> float | None:
        if one["class"] == "CONSTANT" and one["literal"]["kind"] in ("INTEGER", "NUMERIC"):
            return float(str(one["literal"]["text"]).replace("_", ""))
        return None

    nothing = None, -math.inf, True, math.inf, True
    if node["class"] == "BETWEEN" and node["input"]["class"] == "COLUMN_REF":
        low, high = constant(node["lower"]), constant(node["upper"])
        if low is None or high is None:
            return nothing
        return node["input"]["column_names"][0].lower(), low, True, high, True
    if node["class"] != "COMPARISON":
        return nothing
    sign = _COMPARISONS.get(node["type"], "")
    left, right = node["left"], node["right"]
    if left["class"] != "COLUMN_REF":
        left, right = right, left
        sign = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(sign, sign)
    value = constant(right)
    if left["class"] != "COLUMN_REF" or value is None or sign not in ("<", "<=", ">", ">=", "="):
        return nothing
    low, low_in = (value, sign != ">") if sign in (">", ">=", "=") else (-math.inf, True)
    high, high_in = (value, sign != "<") if sign in ("<", "<=", "=") else (math.inf, True)
    return left["column_names"][0].lower(), low, low_in, high, high_in


def rule_line(rule: Mapping[str, Any], fit: int) -> str:
    """What a rule keeps, in words.

    Args:
        rule: `rule` of a manifest's `keep`.
        fit: documents that it is true of, and that have a rank.
    """
    if rule["where"] is None:
        return f"{fit:,} of {rule['documents']:,} documents can be ranked by {' '.join(rule['by'].split())}"
    parts = [f"{' '.join(part['where'].split())} ({part['documents']:,})" for part in rule["parts"]]
    return f"the rule is true of {fit:,} of {rule['documents']:,} documents: {' and '.join(parts)}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines()[:20])


def _marked(text: str, location: int, length: int) -> str:
    """The line of a rule that holds a place, with a caret under it; all of the rule where the place is unknown.

    Args:
        text: the rule.
        location: in UTF-8 bytes of the query that was parsed.
        length: in bytes.
    """
    data = text.encode()
    start = int(location) - len(_OPEN)
    if not 0 <= start <= len(data):
        return _indented(text)
    before = data[:start].decode(errors="replace")
    marked = data[start : start + max(int(length), 1)].decode(errors="replace").partition("\n")[0]
    line = before.count("\n")
    column = len(before) - before.rfind("\n") - 1
    lines = text.split("\n")
    shown = lines[line].replace("\t", " ")
    return f"  {shown}\n  {' ' * column}{'^' * max(len(marked), 1)}"


@dataclass(frozen=True)
class UrlList:
    """Addresses and hosts, for `url_in`.

    In the file stands one a line; empty lines and those that begin with # are passed over. A line with a slash is an
    address, the same with any scheme; one without is a host, with all hosts below it.

    Attributes:
        addresses: without scheme.
        hosts: lower-cased, without "www.".
        sha256: of the file.
    """

    addresses: pa.Array
    hosts: frozenset[str]
    sha256: str

    @classmethod
    def read(cls, path: str) -> UrlList:
        """Read a list.

        Raises:
            ConfigError: it cannot be read, or is no text.
        """
        try:
            about = Path(path).stat()
            return _read_list(path, about.st_mtime_ns, about.st_size)
        except OSError as error:
            raise ConfigError(f"url_in: {path}: cannot read this list: {error.strerror or error}") from error
        except ValueError as error:
            raise ConfigError(f"url_in: {path}: is no text in UTF-8") from error

    def has(self, urls: Any, hosts: Any) -> pa.Array:
        """bool[n]: which documents are in the list; one without an address is in none.

        Args:
            urls: string[n], with nulls.
            hosts: string[n], their hosts, with nulls.
        """
        plain = pc.replace_substring_regex(urls, _SCHEME, "")
        found = pc.is_in(plain, value_set=self.addresses)
        encoded = hosts.combine_chunks() if isinstance(hosts, pa.ChunkedArray) else hosts
        encoded = encoded.dictionary_encode()
        listed = pa.array([self._has_host(host) for host in encoded.dictionary.to_pylist()], pa.bool_())
        of_host = pc.fill_null(listed.take(encoded.indices), False)
        return pc.or_(pc.fill_null(found, False), of_host)

    def _has_host(self, host: str | None) -> bool:
        while host:
            if host in self.hosts:
                return True
            host = host.partition(".")[2]
        return False


@functools.lru_cache(maxsize=8)
def _read_list(path: str, modified: int, size: int) -> UrlList:
    content = Path(path).read_bytes()
    lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    lines = [re.sub(_SCHEME, "", line) for line in lines if line and not line.startswith("#")]
    addresses = sorted({line for line in lines if "/" in line.rstrip("/")})
    hosts = {line.rstrip("/").lower().removeprefix("www.") for line in lines if "/" not in line.rstrip("/")}
    return UrlList(pa.array(addresses, pa.string()), frozenset(hosts), hashlib.sha256(content).hexdigest())
