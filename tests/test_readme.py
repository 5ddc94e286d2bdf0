"""README.md and docs/ show what was measured, commands and keys that exist, and links that lead somewhere."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from benchmarks.floors import FLOORS, check
from benchmarks.hand_tables import SECTIONS
from benchmarks.measure import RESULTS
from benchmarks.run import SCRIPTS
from benchmarks.table import outdated, read_results
from filters.cli.main import app
from filters.config.filter import FilterConfig
from filters.config.yaml_file import load_config

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = {"filter", "train", "annotate", "commands", "files", "model"}
"""Pages of docs/reference/ that exist in the site only."""
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(*languages: str) -> Iterator[Any]:
    """Every block of code of these languages, named by its page."""
    for page in PAGES:
        for number, (language, text) in enumerate(_FENCE.findall(page.read_text(encoding="utf-8"))):
            if language in languages:
                yield pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")


def commands() -> list[Any]:
    """Every call of finesieve that README and docs show: whole in a block without a language, or named in `code`."""
    found: dict[tuple[str, bool], Path] = {}
    for page in PAGES:
        if page.name == "experiments.md":  # of what is gone
            continue
        text = page.read_text(encoding="utf-8")
        shown = [block for language, block in _FENCE.findall(text) if not language]
        lines = [(line, True) for block in shown for line in block.splitlines()]
        lines += [(span, False) for span in re.findall(r"`([^`\n]+)`", _FENCE.sub("", text))]
        for line, whole in lines:
            call = re.sub(r"^(\$ |echo .* \| |timeout \S+ \S+ \d+ )+", "", line.split("  #")[0]).strip()
            if call.startswith("finesieve "):
                found.setdefault((re.sub(r" > \S+$", "", call), whole), page)
    return [
        pytest.param(call, whole, id=f"{page.relative_to(ROOT)}: {call[:60]}") for (call, whole), page in found.items()
    ]


def test_the_speed_tables_are_the_benchmarks_results() -> None:
    assert outdated(read_results(RESULTS)) == []


def test_the_tables_measured_by_hand_are_the_results() -> None:
    assert outdated(read_results(RESULTS.parent), SECTIONS) == []


def test_the_speed_results_pass_their_floors() -> None:
    results = read_results(RESULTS)
    assert set(results) == set(SCRIPTS)
    assert check(RESULTS, FLOORS) == []


def test_what_is_said_of_near_copies_and_forecasts_is_true() -> None:
    found = read_results(RESULTS.parent)
    ours = found["near_copies"]["planted"]["ours"]
    assert ours["removed_without_a_witness"] == ours["of_these_both_stay"] == 0
    assert found["near_copies"]["real"]["closure"]["removed_without_a_witness"] == 12
    sizes = found["forecast"]["sizes"]
    assert len(sizes) == 3
    for row in sizes:
        assert all(abs(row[what]["error"]) <= found["forecast"]["limit"] for what in ("cpu_s", "disk_mb", "kept"))
    assert found["terminal"]["documents"] == found["page"]["documents"] == 20_000_000
    metrics = json.loads((ROOT / "filters" / "models" / "edu-en" / "model.json").read_text())["metrics"]["sample"]
    assert f"calibration error {metrics['calibration_error']['value']:.3f})" in " ".join(
        (ROOT / "docs" / "train.md").read_text(encoding="utf-8").split()
    )
    assert f"At the keep rule it finds {100 * metrics['recall']['value']:.0f} % of what the judge" in (
        ROOT / "docs" / "results" / "quality.md"
    ).read_text(encoding="utf-8")


def test_readme_is_one_short_page() -> None:
    assert len(README.splitlines()) <= 180


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target.parent.name == "reference" and target.stem in GENERATED:
            continue
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """What headings of a Markdown page can be linked as."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(("call", "whole"), commands())
def test_a_command_that_is_shown_exists_with_its_options(call: str, whole: bool) -> None:
    group: Any = typer.main.get_command(app)
    arguments = shlex.split(call, comments=True)[1:]
    verb = next((part for part in arguments if part in group.commands), None)
    command = group if verb is None else group.commands[verb]
    if whole and verb is not None:
        place = arguments.index(verb)
        with group.make_context("finesieve", arguments[:place], resilient_parsing=True) as context:
            command.make_context(verb, arguments[place + 1 :], parent=context)
        return
    known = {name for one in (group, command) for parameter in one.params for name in parameter.opts} | {"--help"}
    assert [part for part in arguments if part.startswith("-") and part != "-" and part not in known] == []
    assert verb is not None or all(part.startswith("-") or part == "COMMAND" for part in arguments)


@pytest.mark.parametrize("text", list(blocks("yaml")))
def test_a_config_that_is_shown_loads(text: str, tmp_path: Path) -> None:
    given = yaml.safe_load(text)
    if given is None:  # a comment alone
        return
    path = tmp_path / "shown.yaml"
    path.write_text(text)
    assert load_config(FilterConfig, path).output.path


@pytest.mark.parametrize("text", list(blocks("python")))
def test_a_python_block_compiles_and_its_imports_exist(text: str) -> None:
    tree = ast.parse(text)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    exec(compile(ast.Module(body=imports, type_ignores=[]), "shown", "exec"), {})


def test_the_python_block_that_scores_runs() -> None:
    (text,) = (block.values[0] for block in blocks("python") if "QualityModel.load" in str(block.values[0]))
    names: dict[str, Any] = {}
    exec(text, names)
    assert names["scores"].shape == names["kept"].shape == (1,)
    assert names["model"].keep.min_score == 1.5
    assert names["decided"].low[0] <= names["scores"][0] <= names["decided"].high[0]


def test_nothing_is_left_to_fill_in() -> None:
    for page in PAGES:
        assert not re.search(r"@[A-Z]+@|TODO|FIXME", page.read_text(encoding="utf-8")), page
