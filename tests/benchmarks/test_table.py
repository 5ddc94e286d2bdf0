"""Tables made from results: every row shown, placed between markers and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.table import (
    BEGIN,
    END,
    TARGETS,
    TableError,
    main,
    outdated,
    placed,
    quantity,
    seconds_table,
    speed_line,
    speed_tables,
    stage_table,
    target_line,
)


def row(**more: Any) -> dict[str, Any]:
    fields = {"what": "scoring", "against": "predict", "value": 12.14, "unit": "x", "better": "higher", "target": 10}
    optional = dict.fromkeys(("range", "cpu", "docs_per_s", "peer_docs_per_s"))
    return fields | optional | {"note": ""} | more


def results() -> dict[str, dict[str, Any]]:
    machine = {
        "processor": "a processor",
        "system": "Linux",
        "python": "3.11",
        "packages": {"finesieve": "1", "numpy": "2"},
    }
    one = {"rows": [row()], "skipped": {}, "machine": machine, "corpus": "some documents", "seconds": 2.4}
    found = {name: dict(one) for name in (*TARGETS, "pipeline", "kernels", "stages")}
    speed = [row(docs_per_s=53284, peer_docs_per_s=4181)]
    found["pipeline"]["rows"] = found["kernels"]["rows"] = speed
    found["stages"]["details"] = {
        "Parquet": {"microseconds_per_document": 90, "share": {"read": 0.25, "score": 0.75}},
        "WARC": {"microseconds_per_document": 6900, "share": {"read": 0.1, "extract": 0.9}},
    }
    return found


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(12.14, "x", "12.1x"), (528, "x", "528x"), (2.1, "x its time", "2.1x its time"), (0.19, "s", "0.19 s"),
     (1132.4, "MB", "1,132 MB"), (7.3e-8, "", "7.3e-08"), (0, "", "0")],
)  # fmt: skip
def test_quantities(value: float, unit: str, shown: str) -> None:
    assert quantity(value, unit) == shown


def test_a_row_shows_range_processor_time_and_aim() -> None:
    shown = target_line(row(range=[11.0, 13.5], cpu=12.0, note="the faster way"))
    assert shown == "| scoring | predict; the faster way | 12.1x (11 to 13.5) | 12x | at least 10x |"
    assert target_line(row(better="lower", unit="x its time", target=4)).endswith("| at most 4x its time |")
    assert target_line(row(target=None)).endswith("| 12.1x |  |  |")
    assert target_line(row(value=0, unit="", better="lower", target=0)).endswith("| 0 |  | none |")


def test_a_step_with_and_without_a_peer() -> None:
    beside = row(docs_per_s=53284, peer_docs_per_s=4181)
    assert speed_line(beside) == "| scoring | 53,284 | predict | 4,181 | 12.1x |"
    assert speed_line(row(docs_per_s=53284)) == "| scoring | 53,284 | | | |"


def test_what_was_skipped_is_in_the_table_with_its_reason() -> None:
    found = results()
    found["warc"] = found["warc"] | {"rows": [], "skipped": {"WARC in": "pages are not here"}}
    assert "| WARC in | | SKIPPED: pages are not here | | |" in speed_tables(found).splitlines()


def test_a_script_without_results_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, one in results().items():
        if name not in ("growth", "start"):
            (tmp_path / f"{name}.json").write_text(json.dumps(one))
    assert main(["--results", str(tmp_path), "--write"]) == 1
    assert "no results of start, growth. Remedy: make bench" in capsys.readouterr().err
    (tmp_path / "growth.json").write_text(json.dumps(results()["growth"]))
    (tmp_path / "start.json").write_text(json.dumps(results()["start"]))
    assert main(["--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("| scoring | predict | 12.1x |  | at least 10x |") == len(TARGETS)


def test_stages_of_all_kinds_of_input_share_a_table() -> None:
    lines = stage_table(results()).splitlines()
    assert lines[0] == "| stage | Parquet in | WARC in |"
    assert "| read | 25.0% | 10.0% |" in lines
    assert "| extract |  | 90.0% |" in lines
    assert lines[-1] == "| microseconds of processor time a document | 90 | 6,900 |"


def test_seconds_are_summed() -> None:
    assert seconds_table(results()).splitlines()[-1] == f"| all | {2.4 * len(results()):.0f} | |"


def test_a_section_is_replaced_and_the_rest_stays() -> None:
    begin, end = BEGIN.format(name="speed"), END.format(name="speed")
    text = f"before\n{begin}\nold\n{end}\nafter\n"
    new = placed(text, "speed", "new")
    assert new == f"before\n{begin}\nnew\n{end}\nafter\n"
    assert placed(new, "speed", "new") == new


@pytest.mark.parametrize("text", ["", "{0}\n", "{1}\n{0}\n", "{0}\n{0}\n{1}\n"])
def test_markers_that_are_missing_doubled_or_swapped_are_an_error(text: str) -> None:
    with pytest.raises(TableError, match="must stand in the file once"):
        placed(text.format(BEGIN.format(name="speed"), END.format(name="speed")), "speed", "new")


def test_a_section_that_shows_other_numbers_is_found(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    found = results()
    markers = f"{BEGIN.format(name='speed')}\n{END.format(name='speed')}\n"
    path.write_text(placed(markers, "speed", speed_tables(found)))
    sections = [(path, "speed", speed_tables)]
    assert outdated(found, sections) == []
    found["formats"] = found["formats"] | {"rows": [row(value=11.9)]}
    assert outdated(found, sections) == ["README.md: speed"]
