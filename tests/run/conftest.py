"""Small inputs with everything in them that a run must handle."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from filters.config.filter import FilterConfig
from filters.dedup.losses import LOSSES, check_losses
from filters.phases.phase import Job, run_unit
from filters.run.finish import RunResult, publish_job
from filters.run.phase_list import PHASES
from filters.run.plan import Observer, make_plan

WORDS = (
    *("the", "of", "water", "light", "plant", "cell", "number", "line", "angle", "river", "history", "map", "king"),
    *("law", "verb", "noun", "story", "energy", "heat", "wave", "sound", "planet", "star", "rock", "soil", "leaf"),
    *("root", "seed", "animal", "blood", "heart", "bone", "cart", "price", "order", "sale", "deal", "shop", "click"),
)


def page(seed: int, words: int = 120) -> str:
    """A text no other seed shares five words in a row with, but for chance."""
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS) + (str(generator.randrange(999)) * (n % 3 == 0)) for n in range(words))


def jsonl(path: Path, rows: list[Any]) -> Path:
    """Write rows as JSON lines; bytes are written as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Heard(Observer):
    """Remembers what a run says."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.phases: list[tuple[str, int, int]] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def phase(self, name: str, done: int, units: int) -> None:
        self.phases.append((name, done, units))


def run_in_process(config: FilterConfig) -> RunResult:
    """A global run unit by unit, without worker processes: what they add is tested where they are."""
    plan = make_plan(config)
    work = plan.output / ".work"
    work.mkdir(parents=True)
    job = Job(work, plan.config, tuple(plan.units), plan.min_score)
    job.save()
    for phase in PHASES:
        for unit in range(phase.units(job)):
            run_unit(job, phase, unit)
        if phase.name == LOSSES:
            check_losses(job, lambda text: None)
    return publish_job(plan, job)


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run of this test is done by threads: what worker processes add is tested where they are."""
    monkeypatch.setattr("filters.run.engine.threads_will_do", lambda config: True)


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., FilterConfig]:
    """A config over JSONL files in the test's folder; keyword arguments replace whole sections."""

    def make(*paths: Path, output: str | dict[str, Any] = "run", **sections: Any) -> FilterConfig:
        config: dict[str, Any] = {
            "input": {"kind": "jsonl", "paths": [str(path) for path in paths], "id_key": "id"},
            "keep": {"min_score": 0.0},
            "output": {"path": str(tmp_path / output), "rejected": True} if isinstance(output, str) else output,
        }
        return FilterConfig.model_validate(config | sections)

    return make
