"""The reference has every key, command, option, column and file; the site's hooks lead every link somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
import yaml

from docs.reference import CAUSES, FILES, MANIFEST, QUARANTINE, REASONS, pages
from filters import run_filter
from filters.cli.main import app
from filters.config.filter import FilterConfig
from filters.config.json_schema import json_schema
from filters.phases.rows import (
    ATTRIBUTE_FIELDS,
    MEANINGS,
    OWN_FIELDS,
    REJECTED_FIELDS,
    added_fields,
    quarantine_line,
)
from filters.read.batch import Quarantined
from filters.scores.summary import BELOW, DUPLICATES

ROOT = Path(__file__).resolve().parents[1]
PAGES = pages()


@pytest.mark.parametrize("name", ["filter", "train", "annotate"])
def test_every_key_of_a_config_is_in_the_reference_with_its_meaning(name: str) -> None:
    schema = json_schema(name)
    lines = PAGES[f"reference/{name}.md"].splitlines()
    for section in (schema, *(one for one in schema["$defs"].values() if "properties" in one)):
        for key, value in section["properties"].items():
            found = [line for line in lines if line.startswith(f"| `{key}` |") and value["description"] in line]
            assert len(found) >= 1, key
            assert "anything" not in found[0].split(" | ")[1] or name != "filter", found[0]


def test_every_command_and_option_is_in_the_reference() -> None:
    group: Any = typer.main.get_command(app)
    page = PAGES["reference/commands.md"]
    parts = {part.split(" ", 1)[0]: part for part in page.split("\n## ")[2:]}
    assert list(parts) == list(group.commands)
    for name, command in group.commands.items():
        for one in command.params:
            shown = one.opts if one.param_type_name == "option" else [(one.metavar or one.name).upper().strip("[]")]
            assert all(option in parts[name] for option in shown if option != "--help"), (name, one.name)
            assert (one.help or "").split("\n")[0].replace("|", "\\|") in parts[name]


def test_columns_files_and_keys_are_those_of_a_run(tmp_path: Path) -> None:
    texts = ["A fraction names a part of a whole. " * 5, "A fraction names a part of a whole. " * 5, ""]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    config = FilterConfig.model_validate(
        {
            "input": {"kind": "parquet", "paths": [str(tmp_path / "in.parquet")]},
            "dedup": {"keep_fingerprints": True},
            "output": {"path": str(tmp_path / "run"), "rejected": True},
        }
    )
    result = run_filter(config)
    assert set(result.manifest) == set(MANIFEST) - {"selected_from"}  # of finesieve select alone
    written = {path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")}
    assert written == {name.split("/")[0].split(",")[0] for name in FILES}
    added = {field.name for field in added_fields(config, {})}
    assert set(pq.read_schema(next((tmp_path / "run" / "attributes").iterdir())).names) == added | {
        field.name for field in ATTRIBUTE_FIELDS
    }
    assert {field.name for field in (*OWN_FIELDS, *REJECTED_FIELDS, *ATTRIBUTE_FIELDS)} <= set(MEANINGS)
    assert set(result.ledger.total.removed) <= set(REASONS)


def test_reasons_and_causes_are_those_of_the_code() -> None:
    assert {*BELOW, *DUPLICATES} <= set(REASONS)
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "filters").rglob("*.py")))
    assert [name for name in CAUSES if not re.search(rf"[\"']{name}\b", source)] == []
    assert [name for name in REASONS if ":" not in name and not re.search(rf"[\"']{name}[\"']", source)] == []
    said = set(re.findall(r"cause ?= ?f?\"([a-z_]+[a-z0-9]): ", source)) | set(
        re.findall(r"BadRecord\([^\"]{0,40}f?\"([a-z_]+): ", source)
    )
    assert len(said) >= 5
    assert said <= set(CAUSES)
    assert set(json.loads(quarantine_line(Quarantined("a", 1, "bad_json: b", b"{")))) == set(QUARANTINE)


def test_the_site_is_built_strictly_and_asks_nothing_of_the_network() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert config["strict"] is True
    assert config["theme"]["font"] is False
    assert "http" not in text
    assert [
        link for link in config["extra"]["polyfills"] + config["extra_css"] if not (ROOT / "docs" / link).exists()
    ] == []
    listed = re.findall(r"[\w/.-]+\.md", text.split("nav:")[1].split("not_in_nav:")[0])
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert there | set(PAGES) <= set(listed)


def test_links_to_files_beside_the_docs_become_pages() -> None:
    hooks = pytest.importorskip("docs.site_hooks", reason="mkdocs is not installed (make docs)")
    page = type("Page", (), {"file": type("File", (), {"src_uri": "results/speed.md"})()})()
    text = "[a](../../benchmarks/page.py) [b](quality.md#bands) [c](https://x.org/a.py) [d](../inspect-light.png)"
    made = hooks.on_page_markdown(text, page, None, None)
    assert made == text.replace("../../benchmarks/page.py", "../source/benchmarks/page.py.md")
    assert "def main" in hooks._shown(ROOT / "benchmarks" / "page.py")
    assert "- `demo.yaml`" in hooks._shown(ROOT / "configs")


def test_the_tree_names_every_module() -> None:
    hooks = pytest.importorskip("docs.site_hooks", reason="mkdocs is not installed (make docs)")
    lines = [line.split() for line in hooks.tree().splitlines()]
    modules = [path for path in (ROOT / "filters").rglob("*.py") if not path.name.startswith("__")]
    assert sorted(line[0] for line in lines if line[0].endswith(".py")) == sorted(path.name for path in modules)
    assert all(len(line) > 1 for line in lines if line[0].endswith(".py"))
