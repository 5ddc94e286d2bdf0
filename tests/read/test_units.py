from __future__ import annotations

import dataclasses
import gzip
import json
import os
import pickle
from pathlib import Path

import pytest
from synthetic import json_lines, read_all

from filters.config.filter import FilterConfig, InputConfig
from filters.errors import InputError
from filters.read import units as units_module
from filters.read.batch import derived_ids
from filters.read.unit import Unit
from filters.read.units import plan_units, source_names

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "data/b.jsonl",
        "data/a.jsonl.gz",
        "data/deep/c.jsonl",
        "data/_SUCCESS",
        "data/x.csv",
        "data/.h.jsonl",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(json_lines(2))
    return tmp_path


def sources(*paths: str, **options: object) -> list[str]:
    return [
        unit.source for unit in plan_units(InputConfig.model_validate({"kind": "jsonl", "paths": paths, **options}))
    ]


def test_folders_globs_and_files_in_sorted_order(folder: Path) -> None:
    assert sources("data") == ["data/a.jsonl.gz", "data/b.jsonl", "data/deep/c.jsonl"]
    assert sources("data/*.jsonl") == ["data/b.jsonl"]
    assert sources("data/**/*.jsonl") == ["data/b.jsonl", "data/deep/c.jsonl"]
    assert sources("data/b.jsonl", "data/a.jsonl.gz", "data/*") == [
        "data/_SUCCESS",
        "data/a.jsonl.gz",
        "data/b.jsonl",
        "data/x.csv",
    ]
    assert sources(str(folder / "data" / "b.jsonl")) == [str(folder / "data" / "b.jsonl")]
    assert sources("data", max_files=2) == ["data/a.jsonl.gz", "data/b.jsonl"]


def test_a_name_with_glob_characters_is_taken_as_it_is(folder: Path) -> None:
    (folder / "a[1].jsonl").write_bytes(json_lines(1))
    assert sources("a[1].jsonl") == ["a[1].jsonl"]


@pytest.mark.parametrize("pattern", ["none.jsonl", "data/*.parquet", "nowhere/**"])
def test_a_pattern_that_matches_nothing_is_named(folder: Path, pattern: str) -> None:
    with pytest.raises(InputError) as error:
        sources("data", pattern)
    assert pattern in str(error.value)


def test_a_folder_without_files_of_the_kind_says_what_it_looked_for(folder: Path) -> None:
    with pytest.raises(InputError, match=r"data: no file in this folder ends with \.parquet"):
        sources("data", kind="parquet")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_paths_file_keeps_its_order(folder: Path, pack) -> None:
    (folder / "list").write_bytes(pack(b"b.jsonl\n\ndeep/c.jsonl\r\na.jsonl.gz\nb.jsonl\n"))
    assert sources(paths_file="list", prefix="data/") == ["data/b.jsonl", "data/deep/c.jsonl", "data/a.jsonl.gz"]


def test_a_listed_file_that_does_not_exist_is_an_error_of_the_plan(folder: Path) -> None:
    (folder / "list").write_text("data/b.jsonl\ndata/gone.jsonl\n")
    with pytest.raises(InputError, match=r"data/gone\.jsonl"):
        sources(paths_file="list")


def test_a_list_that_is_none_is_an_error(folder: Path) -> None:
    for content in (b"", b"\n \n", b"\x1f\x8b\x08 cut", b"\xff\xfe"):
        (folder / "list").write_bytes(content)
        with pytest.raises(InputError, match="list"):
            sources(paths_file="list")


def test_units_travel_as_json_and_pickle(folder: Path) -> None:
    for unit in plan_units(InputConfig(kind="jsonl", paths=("data",))):
        assert Unit(**json.loads(json.dumps(dataclasses.asdict(unit)))) == unit
        assert pickle.loads(pickle.dumps(unit)) == unit
        assert unit.size == os.path.getsize(unit.address)


def test_a_file_name_that_is_no_utf8_gets_a_printable_source(folder: Path) -> None:
    name = os.fsdecode(b"data/caf\xe9.jsonl")
    try:
        Path(name).write_bytes(json_lines(2))
    except OSError:
        pytest.skip("this file system only takes UTF-8 names")
    assert sources(name) == [r"data/caf\xe9.jsonl"]
    assert len(read_all(InputConfig(kind="jsonl", paths=(name,)))) == 2
    # A file whose name looks like that one's has an account of its own, and so has any other.
    Path(r"data/caf\xe9.jsonl").write_bytes(json_lines(3))
    Path(r"data/caf\\xe9.jsonl").write_bytes(json_lines(1))
    found = source_names([name, r"data/caf\xe9.jsonl", r"data/caf\\xe9.jsonl", r"data/a\b.jsonl"])
    assert found == [r"data/caf\xe9.jsonl", r"data/caf\\xe9.jsonl", r"data/caf\\\\xe9.jsonl", r"data/a\b.jsonl"]
    assert len(set(sources("data"))) == len(sources("data"))


def test_addresses_that_look_the_same_without_their_signatures_have_names_of_their_own() -> None:
    addresses = [
        "http://h/a?id=1&sig=x",
        "http://h/a?id=2&sig=x",
        "http://h/b?sig=x",
        "http://h/b?sig=y",
        "http://h/b#2",
    ]
    assert source_names(addresses)[:4] == ["http://h/a?id=1", "http://h/a?id=2", "http://h/b", "http://h/b#2"]
    assert len(set(source_names(addresses))) == 5


def test_derived_ids_differ_by_source_and_position_and_stay() -> None:
    assert derived_ids("a", [1]) == ["d75f5971ceb7f94189e3de24b7da3089"]
    ids = derived_ids("a", range(1000)) + derived_ids("b", range(1000)) + derived_ids("a0", range(1000))
    assert len(set(ids)) == 3000
    assert derived_ids("a", range(1000)) == ids[:1000]


@pytest.mark.parametrize("name", ["common-crawl", "fineweb"])
def test_shipped_configs_are_valid(name: str) -> None:
    config = FilterConfig.load(ROOT / "configs" / f"{name}.yaml")
    if name == "fineweb":
        assert (config.input.kind, config.input.dataset, config.input.subset) == (
            "hub",
            "HuggingFaceFW/fineweb",
            "sample-10BT",
        )
    else:
        assert config.input.kind == "warc"
        assert config.input.paths_file is not None
        assert config.input.paths_file.endswith("warc.paths.gz")
        assert config.language is not None
        assert config.language.keep == ("en",)
    assert config.model == "edu-en"
    assert config.dedup.exact
    assert config.dedup.near is not None


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target, target_is_directory=True)


def test_linked_folders_are_read_once_each_and_circles_end(folder: Path) -> None:
    (folder / "other" / "deep").mkdir(parents=True)
    (folder / "other" / "d.jsonl").write_bytes(json_lines(2))
    (folder / "other" / "deep" / "e.jsonl").write_bytes(json_lines(2))
    for name, target in {
        "data/disk2": "../other",
        "data/disk3": "../other/deep",  # read as a part of disk2
        "data/again": "deep",
        "data/here": ".",
        "data/up": "..",
        "data/deep/round": "../deep",
        "other/back": "../data",
        "other/self": "../data/disk2",
        "data/gone": "nowhere",
    }.items():
        link(folder / name, target)
    assert sources("data") == [
        "data/a.jsonl.gz",
        "data/b.jsonl",
        "data/deep/c.jsonl",
        "data/disk2/d.jsonl",
        "data/disk2/deep/e.jsonl",
    ]
    link(folder / "entry", "data")
    assert len(sources("entry")) == 5
    found = ["data/b.jsonl", "data/deep/c.jsonl", "data/disk2/d.jsonl", "data/disk2/deep/e.jsonl"]
    assert sources("data/**/*.jsonl") == found
    assert sources("da*/**/*.jsonl", "data/**/deep/*.jsonl") == found
    assert sources("**/*.jsonl") == [*found[:2], "other/d.jsonl", "other/deep/e.jsonl"]


def test_what_is_no_ordinary_file_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jsonl")
    with pytest.raises(InputError, match=r"pipe\.jsonl: no ordinary file.*Remedy: "):
        sources("pipe.jsonl")


def test_a_file_with_many_names_is_read_once_and_told(folder: Path) -> None:
    link(folder / "data" / "link.jsonl", "b.jsonl")
    os.link(folder / "data" / "b.jsonl", folder / "data" / "same.jsonl")
    link(folder / "entry", "data")
    (folder / "list").write_text("data/b.jsonl\ndata/deep/c.jsonl\n./data/deep/../deep/c.jsonl\n")
    b, c = "data/b.jsonl", "data/deep/c.jsonl"
    for paths, given, once in (
        ((b, b), {}, [b]),
        (("data/*.jsonl", b), {}, [b]),
        ((b, f"./{b}", str(folder / b), f"data/deep/../../{b}"), {}, [f"./{b}"]),
        (("data/link.jsonl", b, "data/same.jsonl"), {}, [b]),
        (("entry", "data"), {}, ["data/a.jsonl.gz", b, c]),
        ((), {"paths_file": "list"}, [b, c]),
        ((c,), {"paths_file": "list", "max_files": 2}, [c, b]),
    ):
        told: list[str] = []
        config = InputConfig.model_validate({"kind": "jsonl", "paths": paths, **given})
        found = [unit.source for unit in plan_units(config, told.append)]
        assert sorted(map(os.path.realpath, found)) == sorted(map(os.path.realpath, once))
        assert len([line for line in told if line.startswith("named more than once, read once: ")]) == 1
    told = []
    plan_units(InputConfig(kind="jsonl", paths=("data/deep",)), told.append)
    assert told == []


def test_inputs_that_share_a_file_read_it_once_or_are_refused(folder: Path) -> None:
    link(folder / "other.jsonl", "data/b.jsonl")
    first, told = InputConfig(kind="jsonl", paths=("data/a.jsonl.gz", "data/b.jsonl")), list[str]()
    again = InputConfig(kind="jsonl", paths=("other.jsonl", "data/deep"), retries=3)
    units = plan_units([first, again], told.append)
    assert [(unit.index, unit.source, unit.input) for unit in units] == [
        (0, "data/a.jsonl.gz", 0),
        (1, "data/b.jsonl", 0),
        (2, "data/deep/c.jsonl", 1),
    ]
    assert told == ["named more than once, read once: other.jsonl"]
    for change, keys in (({"text_key": "body"}, "text_key"), ({"kind": "wet", "id_key": "n"}, "kind, id_key")):
        other = again.model_copy(update=change)
        with pytest.raises(InputError, match=rf"other.jsonl: inputs.0 and inputs.1 .* another {keys}\. Remedy"):
            plan_units([first, other.model_copy(update={"paths": ("other.jsonl",)})])


def test_hidden_parts_below_the_folder_are_left_out_but_not_above(folder: Path) -> None:
    for name in ("_run/.cache/in/a.jsonl", "_run/.cache/in/_temporary/0/b.jsonl", "_run/.cache/in/x/.y/c.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(json_lines(1))
    assert sources("_run/.cache/in") == ["_run/.cache/in/a.jsonl"]
    assert sources("_run/.cache/in/_temporary") == ["_run/.cache/in/_temporary/0/b.jsonl"]


def test_suffixes_count_in_any_case_and_what_is_not_taken_is_told_by_suffix(folder: Path) -> None:
    for name in ("c.JSONL", "d.Jsonl.GZ", "e.jsonl.zstd", "f.ndjson.xz", "y.CSV", "z.csv", "t.tar.gz", "README"):
        (folder / "data" / name).write_bytes(b"")
    told: list[str] = []
    units = plan_units(InputConfig(kind="jsonl", paths=("data",)), told.append)
    assert [unit.source for unit in units] == [
        f"data/{name}"
        for name in (
            "a.jsonl.gz",
            "b.jsonl",
            "c.JSONL",
            "d.Jsonl.GZ",
            "deep/c.jsonl",
            "e.jsonl.zstd",
            "f.ndjson.xz",
        )
    ]
    assert told == [
        "data: not taken: 3 .csv (x.csv, y.CSV, ...), 1 .tar.gz (t.tar.gz), 2 named . or _ first (.h.jsonl, _SUCCESS), "
        "1 without a suffix (README)"
    ]
    told.clear()
    plan_units(InputConfig(kind="jsonl", paths=("data/deep",)), told.append)
    assert told == []
    (folder / "csv").mkdir()
    (folder / "csv" / "x.csv").write_bytes(b"")
    with pytest.raises(InputError, match=r"no file in this folder ends with .*; it has 1 \.csv \(x\.csv\)"):
        sources("csv")


def test_a_paths_file_that_unpacks_to_gigabytes_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units_module, "LIST_BYTES", 1 << 20)
    (folder / "list").write_bytes(gzip.compress(b"data/b.jsonl\n" + b"\n" * (64 << 20)))
    with pytest.raises(InputError, match="list: a list of paths of more than"):
        sources(paths_file="list")
