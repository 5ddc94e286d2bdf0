"""Configs: what they accept, and how precisely they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from filters.annotate.config import AnnotateConfig
from filters.annotate.rubric import Rubric
from filters.annotate.sampling import SampleConfig
from filters.config import FilterConfig, parse_size
from filters.config_file import Section, _models, load_config
from filters.errors import ConfigError
from filters.model.folder import Manifest
from filters.train.config import TrainConfig
from filters.train.gate import Floors
from filters.train.static_table import TableConfig

GOOD = """\
input:
  kind: jsonl
  paths: [a.jsonl]
output:
  path: out
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        FilterConfig.load(path, overrides)
    return str(caught.value)


def test_defaults_are_the_documented_ones(config_file: Path) -> None:
    config = FilterConfig.load(config_file)
    near = config.dedup.near
    assert near is not None
    assert (near.shingle, near.bands, near.rows) == (5, 14, 8)
    assert config.extract.engine == "resiliparse"
    assert config.output.format == "parquet"
    assert config.model == "edu-en"


def test_overrides_reach_nested_keys_and_create_sections(config_file: Path) -> None:
    config = FilterConfig.load(
        config_file, ["keep.min_score=2.5", "dedup.near=null", "output.shard_size=3 MiB", "input.paths=[b, c]"]
    )
    assert config.keep.min_score == 2.5
    assert config.dedup.near is None
    assert config.output.shard_size == 3 * 2**20
    assert config.input.paths == ("b", "c")


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path: Path) -> None:
    schemas = {"train": TrainConfig, "table": TableConfig, "judge": AnnotateConfig}
    load_config(schemas.get(path.stem.split("-")[0], FilterConfig), path)


def test_an_unknown_key_is_named_with_its_line_and_the_likely_one(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(GOOD + "  shard_sise: 3\n")
    message = refusal(path)
    assert f"{path}:6: output.shard_sise" in message
    assert "did you mean 'shard_size'" in message


def test_a_wrong_value_is_named_with_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(GOOD.replace("jsonl", "csv", 1))
    message = refusal(path)
    assert f"{path}:2: input.kind" in message
    assert "'parquet'" in message
    assert "got 'csv'" in message


def test_several_mistakes_are_all_told(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(GOOD.replace("kind: jsonl", "kind: csv") + "executor: {workers: 0}\n")
    assert len(refusal(path).splitlines()) == 2


def test_an_override_is_blamed_as_an_override(config_file: Path) -> None:
    assert f"{config_file} (--set): executor.workers" in refusal(config_file, "executor.workers=0")


@pytest.mark.parametrize("override", ["keep.min_score", "=3", "a..b=3", "output.path.deeper=1"])
def test_a_malformed_override_is_refused(config_file: Path, override: str) -> None:
    assert override in refusal(config_file, override)


@pytest.mark.parametrize("rule", ["fraction=0.1", "tokens=1.3e12"])
def test_rules_that_need_the_whole_dump_say_so(config_file: Path, rule: str) -> None:
    message = refusal(config_file, f"keep.{rule}")
    assert f"keep.{rule.split('=')[0]} needs the scores of the whole dump" in message
    assert "keep.min_score" in message
    assert "dedup.scope: global" in message


@pytest.mark.parametrize("rule", ["fraction=0.1", "tokens=1.3e12"])
def test_rules_that_need_the_whole_dump_are_allowed_where_it_is_seen(config_file: Path, rule: str) -> None:
    keep = FilterConfig.load(config_file, ["dedup.scope=global", "keep.min_score=null", f"keep.{rule}"]).keep
    assert (keep.fraction, keep.tokens, keep.min_score).count(None) == 2


def test_two_rules_are_refused(config_file: Path) -> None:
    message = refusal(config_file, "dedup.scope=global", "keep.min_score=1", "keep.fraction=0.1")
    assert "min_score and fraction" in message


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "a: [", "\t\n", "{" * 3000, "!!python/object/apply:os.system ['true']\n"]
)
def test_what_is_no_config_is_refused_without_executing_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert str(path) in refusal(path)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    assert "cannot read" in refusal(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot read" in refusal(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["output.path=https://server/run"], "web server"),
        (["output.path=file:///run"], "plain path"),
        (["output.path=s3://key:secret@bucket/run"], "storage_options"),
        (["output.path=s3://bucket/../run"], "without '..'"),
        (["output.path=s3://"], "names a bucket"),
        (["output.work=work"], "work belongs to an output.path that is an address"),
        (["output.path=s3://bucket/run", "output.work=s3://bucket/work"], "a folder of this machine"),
        (
            ["output.path=s3://bucket/run", "dedup.scope=global", "executor.kind=slurm"],
            "needs output.work: a folder on a file system that all nodes see",
        ),
    ],
)
def test_addresses_that_cannot_be_written_to_are_refused(config_file: Path, overrides: list[str], what: str) -> None:
    message = refusal(config_file, *overrides)
    assert what in message
    assert "secret" not in message


def test_a_run_behind_an_address_is_made_in_a_folder_of_its_own(config_file: Path) -> None:
    one = FilterConfig.load(config_file, ["output.path=s3://bucket/a/run/"]).output
    other = FilterConfig.load(config_file, ["output.path=s3://bucket/b/run"]).output
    assert one.path == "s3://bucket/a/run"
    assert one.place != other.place
    assert one.place.parent == Path("finesieve-work")
    assert FilterConfig.load(config_file, ["output.path=s3://b/run", "output.work=/shared/w"]).output.place == Path(
        "/shared/w"
    )


@pytest.mark.parametrize(
    ("text", "size"), [("3", 3), ("3kb", 3000), ("3 MiB", 3 * 2**20), ("1.5GB", 1_500_000_000), ("7 B", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["3 m", "x", "-3MB", "1e3", "MiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize(
    "key",
    ["keep.min_score", "keep.tokens", "quarantine.max_share", "dedup.near.verify", "heuristics.0.options.x.y",
     "input.storage_options.a"],
)  # fmt: skip
def test_no_section_takes_a_number_that_is_none(tmp_path: Path, key: str, number: str) -> None:
    value: object = yaml.safe_load(number)
    for part in reversed(key.split(".")):
        value = [{"name": "url"} | value] if part == "0" and isinstance(value, dict) else {part: value}
    assert isinstance(value, dict)
    base = {"input": {"kind": "jsonl", "paths": ["x"]}, "output": {"path": "y"}, "dedup": {"scope": "global"}}
    data = {name: base.get(name, {}) | value[name] if name in base else value[name] for name in value}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(base | data))
    with pytest.raises(ConfigError, match="finite number"):
        load_config(FilterConfig, path)


def test_every_section_has_the_one_base() -> None:
    """What pydantic knows of a number is what `Section` says: a section of its own would forget to refuse NaN."""

    def sections(schema: type[BaseModel]) -> set[type[BaseModel]]:
        found = {schema}
        for field in schema.model_fields.values():
            found |= {inner for model in _models(field.annotation) for inner in sections(model)}
        return found

    for schema in (FilterConfig, TrainConfig, TableConfig, AnnotateConfig, SampleConfig, Rubric, Manifest, Floors):
        assert all(issubclass(section, Section) for section in sections(schema))
        assert all(not section.model_config.get("allow_inf_nan", True) for section in sections(schema))


def aliases(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize("text", [aliases(9), "a: &a [*a]", "a: &a {b: *a}"])
def test_aliases_that_explode_are_refused_before_they_are_followed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml: not valid YAML: .*alias"):
        FilterConfig.load(path)
    path.write_text("input: {kind: jsonl, paths: [a]}\noutput: {path: o}")
    with pytest.raises(ConfigError, match=r"--set .*alias"):
        FilterConfig.load(path, [f"input.storage_options={{{text.replace(chr(10), ', ')}}}"])


def test_aliases_save_writing(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("input: {kind: jsonl, paths: &p [a, b]}\ndecontaminate: {files: *p}\noutput: {path: o}")
    assert (
        FilterConfig.load(path).decontaminate == FilterConfig.load(path, ["decontaminate.files=[a, b]"]).decontaminate
    )
