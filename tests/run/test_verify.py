"""A finished run tampered with, one thing at a time: `finesieve verify` ends with status 1 and names it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from filters import FilterConfig, run_filter
from filters.cli.main import app
from filters.config.filter import DedupConfig
from filters.dedup.earlier_runs import open_earlier
from filters.errors import FinesieveError, RunError
from filters.model import QualityModel
from filters.models import EMBEDDED
from filters.run.finish import manifest_digest, manifest_text
from filters.run.verify import _safely, _Verifier, verify_run
from filters.scores.finished_run import Run
from tests.run.conftest import jsonl, page

SHARD, SIDE = "data/shard-00001.parquet", "attributes/attributes-00000.parquet"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an input, a model, and a run over both; every test has a copy of its own."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(EMBEDDED / "edu-en", folder / "model")
    rows: list[Any] = [{"id": f"d{n}", "text": page(n % 35, 80)} for n in range(50)]
    jsonl(folder / "in.jsonl", [*rows, b"broken"])
    jsonl(folder / "more.jsonl", [{"id": f"e{n}", "text": page(60 + n, 80)} for n in range(10)])
    scores = QualityModel.load(folder / "model").score([row["text"] for row in rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = {
            "input": {"kind": "jsonl", "paths": ["in.jsonl", "more.jsonl"], "id_key": "id"},
            "model": "model",
            "keep": {"min_score": float(np.median(scores))},
            "output": {"path": "run", "shard_size": "3kB"},
        }
        result = run_filter(FilterConfig.model_validate(config))
    assert len(result.shards) > 2
    assert result.ledger.total.removed["low_score"]
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Path("run")


def wrong(run: Path) -> dict[str, str]:
    """What verify says is wrong, by check; its exit status must agree."""
    done = CliRunner().invoke(app, ["verify", str(run), "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    checks = json.loads(done.stdout)
    found = {check["name"]: check["detail"] for check in checks if check["ok"] is False}
    assert done.exit_code == bool(found)
    return found


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows of a Parquet file."""
    pq.write_table(change(pq.read_table(path)), path)


def edit(run: Path, change: Callable[[dict[str, Any]], object], *, sign: bool = True) -> None:
    """Change manifest.json; with `sign`, its own digest too, as somebody would who means to deceive."""
    manifest = json.loads((run / "manifest.json").read_text())
    change(manifest)
    if sign:
        manifest["digest"] = manifest_digest(manifest)
    (run / "manifest.json").write_text(manifest_text(manifest))


def digests_rewritten(manifest: dict[str, Any]) -> None:
    for entry in manifest["files"]:
        content = Path("run", entry["path"]).read_bytes()
        entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        if entry["path"].endswith(".parquet"):
            entry["rows"] = pq.read_metadata(Path("run", entry["path"])).num_rows


def put(table: pa.Table, name: str, row: int, value: object) -> pa.Table:
    """A table with one value changed."""
    column = table[name].to_pylist()
    column[row] = value
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(name), pa.array(column, table.schema.field(name).type))


def test_nothing_is_wrong_with_a_run_that_was_left_alone(run: Path) -> None:
    assert wrong(run) == {}


def test_a_flipped_byte_of_a_shard(run: Path) -> None:
    content = bytearray((run / SHARD).read_bytes())
    content[len(content) // 3] ^= 1
    (run / SHARD).write_bytes(content)
    assert f"{SHARD} is not what was written" in wrong(run)["files"]


def test_a_flipped_bit_of_any_published_file(run: Path) -> None:
    draw = np.random.default_rng(5)
    files = [path for path in sorted(run.rglob("*")) if path.is_file()]
    assert {"README.md", "manifest.json", "quarantine.jsonl"} < {path.name for path in files}
    missed = []
    for path in files:
        content = path.read_bytes()
        for bit in draw.choice(8 * len(content), min(8 * len(content), 40), replace=False).tolist():
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            try:
                verifier = _Verifier(run, 0, 0, {})
            except FinesieveError:
                continue
            checks = [check for step in (verifier.manifest_itself, verifier.files) for check in _safely(step)]
            if all(check.ok for check in checks):
                missed.append((path.name, bit))
        path.write_bytes(content)
    assert not missed


def test_a_number_of_the_manifest_written_otherwise(run: Path) -> None:
    text = (run / "manifest.json").read_text()
    (run / "manifest.json").write_text(text.replace('": ', '":  ', 1))
    assert wrong(run)["manifest"] == "manifest.json was changed since"


def test_a_card_that_opens_something_else(run: Path) -> None:
    card = (run / "README.md").read_text()
    (run / "README.md").write_text(card.replace("data/*.parquet", "https://elsewhere/*.parquet"))
    assert wrong(run) == {"files": "README.md is not what was written"}
    (run / "README.md").unlink()
    assert wrong(run) == {"files": "README.md is missing"}


def test_a_run_without_exact_hashes_passes(tmp_path: Path) -> None:
    jsonl(tmp_path / "in.jsonl", [{"id": f"d{n}", "text": page(n, 40)} for n in range(12)])
    config = {
        "input": {"kind": "jsonl", "paths": [str(tmp_path / "in.jsonl")], "id_key": "id"},
        "dedup": {"exact": False},
        "keep": {"min_score": -1},
        "output": {"path": str(tmp_path / "run")},
    }
    run_filter(FilterConfig.model_validate(config))
    assert pq.read_table(tmp_path / "run" / SIDE)["exact_hash"].null_count == 12
    assert wrong(tmp_path / "run") == {}


def test_a_removed_shard(run: Path) -> None:
    (run / SHARD).unlink()
    assert f"{SHARD} is missing" in wrong(run)["files"]


def test_an_extra_shard(run: Path) -> None:
    shutil.copy(run / SHARD, run / "data" / "shard-00099.parquet")
    assert wrong(run) == {"files": "data/shard-00099.parquet is not the run's"}


def test_a_removed_row(run: Path) -> None:
    rewrite(run / SHARD, lambda table: table.slice(1))
    assert f"{SHARD} is not what was written" in wrong(run)["files"]
    edit(run, digests_rewritten)
    found = wrong(run)
    assert set(found) == {"ledger", "documents"}
    assert "the side files ask for" in found["ledger"]
    assert "the side files keep" in found["documents"]


def test_a_sum_of_the_ledger(run: Path) -> None:
    edit(run, lambda manifest: manifest["ledger"]["sources"]["in.jsonl"].update(kept=999))
    assert "in.jsonl: the ledger does not add up" in wrong(run)["ledger"]


def test_a_shift_between_reasons_that_keeps_the_sum(run: Path) -> None:
    def shift(manifest: dict[str, Any]) -> None:
        removed = manifest["ledger"]["sources"]["in.jsonl"]["removed"]
        removed["exact_duplicate"] -= 1
        removed["low_score"] = removed.get("low_score", 0) + 1

    edit(run, shift)
    assert "in.jsonl: the ledger has" in wrong(run)["ledger"]


def test_a_cause_of_quarantine(run: Path) -> None:
    content = (run / "quarantine.jsonl").read_text().replace('"cause": "', '"cause": "other')
    (run / "quarantine.jsonl").write_text(content)
    edit(run, digests_rewritten)
    assert "quarantine.jsonl has" in wrong(run)["ledger"]


def test_a_changed_side_file(run: Path) -> None:
    rewrite(run / SIDE, lambda table: put(table, "tokens", 0, 7))
    assert f"{SIDE} is not what was written" in wrong(run)["files"]
    edit(run, digests_rewritten)
    assert "the histogram of manifest.json is not that of the side files" in wrong(run)["ledger"]


def test_a_decision_in_a_side_file(run: Path) -> None:
    dropped = pq.read_table(run / SIDE)["reason"].to_pylist().index("low_score")
    rewrite(run / SIDE, lambda table: put(put(table, "reason", dropped, None), "keep", dropped, True))
    edit(run, digests_rewritten)
    found = wrong(run)
    assert "kept, attributes/ has" in found["ledger"]
    assert "documents" in found


def test_a_changed_model(run: Path) -> None:
    path = Path("model/model.json")
    model = json.loads(path.read_text())
    model["metrics"]["note"] = "edited"
    path.write_text(json.dumps(model))
    assert "model has digest" in wrong(run)["model"]
    weights = next(path for path in Path("model").iterdir() if path.suffix == ".safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    assert str(weights.name) in wrong(run)["model"]


def test_a_changed_input_and_one_that_is_gone(run: Path) -> None:
    content = Path("in.jsonl").read_text()
    Path("in.jsonl").write_text(content.replace(" the ", " THE "))
    assert wrong(run)["inputs"] == "in.jsonl is not what was read"
    Path("in.jsonl").unlink()
    assert "in.jsonl: no such file" in wrong(run)["inputs"]
    done = CliRunner().invoke(app, ["verify", "run", "--no-inputs"])
    assert done.exit_code == 0, done.stdout


def test_a_score_altered_in_a_shard(run: Path) -> None:
    rewrite(run / SHARD, lambda table: put(table, "score", 0, 4.9))
    edit(run, digests_rewritten)
    found = wrong(run)
    assert set(found) == {"documents", "sample"}
    assert "another id or score" in found["documents"]
    assert "was 4.9000" in found["sample"]


def test_a_score_altered_everywhere_is_found_by_scoring_again(run: Path) -> None:
    name = pq.read_table(run / SHARD)["id"][0].as_py()
    rewrite(run / SHARD, lambda table: put(table, "score", 0, 4.9))
    row = pq.read_table(run / SIDE)["id"].to_pylist().index(name)
    rewrite(run / SIDE, lambda table: put(table, "score", row, 4.9))

    def forge(manifest: dict[str, Any]) -> None:
        digests_rewritten(manifest)
        from filters.run.run_files import SideFiles

        manifest["histogram"] = SideFiles([run / SIDE]).histogram.to_json()

    edit(run, forge)
    found = wrong(run)
    assert set(found) <= {"sample", "input again"}
    assert f"{name}: score" in found["sample"]
    assert "was 4.9000" in found["sample"]


def test_a_text_altered_is_found_by_fingerprinting_again(run: Path) -> None:
    name = pq.read_table(run / SHARD)["id"][2].as_py()
    rewrite(run / SHARD, lambda table: put(table, "text", 2, "buy " + table["text"][2].as_py()[4:]))
    edit(run, digests_rewritten)
    assert wrong(run) == {"sample": f"{name}: another fingerprint, so another text"}


def test_a_column_altered_in_a_shard(run: Path) -> None:
    name = pq.read_table(run / SHARD)["id"][0].as_py()
    rewrite(run / SHARD, lambda table: put(table, "source", 0, "elsewhere.jsonl"))
    edit(run, digests_rewritten)
    assert wrong(run)["sample"].startswith(f"{name}: source 'elsewhere.jsonl', in the side files")


def test_documents_in_another_shard_are_still_there_and_one_twice_is_not(run: Path) -> None:
    rewrite(run / SHARD, lambda table: pa.concat_tables([table.slice(1), table.slice(1, 1)]))
    edit(run, digests_rewritten)
    assert "another id or score" in wrong(run)["documents"]


def test_an_edited_manifest(run: Path) -> None:
    edit(run, lambda manifest: manifest["config"]["dedup"].update(exact=False), sign=False)
    assert wrong(run)["manifest"] == "manifest.json was changed since"
    edit(run, lambda manifest: manifest["keep"].update(min_score=4.5))
    assert "is kept, below the threshold 4.5" in wrong(run)["ledger"]
    edit(run, lambda manifest: manifest["keep"].update(min_score=0.0))
    assert "is dropped, the threshold is 0" in wrong(run)["ledger"]


def test_a_run_of_the_old_layout_is_shown_and_refused_by_name(run: Path) -> None:
    def old(manifest: dict[str, Any]) -> None:
        manifest |= {"format": 1, "finesieve": "0.1.0"}
        manifest["config"]["dedup"] |= {"scope": "global"}
        del manifest["config"]["dedup"]["keep"]

    edit(run, old)
    assert Run(run).histogram().at_least(0)
    with pytest.raises(RunError, match=r"of format 1, by finesieve 0\.1\.0; this version verifies format 2"):
        verify_run(run)
    with pytest.raises(RunError, match=r"dedup\.against: run: made by an earlier version"):
        open_earlier(DedupConfig(against=(str(run),)))


def test_a_manifest_that_is_none(run: Path) -> None:
    edit(run, lambda manifest: manifest.update(config={"model": "edu-en"}))
    done = CliRunner().invoke(app, ["verify", "run"])
    assert done.exit_code == 1
    assert "not the manifest of a run" in str(done.exception)


@pytest.mark.parametrize("name", ["../../in.jsonl", "/etc/hostname"])
def test_a_manifest_cannot_name_files_outside_of_its_run(run: Path, name: str) -> None:
    edit(run, lambda manifest: manifest["files"][0].update(path=name))
    done = CliRunner().invoke(app, ["verify", "run"])
    assert done.exit_code == 1
    assert "no file inside a run's folder" in str(done.exception)


def test_a_name_with_control_characters_is_shown_without_them(run: Path) -> None:
    (run / "data" / "\x1b[31mred").write_text("")
    done = CliRunner().invoke(app, ["verify", "run"])
    assert done.exit_code == 1
    assert "red is not the run's" in done.stdout
    assert "\x1b" not in done.stdout


def test_scores_are_compared_by_their_bits() -> None:
    from filters.run.run_files import DocumentSum

    ids, ones = pa.array(["a", "b"]), pa.array([1.0, 2.0], pa.float32())
    one, other, swapped = DocumentSum(), DocumentSum(), DocumentSum()
    times = pc.fill_null(pa.array([1, 1]), 0).to_numpy()
    one.add(ids, ones, times)
    other.add(ids.take(pa.array([1, 0])), ones.take(pa.array([1, 0])), times)
    swapped.add(ids, ones.take(pa.array([1, 0])), times)
    assert one == other
    assert one != swapped
