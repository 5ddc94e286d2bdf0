"""Ten thousand broken configs and overrides: each loads, or is refused in words that a user can follow."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from filters.annotate.config import AnnotateConfig
from filters.annotate.rubric import Rubric
from filters.config.filter import FilterConfig
from filters.config.yaml_file import load_config
from filters.errors import ConfigError
from filters.train.config import TrainConfig

CASES = 10_000
SCHEMAS: dict[type[BaseModel], str] = {
    FilterConfig: """\
input: {kind: jsonl, paths: [a.jsonl], columns: [url], slices: [topic]}
language: {keep: [en], min_score: 0.5}
heuristics: [{name: gopher_quality, options: {min_doc_words: 5}}]
decontaminate: {files: [b.jsonl], keys: [question]}
dedup: {keep: first, near: {bands: 14, rows: 8, verify: 0.5}, memory: 1GiB}
keep: {fraction: 0.1, quota: {by: language, shares: {en: 0.5}}}
output:
  path: out
  repeat: {by: score, curve: [[1, 1], [2, 3]]}
  buckets: {borders: [0.5], names: [a, b]}
executor: {kind: local, workers: 2, slurm: {time: 24:00:00, memory_per_cpu: 4GB}}
quarantine: {max_share: 0.1}
""",
    TrainConfig: """\
annotations: a.parquet
output: out
name: mine
language: en
classifier:
  kind: ensemble
  members: [{kind: linear, bits: 10, l2: [1]}, {kind: encoder, encoder: e, layers: [3, 4], head: {kind: svr}}]
distill: {teacher: {kind: fasttext, lr: 0.5}, texts: [t.parquet]}
keep: {min_score: 1.5}
remarks: [one, two]
""",
    AnnotateConfig: """\
input: {kind: parquet, paths: [pages]}
sample: {size: 20, design: stratified, strata: [length]}
rubric: r.yaml
judges: [{name: j, base_urls: [http://127.0.0.1:1/v1], model: m, price: {input: 1, output: 2}, extra_body: {a: 1}}]
budget: {max_money: 20, max_tokens: 10000000}
store: s.sqlite
""",
    Rubric: """\
name: edu
version: "1"
scale: {min: 0, max: 5}
label: Score
prompt: Say from 0 to 5 how good this page is.
examples: [{text: page, reason: short, score: 3}]
""",
}
VALUES = [
    "null", "~", "true", "no", "off", "[]", "{}", "''", '"\\0"', '"\\ud800"', '"\\x1b[2J"', ".nan", "-.inf", "-0.0",
    "1e400", "1e-400", "0", "-1", "3.5", str(2**63), str(-(2**64)), "9" * 5000, "'" + "9" * 5000 + "'",
    "0x" + "f" * 6000, "0b1", "0o17", "017", "1_000", "12:30:45", "190:20:30.15", "2024-01-01",
    "2024-01-01T10:00:00Z", "!!int abc", "!!int ''", "!!float x", "!!bool maybe", "!!null x", "!!binary aGVsbG8=",
    "!!binary '***'", "!!timestamp 2024-13-45", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!str 5",
    "!!python/object/apply:os.system ['true']", "!!seq {a: 1}", "!!map [1]", "!unknown x", "&a [*a]", "&a {b: *a}",
    "*nowhere", "{<<: {kind: jsonl}}", "{<<: [1]}", "{<<: &m {<<: *m}}", "{1: 2}", "{null: 1}", "{no: 1}",
    "{[a]: 1}", "{a: 1, a: 2}", "{? {a: b} : c}", "[[[[[[1]]]]]]", "[" * 30 + "]" * 30,
    "{a: " * 30 + "1" + "}" * 30, "{'': 1}", "{a b: 1}", "a\tb", "\tx", "'a", '"a', "@x", "`x`", "%x", "|\n  a",
    "--- 1", "...", "s3://bucket/x", "s3://user:password@bucket/x", "file:///x", "https://h/x",
    "$NOT_SET_ANYWHERE/x", "~/x", "~nobody-here/x", "${", "$HOME/x", "a/../b", "/", ".", "en", "english", "xx",
    "EN-us", "jsonl", "1GB", "1 ZB", "1" * 400 + "GB", "0.5", "[0.5, 0.5]", "[1, 2, 3, 4, 5, 6, 7, 8, 9]",
    "[en, en]", "[en, 3]", "[[1, 1], [1, 2]]", "{kind: linear}", "{kind: svr, c: x}", "{kind: [1]}", "{name: url}",
    "{options: {a: {b: [1, .nan]}}}", "é", "日本", "\u202e", "=", "<<", "!!float .nan", "!!str", "[a, [b], {c: d}]",
    "{by: source, shares: {x: 2}}", "9223372036854775807", "1.7976931348623157e+308", "4.9e-324", "[~, ~]", "- a",
    "? a", "a: b: c",
]  # fmt: skip
PYTHON = re.compile(r"\b(tuple|dict|NoneType|instance|None|True|False|datetime|unhashable|Traceback)\b|<class|\[type=")


PLACES = re.compile(r"(?<=: )[^,{}\[\]\n]+|(?<=: )\[[^\[\]]*\]|(?<=: )\{[^{}]*\}|\b[a-z_]+(?=:)")


SECTION = re.compile(r"^(?=\w)", re.MULTILINE)
NEEDED = ("input", "output", "annotations", "name", "rubric", "judges", "store", "version", "scale", "label", "prompt")


def mutated(text: str, generator: random.Random) -> str:
    """`text` with one to three of its lines or values changed."""
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        places = list(PLACES.finditer(text))
        if not places:
            break
        place = generator.choice(places)
        text = text[: place.start()] + generator.choice(VALUES) + text[place.end() :]
        if generator.random() < 0.1:
            at = generator.randrange(len(text) + 1)
            text = (
                text[:at]
                + generator.choice(["\t", "\0", "\n", ":", "}", "- ", "\ufeff", "\x85", "&a ", "*a", "#"])
                + text[at:]
            )
    return text


def part(text: str, generator: random.Random) -> str:
    """Half of the sections of `text`, with those that a config must have."""
    sections = SECTION.split(text)
    return "".join(one for one in sections if one.startswith(NEEDED) or generator.random() < 0.5)


def keys_of(schema: type[BaseModel]) -> list[str]:
    """Paths of keys, three levels deep, right and wrong ones."""
    from filters.config.yaml_file import sections_of

    found = ["", ".", "nothing", "input.paths.0", "judges.0.name", "classifier.members.1.kind"]
    for name, field in schema.model_fields.items():
        found.append(name)
        for model in sections_of(field.annotation):
            for inner, deeper in model.model_fields.items():
                found.append(f"{name}.{inner}")
                found += [
                    f"{name}.{inner}.{key}" for part in sections_of(deeper.annotation) for key in part.model_fields
                ]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_config_loads_or_is_refused_in_plain_words(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    path = tmp_path / "c.yaml"
    schemas = list(SCHEMAS)
    keys = {schema: keys_of(schema) for schema in schemas}
    refused = 0
    for number in range(CASES // 4):
        schema = schemas[number % len(schemas)]
        text, overrides = part(SCHEMAS[schema], generator), []
        if number % 2:
            text = mutated(text, generator)
        else:
            overrides = [
                f"{generator.choice(keys[schema])}={generator.choice(VALUES)}"
                for _ in range(generator.choice((1, 1, 2)))
            ]
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            load_config(schema, path, overrides)
        except ConfigError as error:
            refused += 1
            message = str(error)
            assert str(path) in message or "--set" in message
            assert len(message) < 20_000, message[:1000]
            for value in [text, *overrides]:  # a word of the config's own is no word of Python
                message = message.replace(value, "")
            assert not PYTHON.search(message), (message, overrides, text)
        except Exception as error:
            raise AssertionError(f"{error!r:.500} from {overrides} and\n{text[:3000]}") from error
    assert refused > CASES // 16
