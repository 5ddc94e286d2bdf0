"""A forecast against the run it is made for, and against arithmetic."""

from __future__ import annotations

import gzip
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from filters import FilterConfig, run_filter
from filters.config.filter import InputConfig
from filters.errors import ConfigError, InputError
from filters.read.sample import draw_sample
from filters.read.unit import Unit
from filters.run.forecast import DUPLICATES, Forecast, _Scaled, count_records, forecast, forecast_view
from filters.run.phase_list import PHASES
from filters.run.plan import Plan, make_plan
from filters.run.trials import Trials
from tests.run.conftest import page

DOCUMENTS, BAD = 400, 4


def write_dump(folder: Path, documents: int = DOCUMENTS, distinct: int = 10**9) -> FilterConfig:
    """Four compressed files of JSON lines; every hundredth line is broken, and pages come again after `distinct`, with
    another last word."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        lines = []
        for n in range(number * documents // 4, (number + 1) * documents // 4):
            text = page(n % distinct, 80 + n % distinct % 100) + f" {n // distinct}"
            lines.append(json.dumps({"id": f"d{n}", "text": text, "url": f"https://h{n % 7}.org/{n}"}))
            if n % 100 == 50:
                lines.append("{broken")
        (folder / f"part-{number}.jsonl.gz").write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
    return FilterConfig.model_validate(
        {
            "input": {"kind": "jsonl", "paths": [str(folder)], "id_key": "id"},
            "keep": {"fraction": 0.5},
            "output": {"path": str(folder.parent / "run")},
        }
    )


class Found:
    """A dump of 400 documents in four files, and trials over 200 of them."""

    def __init__(self, folder: Path) -> None:
        config = write_dump(folder / "dump")
        self.plan: Plan = make_plan(config)
        self.sample = draw_sample(self.plan.units, self.plan.config.reads, 200, 0)
        self.records, _ = count_records(self.plan.units, self.sample)
        (folder / "trials").mkdir()
        self.trials = Trials(self.plan, self.sample, self.records, 1, folder / "trials", in_threads=True)

    def forecast(self, duplicates: float | None = None, **sections: Any) -> Forecast:
        """The forecast of these trials for another config."""
        config = FilterConfig.model_validate(self.plan.config.model_dump() | sections)
        return _Scaled(replace(self.plan, config=config), self.sample, self.trials, duplicates, 0).forecast(1.0)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return Found(tmp_path_factory.mktemp("forecast"))


def test_numbers_are_those_of_the_run(found: Found) -> None:
    result = run_filter(found.plan)
    here = found.forecast(duplicates=0.0).columns[0]
    assert here.documents.value == pytest.approx(DOCUMENTS, rel=0.03)
    assert here.units == 4
    assert here.kept.value == pytest.approx(result.ledger.total.kept, rel=0.05)
    assert here.kept_tokens.value == pytest.approx(result.manifest["tokens_written"], rel=0.1)
    shards = sum(Path(str(path)).stat().st_size for path in result.shards)
    assert here.disk["output"] == pytest.approx(shards, rel=0.2)
    assert found.forecast().quarantined == pytest.approx(BAD / (DOCUMENTS + BAD), rel=0.99)


def test_sums_add_up(found: Found) -> None:
    for column in found.forecast().columns:
        assert column.cpu.value == pytest.approx(sum(column.cpu_s.values()))
        assert {*column.cpu_s} <= {phase.name for phase in PHASES} | {"workers"}
        assert column.peaks.keys() == column.cpu_s.keys() - {"workers"}
        assert 0 < column.work_bytes < sum(column.disk.values())
        for estimate in (column.kept, column.tokens, column.cpu):
            low, value, high = (getattr(estimate, name) for name in ("low", "value", "high"))
            assert low <= value <= high


def test_larger_dumps_take_in_proportion(found: Found) -> None:
    _, billion, ten = found.forecast().columns
    assert (billion.documents.value, ten.documents.value) == (1e9, 1e10)
    assert ten.cpu_s["attributes"] / billion.cpu_s["attributes"] == pytest.approx(10, rel=0.5)
    assert ten.disk["texts"] == pytest.approx(10 * billion.disk["texts"], rel=0.01)
    assert billion.units == 1e9 / 20_000
    assert ten.peaks["join"] - ten.peaks["tally"] < found.plan.config.dedup.memory


def test_copies_are_assumed_or_given(found: Found) -> None:
    assumed = found.forecast()
    assert assumed.columns[0].duplicates == pytest.approx(DUPLICATES)
    assert "assumed to have a copy" in " ".join(assumed.assumed)
    given = found.forecast(duplicates=0.75)
    assert all(column.duplicates == pytest.approx(0.75) for column in given.columns)
    assert given.columns[0].survivors == pytest.approx(0.5 * (given.columns[0].documents.value or 0))
    assert "(--duplicates)" in " ".join(given.assumed)


def test_copies_of_a_dump_are_scaled_up_from_those_drawn(tmp_path: Path) -> None:
    """Every page comes ten times; a quarter of the documents, drawn, shows mostly two or three of them."""
    config = write_dump(tmp_path / "dump", 800, distinct=80)
    here = forecast(make_plan(config), documents=200).columns[0]
    assert 60 < here.survivors < 120
    assert here.duplicates > 0.8


def test_a_sample_of_everything_knows_the_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_dump(tmp_path / "dump", 80, distinct=60)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    made = forecast(make_plan(config))
    here = made.columns[0]
    assert here.documents.value == 80
    assert here.survivors == pytest.approx(60)
    assert here.kept.value == pytest.approx(30)
    assert "the drawn ones are the whole input" in " ".join(made.assumed)
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "tmp").iterdir())
    assert json.loads(json.dumps(made.to_json()))["columns"][0]["documents"]["value"] == 80


def test_what_is_kept_follows_the_rule(found: Found) -> None:
    def kept(**keep: Any) -> tuple[float, float, float]:
        here, large, _ = found.forecast(0.0, keep=keep).columns
        return here.kept.value or 0, here.kept_tokens.value or 0, large.kept_tokens.value or 0

    assert kept(fraction=0.25)[0] == pytest.approx(100, rel=0.05)
    documents, tokens, large = kept(tokens=10_000)
    assert tokens == pytest.approx(10_000, rel=0.05)
    assert 0 < documents < 200
    assert large == pytest.approx(10_000, rel=0.01)  # a budget does not grow with the dump


def test_time_on_the_clock_is_shared_by_processes_but_not_within_a_unit(found: Found) -> None:
    one = found.forecast(executor={"workers": 1}).columns[1]
    slurm = {"kind": "slurm", "tasks": 50, "workers": 4}
    many = found.forecast(executor=slurm).columns[1]
    assert many.processes == 200
    assert many.cpu_s["attributes"] / 200 + many.cpu_s["select"] < many.wall_s < sum(many.cpu_s.values()) / 10
    assert one.wall_s == pytest.approx(sum(one.cpu_s.values()))
    assert found.forecast(executor=slurm | {"slurm": {"parallel": 5}}).columns[1].processes == 20


def test_too_many_bad_records_are_said(found: Found) -> None:
    stopping = found.forecast(quarantine={"max_share": 0.0001})
    assert stopping.stops
    assert not found.forecast().stops
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(forecast_view(stopping, found.plan.config))
    shown = capture.get()
    assert "THE RUN WOULD STOP" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "attributes" in shown


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_sizes_may_be_unknown_and_inputs_several(tmp_path: Path, found: Found, suffix: str) -> None:
    import pyarrow as pa

    rows = [{"id": f"x{n}", "text": page(1000 + n, 90)} for n in range(40)]
    path = tmp_path / f"more{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    one = found.plan.config.reads[0].model_dump()
    other = {"kind": suffix[1:], "paths": [str(path)], "id_key": "id"}
    data = found.plan.config.model_dump(exclude={"input", "inputs"}) | {"inputs": [one, other]}
    plan = make_plan(FilterConfig.model_validate(data))
    unknown = replace(plan, units=[replace(unit, size=None) for unit in plan.units])
    for some in (plan, unknown):
        made = forecast(some, documents=100)
        assert made.columns[0].documents.value == pytest.approx(DOCUMENTS + 40, rel=0.1)
        assert all(math.isfinite(cost) for cost in made.columns[1].cpu_s.values())


def test_an_input_of_one_document_is_forecast(tmp_path: Path) -> None:
    config = write_dump(tmp_path / "dump", 4)
    for number in range(1, 4):
        (tmp_path / "dump" / f"part-{number}.jsonl.gz").write_bytes(gzip.compress(b""))
    here = forecast(make_plan(config.model_copy(update={"keep": config.keep.model_copy(update={"fraction": 1.0})})))
    assert here.columns[0].kept.value == pytest.approx(1)


def test_an_input_of_which_nothing_reaches_deduplication_is_forecast(tmp_path: Path) -> None:
    config = write_dump(tmp_path / "dump", 40)
    other = FilterConfig.model_validate(config.model_dump() | {"language": {"keep": ["th"]}})
    here = forecast(make_plan(other)).columns[0]
    assert (here.survivors, here.kept.value) == (0, 0)
    assert here.cpu_s["attributes"] > 0


def test_what_cannot_be_forecast_is_refused(tmp_path: Path, found: Found) -> None:
    with pytest.raises(ConfigError, match="--pilot -1"):
        forecast(found.plan, documents=-1)
    with pytest.raises(ConfigError, match=r"--duplicates 1\.0"):
        forecast(found.plan, duplicates=1.0)
    stream = replace(found.plan, units=[Unit(0, "stream", "set/train", "set")])
    with pytest.raises(InputError, match="cannot be counted or drawn from beforehand"):
        forecast(stream)
    for content, why in (("{broken\n" * 5, "nothing in this input could be read"), ("", "not one is a document")):
        (tmp_path / "in.jsonl").write_text(content)
        reads = InputConfig(kind="jsonl", paths=(f"{tmp_path}/in.jsonl",))
        config = found.plan.config.model_copy(update={"inputs": (reads,), "input": None})
        with pytest.raises(InputError, match=why):
            forecast(make_plan(config))


def test_earlier_runs_are_looked_up(tmp_path: Path) -> None:
    config = write_dump(tmp_path / "dump", 100)
    keep = {"keep": config.keep.model_copy(update={"fraction": 1.0})}
    half = (str(tmp_path / "dump" / "part-0.jsonl.gz"), str(tmp_path / "dump" / "part-1.jsonl.gz"))
    reads = config.reads[0].model_copy(update={"paths": half})
    dedup = config.dedup.model_copy(update={"keep_fingerprints": True})
    run_filter(config.model_copy(update={"input": reads, "dedup": dedup} | keep))
    against = config.dedup.model_copy(update={"against": (config.output.path,)})
    output = config.output.model_copy(update={"path": str(tmp_path / "second")})
    made = forecast(make_plan(config.model_copy(update={"dedup": against, "output": output} | keep)))
    assert made.columns[0].survivors == pytest.approx(50, abs=2)
    assert "earlier runs have 50.0% of the documents" in made.assumed


def test_phases_in_processes_are_forecast_with_their_start(tmp_path: Path) -> None:
    config = write_dump(tmp_path / "dump", 40)
    heuristics = FilterConfig.model_validate(config.model_dump() | {"heuristics": [{"name": "gopher_repetition"}]})
    here = forecast(make_plan(heuristics), documents=20).columns[0]
    assert here.cpu_s["workers"] > 0
    assert np.isfinite(here.wall_s)
