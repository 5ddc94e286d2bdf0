"""The JSON Schemas accept shipped configs and what `load_config` accepts, refuse wrong keys, and explain each key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from typer.testing import CliRunner

from filters.cli.main import app
from filters.config.filter import FilterConfig
from filters.config.json_schema import SCHEMAS, json_schema, meanings, schema_class
from filters.config.yaml_file import load_config, sections_of
from filters.model.folder import Manifest

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHIPPED = sorted(CONFIGS.rglob("*.yaml"))
SMALLEST: dict[str, Any] = {"input": {"kind": "parquet", "paths": ["a"]}, "output": {"path": "out"}}


def errors(schema: dict[str, Any], value: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(schema).iter_errors(value)]


def named_schema(path: Path) -> Path:
    """The file that the first line of a config names, as an editor finds it."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert found, f"{path}: the first line names no schema"
    return path.parent / found[1]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_config_is_valid_against_the_schema_it_names(path: Path) -> None:
    schema = json.loads(named_schema(path).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert errors(schema, given) == []
    assert errors(schema, given | {"colour": "blue"})


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_shipped_schemas_are_those_of_the_code(name: str) -> None:
    shipped = (CONFIGS / "schema" / f"{name}.json").read_text(encoding="utf-8")
    printed = CliRunner().invoke(app, ["schema", name]).stdout
    assert shipped == printed, f"configs/schema/{name}.json is out of date. Remedy: make schema"
    assert {path.stem for path in (CONFIGS / "schema").iterdir()} == set(SCHEMAS)


def test_filter_is_the_default_and_other_names_are_refused() -> None:
    assert json.loads(CliRunner().invoke(app, ["schema"]).stdout) == json_schema("filter")
    refused = CliRunner().invoke(app, ["schema", "inspect"])
    assert refused.exit_code == 2
    assert "filter, annotate, train, rubric" in refused.output


@pytest.mark.parametrize("text", [
    "dedup: {near: {shingles: 5}}",
    "dedup: {keep: newest}",
    "dedup: {near: {bands: many}}",
    "executor: {workers: 0}",
    "executor: {workers: two}",
    "output: {path: out, shard_size: big}",
    "output: {}",
    "keep: {fraction: 2}",
    "input: {kind: csv, paths: [a]}",
    "inputs: [{kind: wet, paths: [a]}]",
    "heuristics: [gopher_quality]",
    "colour: blue",
])  # fmt: skip
def test_what_is_wrong_is_refused(text: str) -> None:
    assert errors(json_schema("filter"), SMALLEST) == []
    assert errors(json_schema("filter"), SMALLEST | yaml.safe_load(text))


@pytest.mark.parametrize("text", [
    "input: {kind: jsonl, paths: one.jsonl, columns: topic, max_document_bytes: 1 MiB}",
    "language: {keep: en, min_score: '0.5'}",
    "keep: {tokens: 1e9}",
    "keep: {tokens: '10_000'}",
    "heuristics: {name: url}",
    "output: {path: out, repeat: {by: score, curve: [[1.5, 1], [3, 4]]}, shard_size: 512MiB}",
    "dedup: {near: null, memory: 2gib, max_source_loss: 0.5}",
])  # fmt: skip
def test_what_a_config_may_say_in_short_is_accepted(text: str, tmp_path: Path) -> None:
    given = SMALLEST | yaml.safe_load(text)
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(given))
    load_config(FilterConfig, path)
    assert errors(json_schema("filter"), given) == []


def test_a_kind_must_be_named() -> None:
    given = {"annotations": "a", "output": "b", "name": "c"}
    assert errors(json_schema("train"), given | {"classifier": {"kind": "linear", "bits": 18}}) == []
    assert errors(json_schema("train"), given | {"classifier": {"bits": 18}})


@pytest.mark.parametrize("root", [*map(schema_class, SCHEMAS), Manifest], ids=lambda root: root.__name__)
def test_every_key_of_every_section_has_a_meaning(root: type[BaseModel]) -> None:
    found: list[type[BaseModel]] = [root]
    for model in found:
        found += [one for field in model.model_fields.values() for one in sections_of(field.annotation)]
        assert model.__doc__, model
        said = meanings(model)
        assert {name for name in model.model_fields if not said.get(name, "").endswith((".", "/"))} == set(), model
        if len(found) > 500:
            raise AssertionError("sections hold each other")
