"""A forecast against the run it is made for, and against arithmetic."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from filters import FilterConfig
from filters.config.filter import InputConfig
from filters.dedup.bands import partitions_for
from filters.errors import ConfigError, InputError, RunError
from filters.phases.phase import Job, run_unit
from filters.read.sample import draw_sample
from filters.read.unit import Unit
from filters.run.forecast import pilot as pilots
from filters.run.forecast.costs import PHASES, _least_squares
from filters.run.forecast.forecast import DUPLICATES, Forecast, Model, _partners, forecast
from filters.run.forecast.pilot import Pilot, run_pilot
from filters.run.forecast.stand_in import StandIn, write_stand_in
from filters.run.forecast.terminal import forecast_view
from filters.run.phase_list import PHASES as RUN_PHASES
from filters.run.phase_list import phase_named
from filters.run.plan import Plan, make_plan
from filters.run.pool import WorkerPool
from tests.run.conftest import page

SHAPES = (StandIn(400, 2, 2, 0.4), StandIn(8000, 2, 2, 0.4), StandIn(8000, 2, 2, 3.0), StandIn(400, 8, 1, 0.4),
          StandIn(400, 8, 8, 0.4))  # fmt: skip
DOCUMENTS, BAD = 800, 8


@dataclass(frozen=True)
class Found:
    """A dump of 800 documents of 4 files, and a pilot of 400 of them."""

    plan: Plan
    pilot: Pilot
    folder: Path

    def forecast(self, duplicates: float | None = None, **sections: Any) -> Forecast:
        """The forecast of this pilot for another config."""
        config = FilterConfig.model_validate(self.plan.config.model_dump() | sections)
        least = self.plan.min_score if config.keep.min_score is None else config.keep.min_score
        return Model(replace(self.plan, config=config, min_score=least), self.pilot).forecast(0, duplicates)


def write_dump(folder: Path, documents: int = DOCUMENTS) -> FilterConfig:
    """Four compressed files of JSON lines; every hundredth line is broken."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        lines = []
        for n in range(number * documents // 4, (number + 1) * documents // 4):
            lines.append(json.dumps({"id": f"d{n}", "text": page(n, 80 + n % 200), "url": f"https://h{n % 7}.org/{n}"}))
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


@pytest.fixture(autouse=True)
def _small_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilots, "SHAPES", SHAPES)
    monkeypatch.setattr(pilots, "TIMES", 2)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("forecast")
    config = write_dump(folder / "dump")
    dedup = config.dedup.model_copy(update={"keep_fingerprints": True})
    plan = make_plan(config.model_copy(update={"dedup": dedup}))
    (folder / "work").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pilots, "SHAPES", SHAPES)
        patch.setattr(pilots, "TIMES", 2)
        pilot = run_pilot(plan, draw_sample(plan.units, plan.config.reads, 400, 0, folder), folder / "work")
    return Found(plan, pilot, folder)


def test_a_pilot_larger_than_a_shard_is_forecast(tmp_path: Path) -> None:
    config = write_dump(tmp_path / "dump", 60)
    output = config.output.model_copy(update={"shard_size": 2_000, "rejected": True})
    made = forecast(make_plan(config.model_copy(update={"output": output})), documents=50)
    assert made.columns[0].kept.value > 0


def test_documents_are_those_of_the_dump(found: Found) -> None:
    here = found.forecast().columns[0]
    assert here.documents.value == pytest.approx(DOCUMENTS, rel=0.01)
    assert here.units == 4
    assert found.forecast().quarantined == pytest.approx(BAD / (DOCUMENTS + BAD), rel=0.7)


def test_a_run_takes_the_disk_that_was_forecast(found: Found) -> None:
    config = found.plan.config
    work = found.folder / "real"
    work.mkdir()
    job = Job(work, config, tuple(found.plan.units), found.plan.min_score)
    job.save()
    sizes: dict[str, int] = {}
    for phase in RUN_PHASES:
        for unit in range(phase.units(job)):
            run_unit(job, phase, unit)
            for name, file in (job.entry(phase.name, unit) or {})["files"].items():
                sizes[name] = sizes.get(name, 0) + file["bytes"]
    here = found.forecast(duplicates=0.0).columns[0]
    assert here.disk["rows"] == pytest.approx(sizes["rows.arrow"], rel=0.15)  # smaller batches
    assert here.disk["bands"] == pytest.approx(sizes["bands.bin"], rel=0.05)
    shards = list((work / "shard").rglob("shard-*.parquet"))
    assert here.disk["output"] == pytest.approx(sum(path.stat().st_size for path in shards), rel=0.2)
    assert here.kept.value == pytest.approx(sum(pq.read_metadata(path).num_rows for path in shards), rel=0.02)
    tokens = sum(sum(pq.read_table(path)["tokens"].to_pylist()) for path in shards)
    assert here.kept_tokens == pytest.approx(tokens, rel=0.1)


def test_larger_dumps_take_in_proportion(found: Found) -> None:
    _, billion, ten = found.forecast().columns
    assert (billion.documents.value, ten.documents.value) == (1e9, 1e10)
    for phase in ("attributes", "tally"):
        assert ten.cpu_s[phase] / billion.cpu_s[phase] == pytest.approx(10, rel=0.5)
    assert ten.disk["rows"] == pytest.approx(10 * billion.disk["rows"])
    memory = found.plan.config.dedup.memory
    for phase in ("join", "compare"):
        assert ten.peaks[phase] - ten.peaks["copies"] < memory
    stored = sum(unit.size or 0 for unit in found.plan.units) * 1e10 / DOCUMENTS
    assert ten.partitions == pytest.approx(partitions_for(found.plan.config.dedup, int(stored)), rel=0.02)
    assert billion.units == 1e9 / 20_000


def test_every_phase_that_costs_something_is_there(found: Found) -> None:
    dedup = {"keep_fingerprints": True, "max_source_loss": 0.9}
    everything = found.forecast(dedup=dedup).columns[1]
    unlikely = {"round-1", "round-2", "round-3", "round-4"}
    assert {*everything.cpu_s} - unlikely == {*PHASES, "workers"} - unlikely
    without = found.forecast(dedup={"near": None}).columns[1]
    assert {"shingles", "compare", "settle", "witnesses", "losses", "fingerprints", "sets"}.isdisjoint(without.cpu_s)
    assert everything.disk["fingerprints"] > 50 * everything.kept.value > 0 == without.disk["fingerprints"]
    assert {phase.name for phase in RUN_PHASES} == {*PHASES} - {"publish"}


def test_copies_are_assumed_counted_or_given(found: Found) -> None:
    assumed = found.forecast()
    assert assumed.columns[0].duplicates == pytest.approx(DUPLICATES)
    assert "assumed to have a copy" in " ".join(assumed.assumed)
    given = found.forecast(duplicates=0.8)
    assert all(column.duplicates == pytest.approx(0.8) for column in given.columns)
    x = -math.log(0.2)
    assert given.columns[0].survivors / given.columns[0].documents.value == pytest.approx(
        (1 - math.exp(-x)) / x, rel=0.02
    )
    assert "(--duplicates)" in " ".join(given.assumed)
    # Twenty pairs in 400 of 800 documents: a document meets every copy it has with probability a half.
    pilot = replace(found.pilot, pairs=(20, 0))
    counted = Model(found.plan, pilot).forecast(0, None)
    expected = 2 * 20 / len(pilot.group) * 800 / len(pilot.group)
    assert counted.columns[0].duplicates == pytest.approx(1 - math.exp(-expected), rel=0.02)
    assert "20 pairs" in " ".join(counted.assumed)
    crowded = Model(found.plan, replace(pilot, crowd=100)).forecast(0, None).columns[0]
    assert crowded.survivors == pytest.approx(0.75 * counted.columns[0].survivors, rel=0.02)
    assert (counted.columns[0].kept.within or 0) > (assumed.columns[0].kept.within or 0)


def test_a_pilot_of_everything_knows_its_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": f"d{n}", "text": page(n % 60, 100)} for n in range(80)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = FilterConfig.model_validate(
        {
            "input": {"kind": "jsonl", "paths": [f"{tmp_path}/in.jsonl"], "id_key": "id"},
            "keep": {"min_score": -1},
            "output": {"path": f"{tmp_path}/run"},
        }
    )
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    found = forecast(make_plan(config))
    here = found.columns[0]
    assert here.documents.value == 80
    assert here.documents.within == 0
    assert here.survivors == pytest.approx(60)
    assert here.kept.value == pytest.approx(60)
    assert "the whole input" in " ".join(found.assumed)
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "tmp").iterdir())
    assert json.loads(json.dumps(found.to_json()))["columns"][0]["documents"]["value"] == 80


def test_what_is_kept_follows_the_rule(found: Found) -> None:
    def kept(**sections: Any) -> tuple[float, float, float]:
        columns = found.forecast(duplicates=0.0, **sections).columns
        return columns[0].kept.value, columns[0].kept_tokens, columns[1].kept_tokens

    assert kept(keep={"fraction": 0.25})[0] == pytest.approx(200, rel=0.02)
    documents, tokens, large = kept(keep={"tokens": 20_000})
    assert tokens == pytest.approx(20_000, rel=0.05)
    assert 0 < documents < 400
    assert large == pytest.approx(20_000, rel=0.01)  # a budget does not grow with the dump
    assert kept(keep={"min_score": 100.0}) == (0, 0, 0)
    buckets = {"borders": [0.5, 0.9], "names": ["low", "mid", "high"]}
    output = {"path": "run", "buckets": buckets}
    assert kept(keep={"buckets": ["high"]}, output=output)[0] == pytest.approx(80, rel=0.05)
    assert kept(keep={"buckets": ["low", "high"]}, output=output)[0] == pytest.approx(480, rel=0.05)


def test_rejected_documents_take_their_place(found: Found) -> None:
    with_them = found.forecast(output={"path": "run", "rejected": True}).columns[1]
    without = found.forecast().columns[1]
    assert with_them.disk["output"] > 1.5 * without.disk["output"]
    assert with_them.cpu_s["shard"] > without.cpu_s["shard"]


def test_time_on_the_clock_is_shared_by_processes_but_not_within_a_unit(found: Found) -> None:
    one = found.forecast(executor={"workers": 1}).columns[1]
    many = found.forecast(executor={"kind": "slurm", "tasks": 50, "workers": 4}).columns[1]
    assert many.processes == 200
    single = sum(many.cpu_s[name] for name in ("select", "publish"))
    shared = sum(many.cpu_s.values()) - single - many.cpu_s["workers"]
    assert many.wall_s == pytest.approx(single + shared / 200 + (len(many.cpu_s) - 1) * found.pilot.start_s, rel=0.05)
    assert one.wall_s > 50 * many.wall_s or single > many.wall_s / 2
    limited = found.forecast(executor={"kind": "slurm", "tasks": 50, "workers": 4, "slurm": {"parallel": 5}}).columns[1]
    assert limited.processes == 20


def test_too_many_bad_records_are_said(found: Found) -> None:
    stopping = found.forecast(quarantine={"max_share": 0.0001})
    assert stopping.stops
    assert not found.forecast().stops
    config = found.plan.config.model_copy(update={"quarantine": found.plan.config.quarantine})
    from rich.console import Console

    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(forecast_view(stopping, config))
    shown = capture.get()
    assert "THE RUN WOULD STOP" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "attributes" in shown


def test_coefficients_are_found_and_never_negative() -> None:
    table = np.array([[1.0, 10, 5], [1, 1000, 5], [1, 1000, 50], [24, 10, 5], [24, 10, 500]])
    found = _least_squares(table, table @ np.array([0.5, 0.01, 0.0]))
    assert found == pytest.approx([0.5, 0.01, 0.0], abs=1e-6)
    assert (_least_squares(table, table @ np.array([0.5, 0.01, -0.001])) >= 0).all()
    assert _least_squares(table, np.zeros(5)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("copies", [0.01, 0.4, 3.0, 50.0])
def test_stand_ins_have_the_copies_they_are_to_have(tmp_path: Path, found: Found, copies: float) -> None:
    assert _partners((1 - math.exp(-copies)) / copies) == pytest.approx(copies, rel=1e-3)
    kind = StandIn(4000, 3, 2, copies)
    config = found.plan.config
    dedup = config.dedup.model_copy(update={"partitions": 2})
    units = tuple(Unit(unit, "warc", f"u{unit}", "", size=1) for unit in range(3))
    job = Job(tmp_path, config.model_copy(update={"dedup": dedup}), units, 0.0)
    write_stand_in(job, found.pilot.rows, kind, seed=3)
    for name in ("join", "copies"):
        phase = phase_named(name)
        for unit in range(phase.units(job)):
            run_unit(job, phase, unit)
    nodes = sum(job.facts("copies", unit)["documents"] for unit in range(3))
    assert nodes / 4000 == pytest.approx(1 - math.exp(-copies), rel=0.2, abs=0.01)


def test_what_nobody_can_forecast_is_refused(tmp_path: Path, found: Found) -> None:
    with pytest.raises(ConfigError, match="--pilot -1"):
        forecast(found.plan, documents=-1)
    with pytest.raises(ConfigError, match=r"--duplicates 1\.0"):
        forecast(found.plan, duplicates=1.0)
    stream = replace(found.plan, units=[Unit(0, "stream", "set/train", "set")])
    with pytest.raises(InputError, match="cannot be counted or drawn from beforehand"):
        forecast(stream)
    (tmp_path / "in.jsonl").write_text("{broken\n" * 5)
    config = found.plan.config.model_copy(update={"input": InputConfig(kind="jsonl", paths=(f"{tmp_path}/in.jsonl",))})
    with pytest.raises(InputError, match="5 records and not one document"):
        forecast(make_plan(config))


def test_a_worker_that_dies_is_an_error(found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerPool, "receive", lambda self, *_: (0, None))
    monkeypatch.setattr(WorkerPool, "bury", lambda self, worker: "was killed by SIGSEGV")
    with pytest.raises(RunError, match=r"worker was killed by SIGSEGV.*--seed"):
        run_pilot(found.plan, draw_sample(found.plan.units, found.plan.config.reads, 10, 0, tmp_path), tmp_path)


def test_earlier_runs_are_looked_up(tmp_path: Path) -> None:
    from filters import run_filter

    config = write_dump(tmp_path / "dump", 200)
    (tmp_path / "half").mkdir()
    for number in range(2):
        shutil.copy(tmp_path / "dump" / f"part-{number}.jsonl.gz", tmp_path / "half")
    first = config.model_copy(update={"input": config.input.model_copy(update={"paths": (str(tmp_path / "half"),)})})
    keep = {"keep": config.keep.model_copy(update={"fraction": 1.0})}
    dedup = config.dedup.model_copy(update={"keep_fingerprints": True})
    run_filter(first.model_copy(update={"dedup": dedup} | keep))
    against = config.dedup.model_copy(update={"against": (config.output.path,)})
    output = config.output.model_copy(update={"path": str(tmp_path / "second")})
    found = forecast(make_plan(config.model_copy(update={"dedup": against, "output": output} | keep)))
    assert found.columns[0].survivors == pytest.approx(100, abs=2)
    assert "earlier runs have 50.0% of the documents" in found.assumed


def test_the_command_prints_plan_and_forecast_and_does_nothing(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", 200)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"input: {{kind: jsonl, paths: [{tmp_path}/dump], id_key: id}}\ndedup: {{keep: first}}\n"
        f"output: {{path: {tmp_path}/run}}\n"
    )

    def dry_run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "finesieve"), "filter", str(config), "--dry-run", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    found = json.loads(dry_run("--json", "--pilot", "50", "--duplicates", "0.5").stdout)
    assert found["plan"]["units"] == 4
    assert found["forecast"]["columns"][0]["duplicates"] == pytest.approx(0.5)
    plan = dry_run("--pilot", "0").stdout
    assert "of copies the first stays" in plan
    assert "forecast" not in plan
    assert json.loads(dry_run("--pilot", "0", "--json").stdout)["forecast"] is None
    assert not (tmp_path / "run").exists()
