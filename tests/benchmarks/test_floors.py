"""Floors of the speed rows: what sets one, what misses one, and that none goes down unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import floors
from benchmarks.floors import EVERYWHERE, NARROW, FloorsError, floor_of, missed, moved, read_floors, targets


def row(value: float, **more: Any) -> dict[str, Any]:
    fields = {"value": value, "better": "higher", "unit": "x", "held_to": "floor", "target": None}
    return fields | {"what": "scoring", "against": "a peer"} | more


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "one.json").write_text(json.dumps({"rows": list(rows)}))
    return folder


def test_a_floor_is_seventy_percent_of_the_value() -> None:
    assert floor_of(row(12.1)) == 8.47
    assert floor_of(row(528.0)) == 369
    assert floor_of(row(0.0)) == 0


def test_the_bound_of_a_time_is_as_far_above_it() -> None:
    assert floor_of(row(2.1, better="lower")) == 3.0
    assert floor_of(row(0.19, better="lower")) == 0.272


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize("value", [0.0123, 0.999, 1.0, 1.6, 7.77, 104.0, 1234.0])
def test_a_row_passes_the_floor_it_set(value: float, better: str) -> None:
    one = row(value, better=better)
    assert missed({"a": one}, {"a": floor_of(one)}) == []


def test_a_row_below_its_floor_is_named_with_both_numbers() -> None:
    assert missed({"a": row(8.0)}, {"a": 8.47}) == ["a: 8 x is below its floor 8.47"]
    slow = row(3.1, better="lower", unit="x its time")
    assert missed({"a": slow}, {"a": 3.0}) == ["a: 3.1 x its time is above its bound 3"]


def test_nan_misses_every_floor() -> None:
    assert missed({"a": row(float("nan"))}, {"a": 0.0})
    assert missed({"a": row(float("nan"), better="lower")}, {"a": 9.0})


def test_a_row_without_a_floor_is_an_error_and_context_needs_none() -> None:
    assert "a has no floor" in missed({"a": row(3.0)}, {})[0]
    assert missed({"a": row(3.0, held_to="nothing")}, {}) == []


def test_rows_of_no_machine_are_held_to_their_target() -> None:
    exact = row(201.0, better="lower", held_to="target", target=200, unit="bytes")
    assert missed({"a": exact}, {}) == ["a: 201 bytes is above its target 200"]
    assert missed({"a": exact | {"value": 200.0}}, {}) == []
    assert moved({"a": exact}, {}, lower=False) == {}


def test_floors_rise_by_themselves_and_fall_only_when_asked() -> None:
    assert moved({"a": row(20.0)}, {"a": 7.0, "skipped": 3.0}, lower=False) == {"a": 14.0, "skipped": 3.0}
    assert moved({"a": row(9.0)}, {"a": 7.0}, lower=False) == {"a": 7.0}
    with pytest.raises(FloorsError, match=r"a: 6 x is below its floor 7\. Remedy: .*--lower"):
        moved({"a": row(6.0)}, {"a": 7.0}, lower=False)
    assert moved({"a": row(6.0)}, {"a": 7.0, "gone": 3.0}, lower=True) == {"a": 4.2}
    assert moved({"a": row(7.0, better="lower")}, {"a": 12.0}, lower=False) == {"a": 10.0}


def test_aims_missed_are_told_apart_from_floors() -> None:
    short = row(9.0, target=10)
    assert targets([short, row(11.0, target=10), row(1.0)]) == ["scoring | a peer: 9 x, the aim is 10"]


def test_a_machine_without_avx512_has_floors_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "floors.json"
    results = write(tmp_path / "results", row(10.0, row="a"), row(10.0, row="b"))
    options = ["--results", str(results), "--floors", str(path), "--write-floors"]
    monkeypatch.setattr(floors, "section", lambda: EVERYWHERE)
    assert floors.main(options) == 0
    write(results, row(6.0, row="a"), row(10.0, row="b"))
    monkeypatch.setattr(floors, "section", lambda: NARROW)
    assert floors.main(options[:-1]) == 1
    assert floors.main([*options, "--lower"]) == 0
    assert floors.main(options[:-1]) == 0
    assert read_floors(path) == {"a": 7.0, "b": 7.0}
    assert read_floors(path, NARROW) == {"a": 4.2, "b": 7.0}
    assert json.loads(path.read_text())[NARROW] == {"a": 4.2}


def test_which_floors_are_this_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CPU_NAME", "znver3")
    assert floors.section() == NARROW


def test_the_command_writes_checks_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floors, "section", lambda: EVERYWHERE)
    path = tmp_path / "floors.json"
    results = write(tmp_path / "results", row(10.0, row="a"))
    options = ["--results", str(results), "--floors", str(path)]
    assert floors.main(options) == 1
    assert "cannot read the floors" in capsys.readouterr().err
    assert floors.main([*options, "--write-floors"]) == 0
    assert read_floors(path) == {"a": 7.0}
    assert floors.main(options) == 0
    write(results, row(6.0, row="a"))
    assert floors.main(options) == 1
    assert floors.main([*options, "--write-floors"]) == 1
    assert read_floors(path) == {"a": 7.0}
    assert floors.main([*options, "--write-floors", "--lower"]) == 0
    assert read_floors(path) == {"a": 4.2}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other", "floors": {}}', '{"floors": {"a": NaN}}'])
def test_a_file_that_holds_no_floors_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "floors.json"
    path.write_text(content)
    with pytest.raises(FloorsError, match=r"cannot read the floors.*version control"):
        read_floors(path)


def test_results_that_are_not_there_say_how_to_make_them(tmp_path: Path) -> None:
    assert floors.check(tmp_path, tmp_path / "floors.json") == [f"{tmp_path}: no results. Remedy: make bench"]
