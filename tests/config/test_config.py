"""Configs: what they accept, and how precisely they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from benchmarks.gate import Floors
from filters.annotate.config import AnnotateConfig
from filters.annotate.rubric import Rubric
from filters.annotate.sampling import SampleConfig
from filters.config.filter import FilterConfig, parse_size
from filters.config.yaml_file import Section, load_config, sections_of
from filters.errors import ConfigError
from filters.model.folder import Manifest
from filters.train.config import TrainConfig

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
    assert [Path(config.input.at(path)).resolve() for path in config.input.paths] == [
        Path("b").resolve(),
        Path("c").resolve(),
    ]


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path: Path) -> None:
    schemas = {"train": TrainConfig, "judge": AnnotateConfig}
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
def test_every_run_may_have_a_budget(config_file: Path, rule: str) -> None:
    keep = FilterConfig.load(config_file, ["keep.min_score=null", f"keep.{rule}"]).keep
    assert (keep.fraction, keep.tokens, keep.min_score).count(None) == 2


@pytest.mark.parametrize(("scope", "stays"), [("stream", "first"), ("global", "best"), ("[1]", "best")])
def test_the_scope_of_0_1_is_refused_with_the_key_to_write(config_file: Path, scope: str, stays: str) -> None:
    message = refusal(config_file, f"dedup.scope={scope}")
    assert f"{config_file}: dedup: scope is gone" in message
    assert f"write keep: {stays} in its place" in message


def test_two_rules_are_refused(config_file: Path) -> None:
    message = refusal(config_file, "keep.min_score=1", "keep.fraction=0.1")
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
            ["output.path=s3://bucket/run", "executor.kind=slurm"],
            "needs output.work: a folder on a file system that all nodes see",
        ),
    ],
)
def test_addresses_that_cannot_be_written_to_are_refused(config_file: Path, overrides: list[str], what: str) -> None:
    message = refusal(config_file, *overrides)
    assert what in message
    assert "secret" not in message


@pytest.mark.parametrize("address", ["s3://", "https:///", "gs://?versions=1"])
def test_an_input_address_without_a_bucket_is_refused(config_file: Path, address: str) -> None:
    with pytest.raises(ConfigError, match="an address names a bucket or a host"):
        FilterConfig.load(config_file, [f"input.paths=['{address}']"])


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
    ["keep.min_score", "keep.tokens", "quarantine.max_share", "dedup.near.similarity", "heuristics.0.options.x.y",
     "input.storage_options.a"],
)  # fmt: skip
def test_no_section_takes_a_number_that_is_none(tmp_path: Path, key: str, number: str) -> None:
    value: object = yaml.safe_load(number)
    for part in reversed(key.split(".")):
        value = [{"name": "url"} | value] if part == "0" and isinstance(value, dict) else {part: value}
    assert isinstance(value, dict)
    base = {"input": {"kind": "jsonl", "paths": ["x"]}, "output": {"path": "y"}}
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
            found |= {inner for model in sections_of(field.annotation) for inner in sections(model)}
        return found

    for schema in (FilterConfig, TrainConfig, AnnotateConfig, SampleConfig, Rubric, Manifest, Floors):
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
    with pytest.raises(ConfigError, match=r"c\.yaml:\d+: not valid YAML: .*alias"):
        FilterConfig.load(path)
    path.write_text("input: {kind: jsonl, paths: [a]}\noutput: {path: o}")
    with pytest.raises(ConfigError, match=r"--set .*alias"):
        FilterConfig.load(path, [f"input.storage_options={{{text.replace(chr(10), ', ')}}}"])


def test_aliases_save_writing(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("input: {kind: jsonl, paths: &p [a, b]}\ndecontaminate: {files: *p}\noutput: {path: o}")
    config = FilterConfig.load(path)
    assert config.decontaminate is not None
    assert config.decontaminate.files == config.input.paths == ("a", "b")
    assert config.decontaminate.at("a") == config.input.at("a") == str(tmp_path / "a")


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 2024-01-01\n", None, "unknown key"),
        ("max_files: !!int abc\n", 5, "'abc' is no int"),
        (f"max_files: {'9' * 5000}\n", 5, "so many digits"),
        (f"max_files: {2**64}\n", 5, "a whole number can be"),
        ("max_files: 0x" + "f" * 9000 + "\n", 5, "a whole number can be"),
        ("text_key: !!binary aGVsbG8=\n", 5, "tag"),
        ('text_key: "a\\0b"\n', 5, "U+0000"),
        ("text_key: a\n  text_key: b\n", 6, "'text_key' stands here twice, first in line 5"),
        ("1: x\n", 5, "put '1' in quotes"),
        ("text_key: &a [*a]\n", 5, "inside of what it names"),
        ("\ttext_key: a\n", 5, "not tabs"),
        ("text_key: *nowhere\n", 5, "undefined alias"),
        ("text_key: 5\n", 5, "should be text (got 5)"),
        ("columns: {a: b}\n", 5, "should be a list (got a mapping)"),
    ],
)
def test_what_yaml_says_wrong_is_told_with_its_line(tmp_path: Path, text: str, line: int | None, what: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("output:\n  path: out\ninput:\n  kind: jsonl\n  " + text)
    message = refusal(path)
    assert what in message
    assert line is None or f"{path}:{line}" in message


def test_dates_times_and_versions_are_text_and_merge_keys_work(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "input: &i {kind: jsonl, paths: [2024-01-01], text_key: 12:30:45}\noutput: {path: out}\n"
        "executor: {slurm: {time: 24:00:00}}\n"
    )
    config = FilterConfig.load(path)
    assert config.input.paths == ("2024-01-01",)
    assert config.input.text_key == "12:30:45"
    assert config.executor.slurm.time == "24:00:00"


def test_one_value_stands_for_a_list_of_one(config_file: Path) -> None:
    config = FilterConfig.load(
        config_file,
        ["input.paths=b.jsonl", "input.columns=url", "language.keep=en", "heuristics={name: gopher_quality}"],
    )
    assert len(config.input.paths) == 1
    assert config.input.columns == ("url",)
    assert config.language is not None
    assert config.language.keep == ("en",)
    assert [heuristic.name for heuristic in config.heuristics] == ["gopher_quality"]


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        ("english", "en"),
        ("EN", "en"),
        ("en-US", "en"),
        ("eng", "en"),
        ("jp", "ja"),
        ("germann", "de"),
        ("zh_Hans", "zh"),
    ],
)
def test_a_language_that_is_no_code_is_refused_with_the_one_that_is_meant(
    config_file: Path, code: str, meant: str
) -> None:
    message = refusal(config_file, f"language.keep=[{code}]")
    assert f"did you mean {meant!r}" in message
    assert "language.keep.0" in message
    path = config_file.with_name("t.yaml")
    path.write_text(f"annotations: a\noutput: o\nname: n\nlanguage: {code}\n")
    with pytest.raises(ConfigError, match=f"{path}:4: language: .*did you mean {meant!r}"):
        load_config(TrainConfig, path)


def test_an_unknown_language_is_refused_and_an_unquoted_no_is_explained(config_file: Path) -> None:
    assert "'xx' is no language code" in refusal(config_file, "language.keep=[xx]")
    assert """--set 'KEY="no"'""" in refusal(config_file, "language.keep=[en, no]")
    assert FilterConfig.load(config_file, ["language.keep=['no', nn]"]).language is not None
    message = refusal(config_file, "dedup.scope=global", "keep={fraction: 0.5, quota: {shares: {klingon: 0.1}}}")
    assert "klingon" in message


def test_language_codes_are_those_that_the_model_can_give() -> None:
    from filters.config.languages import NAMES
    from filters.kernels.language import LanguageIdentifier

    assert set(NAMES) == set(LanguageIdentifier.bundled().codes)


def test_relative_paths_are_relative_to_the_config_and_those_of_overrides_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub" / "here").mkdir(parents=True)
    path = tmp_path / "sub" / "c.yaml"
    path.write_text(
        "input: {kind: jsonl, paths: [../a.jsonl, s3://b/c, /abs/d, 'x*.jsonl']}\noutput: {path: out}\n"
        "model: m\ndecontaminate: {files: [b]}\n"
    )
    for folder, to_sub in ((tmp_path, "sub"), (tmp_path / "sub", "."), (tmp_path / "sub" / "here", "..")):
        monkeypatch.chdir(folder)
        for spelled in (Path(to_sub) / "c.yaml", path):
            config = FilterConfig.load(spelled)
            assert Path(config.output.path).resolve() == tmp_path / "sub" / "out"
            assert config.input.paths == ("../a.jsonl", "s3://b/c", "/abs/d", "x*.jsonl")
            assert config.input.at("s3://b/c") == "s3://b/c"
            assert (config.model, config.at("m")) == ("m", str(tmp_path / "sub" / "m"))
            given = FilterConfig.load(spelled, ["output.path=mine", "model=edu-en", "input.paths=[z]"])
            assert (given.output.path, given.model) == ("mine", "edu-en")
            assert Path(given.input.at(given.input.paths[0])).resolve() == folder / "z"
    monkeypatch.chdir(tmp_path)
    assert FilterConfig.load("sub/c.yaml").output.path == "sub/out"
    assert FilterConfig.load("sub/c.yaml", ["input.paths=[sub/z, z]"]).input.paths == ("z", "../z")
    assert FilterConfig.load("sub/c.yaml", ["model=./edu-en"]).model == "../edu-en"
    monkeypatch.chdir(tmp_path / "sub")
    assert FilterConfig.load("c.yaml", ["model=./edu-en"]).model == "./edu-en"


def test_a_rubric_of_train_is_relative_to_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "train.yaml"
    path.write_text("{annotations: a.parquet, output: out, name: m, rubric: edu.yaml, classifier: {kind: linear}}")
    monkeypatch.chdir(tmp_path)
    assert load_config(TrainConfig, path).rubric == "sub/edu.yaml"
    assert load_config(TrainConfig, path, ["rubric=edu.yaml"]).rubric == "edu.yaml"


def test_home_and_variables_are_expanded_or_refused(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DUMP", "/dump")
    monkeypatch.delenv("NOTHING", raising=False)
    config = FilterConfig.load(
        config_file, ["input.paths=[~/a, $DUMP/b, '${DUMP}/c', 's3://x/$DUMP']", "output.path=~/run"]
    )
    assert config.input.paths == ("/home/me/a", "/dump/b", "/dump/c", "s3://x//dump")
    assert config.output.path == "/home/me/run"
    assert "no variable NOTHING" in refusal(config_file, "input.paths=[$NOTHING/a]")
    assert "no such user" in refusal(config_file, "output.path=~nobody-of-this-name/a")


def test_a_folder_with_the_signs_of_a_pattern_in_its_name_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "run[1]"
    folder.mkdir()
    (folder / "a.jsonl").write_text("")
    (folder / "c.yaml").write_text(GOOD.replace("a.jsonl", "'*.jsonl'"))
    from filters.read.units import plan_units

    assert [unit.address for unit in plan_units(FilterConfig.load(folder / "c.yaml").input)] == [
        str(folder / "a.jsonl")
    ]


@pytest.mark.parametrize(
    ("name", "verb"),
    [
        ("train-edu-linear.yaml", "train"),
        ("judge.yaml", "annotate"),
        ("parquet.yaml", "filter"),
    ],
)
def test_a_config_of_another_command_is_named_as_such(name: str, verb: str) -> None:
    for other, schema in {
        "filter": FilterConfig,
        "train": TrainConfig,
        "annotate": AnnotateConfig,
    }.items():
        if other == verb:
            continue
        with pytest.raises(ConfigError, match=f"call finesieve {verb} configs/{name}"):
            load_config(schema, Path("configs") / name)


def test_an_override_reaches_into_lists_and_leaves_aliases_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "input: {kind: jsonl, paths: [a], storage_options: &o {k: 1}}\ndedup: {storage_options: *o}\n"
        "heuristics: [{name: c4_quality}]\noutput: {path: out}\n"
    )
    config = FilterConfig.load(path, ["input.storage_options.k=2", "heuristics.0.name=url"])
    assert (config.input.storage_options, config.dedup.storage_options) == ({"k": 2}, {"k": 1})
    assert config.heuristics[0].name == "url"


def test_one_input_or_several(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "inputs:\n- {kind: jsonl, paths: a.jsonl, slices: topic}\n- kind: parquet\n  path: b\n"
        f"output: {{path: {tmp_path}/run}}\n"
    )
    with pytest.raises(ConfigError, match=r"c.yaml:4: inputs.1.path: unknown key; did you mean 'paths'"):
        FilterConfig.load(path)
    path.write_text(path.read_text().replace("path: b", "paths: [b, c]"))
    several = FilterConfig.load(path, ["inputs.1.text_key=body"])
    assert [(one.kind, one.text_key, len(one.paths)) for one in several.reads] == [
        ("jsonl", "text", 1),
        ("parquet", "body", 2),
    ]
    assert several.slices == ("topic",)
    one = {"kind": "jsonl", "paths": ["a"]}
    for sections, message in (
        ({"inputs": []}, "what to read is missing: give `input`"),
        ({}, "what to read is missing: give `input`"),
        ({"input": one, "inputs": [one]}, "not both"),
    ):
        with pytest.raises(ValidationError, match=message):
            FilterConfig.model_validate({"output": {"path": "run"}} | sections)
    short = FilterConfig.model_validate({"input": one, "output": {"path": "run"}})
    long = FilterConfig.model_validate({"inputs": [one], "output": {"path": "run"}})
    assert short.deciding() == long.deciding()
