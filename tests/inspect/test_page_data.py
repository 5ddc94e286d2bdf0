"""What the page shows: texts fit to be shown, clusters with members, the ledger, how far to trust the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.errors import AnnotationsError, InputError
from filters.inspect.model_card import model_card
from filters.inspect.page_data import page_data, readable
from filters.inspect.trust import at_borders
from filters.model.reliability import Reliability
from filters.model.trained_on import TrainedOn
from filters.scores.finished_run import Run
from filters.scores.histogram import EDGES
from filters.scores.threshold import Target
from tests.inspect.runs import ATTACKS, make_run, pages


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"), pages(120))


def data(run: Run, evaluation: Path | None = None, annotations: Path | None = None) -> dict[str, Any]:
    return page_data(run, evaluation=evaluation, annotations=annotations, characters=500)


def rows_of(run: Run) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in run.attributes().to_pylist()}


def labels(path: Path, run: Run, **columns: Any) -> Path:
    rows = [row for row in rows_of(run).values() if row["score"] is not None]
    table = {"id": [row["id"] for row in rows], "expected_score": [row["score"] + 0.1 for row in rows]}
    pq.write_table(pa.table(table | columns), path)
    return path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\r\nnext", "plain text\nnext"),
        (ATTACKS["direction"], "txet desrever isolated right"),
        (ATTACKS["control"], "null  bell  escape [31m red"),
        ("a\u200db \u2764\ufe0f c\u200c", "a\u200db \u2764\ufe0f c\u200c"),
        ("a" + "\u0300" * 50 + "b", "a\u0300\u0300\u0300b"),
        ("one" + "\n" * 90 + "two", "one\n\ntwo"),
        ("one\n \n\t\n \ntwo", "one\n \n  two"),
        ("", ""),
    ],
)
def test_readable_text_controls_nothing(text: str, shown: str) -> None:
    assert readable(text, 100) == shown


def test_readable_text_is_bounded_however_long_it_is() -> None:
    assert readable(ATTACKS["long"], 100) == "w" * 100
    assert len(readable("\u202e" * 10**6 + "end", 100)) == 0


def test_samples_are_documents_of_the_run_with_their_texts(run: Run) -> None:
    found = data(run)["samples"]["items"]
    rows = rows_of(run)
    assert len({item["id"] for item in found}) == len(found)
    texts = {row["id"]: row["text"] for row in pages(120)}
    for item in found:
        row = rows[item["id"]]
        assert item["score"] == pytest.approx(row["score"], abs=1e-6)
        assert item["reason"] == row["reason"]
        assert item["reason"] in (None, "low_score")
        assert texts[item["id"]].startswith(item["text"])
    scores = [row["score"] for row in rows.values() if row["reason"] in (None, "low_score")]
    assert {max(scores), min(scores)} <= {rows[item["id"]]["score"] for item in found}


def test_clusters_show_the_survivor_and_its_copies(run: Run) -> None:
    clusters = data(run)["clusters"]
    rows = rows_of(run)
    copies = [row for row in rows.values() if row["reason"] in ("exact_duplicate", "near_duplicate")]
    assert clusters["total"] == len({row["duplicate_of"] for row in copies})
    assert sum(part["clusters"] for part in clusters["sizes"]) == clusters["total"]
    assert clusters["items"]
    for cluster in clusters["items"]:
        survivor, *others = cluster["members"]
        assert rows[survivor["id"]]["duplicate_of"] is None
        assert {rows[other["id"]]["duplicate_of"] for other in others} == {survivor["id"]}
        assert cluster["size"] == 1 + sum(row["duplicate_of"] == survivor["id"] for row in copies)
        near = any(rows[other["id"]]["reason"] == "near_duplicate" for other in others)
        assert cluster["kind"] == ("with near copies" if near else "exact copies")


def test_a_target_sets_the_threshold_of_the_page(run: Run) -> None:
    target = Target("fraction", 0.1)
    found = page_data(run, evaluation=None, annotations=None, characters=100, target=target)["threshold"]
    solution = run.solve(target)
    assert found["score"] == solution.threshold
    assert found["kept"] == vars(solution.kept)
    assert found["name"] == "the threshold of fraction=0.1"


def test_the_ledger_adds_up(run: Run) -> None:
    ledger = data(run)["ledger"]
    total = ledger["total"]
    assert total["records"] == total["kept"] + total["removed"] + total["quarantined"]
    assert sum(count for _, count, _ in ledger["reasons"]) == total["removed"] + total["quarantined"]


def test_without_texts_the_page_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path, pages(30), min_score=4.9, output={"path": str(tmp_path / "run"), "rejected": False})
    samples = data(run)["samples"]
    assert all(item["text"] is None for item in samples["items"])
    assert "holds the text of 0 of them" in samples["note"]
    assert "output.rejected: true" in samples["missing"]


def test_texts_are_found_in_json_lines_too(tmp_path: Path) -> None:
    output = {"path": str(tmp_path / "run"), "rejected": True, "format": "jsonl.zst"}
    samples = data(make_run(tmp_path, pages(30), output=output))["samples"]
    assert samples["items"]
    assert all(item["text"] for item in samples["items"])


def test_a_run_without_documents_has_a_page(tmp_path: Path) -> None:
    found = data(make_run(tmp_path, []))
    assert found["histogram"]["documents"] == []
    assert found["samples"]["items"] == found["clusters"]["items"] == []


def charts(trust: dict[str, Any]) -> dict[str, Any]:
    return {chart["kind"]: chart["data"] for chart in trust["charts"]}


def test_labels_are_joined_by_id_and_measured(run: Run, tmp_path: Path) -> None:
    found = charts(data(run, annotations=labels(tmp_path / "labels.parquet", run))["trust"])
    assert all(part["judge"] == pytest.approx(part["score"] + 0.1, abs=1e-5) for part in found["reliability"])
    pages_shown = sum(cell[2] for cell in found["agreement"]["cells"])
    assert pages_shown == sum(row["score"] is not None for row in rows_of(run).values())
    threshold, precision, recall = min(found["curve"], key=lambda point: abs(point[0] - run.min_score))
    wanted = [row["score"] + 0.1 >= run.min_score for row in rows_of(run).values() if row["score"] is not None]
    kept = [row["score"] >= np.float32(run.min_score) for row in rows_of(run).values() if row["score"] is not None]
    assert threshold == pytest.approx(run.min_score)
    assert precision == 1.0
    assert recall == pytest.approx(sum(kept) / sum(wanted), abs=1e-4)


def test_labels_of_texts_the_model_was_trained_on_are_left_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for row in rows_of(run).values() if row["score"] is not None]
    by_id = {page["id"]: page["text"] for page in pages(120)}
    texts = [by_id[row["id"]] for row in rows]
    path = labels(tmp_path / "labels.parquet", run, text=texts)
    card = model_card(run)
    assert card is not None
    assert card.texts is not None

    def shown(known: list[str]) -> dict[str, Any]:
        trained = replace(card, texts=TrainedOn.of(known, None))
        monkeypatch.setattr("filters.inspect.page_data.model_card", lambda _: trained)
        found: dict[str, Any] = data(run, annotations=path)["trust"]
        return found

    nothing = shown(["something else"])
    assert sum(cell[2] for cell in charts(nothing)["agreement"]["cells"]) == len(rows)
    assert not any(note["alarm"] for note in nothing["notes"])
    # Copies and near copies of the ten go with them.
    part = shown(texts[:10])
    left = sum(cell[2] for cell in charts(part)["agreement"]["cells"])
    assert left <= len(rows) - 10
    assert any(f"{len(rows) - left} more are left out" in note["text"] for note in part["notes"])
    everything = shown(texts)
    assert everything["charts"] == []
    assert any(note["alarm"] for note in everything["notes"])
    blind = data(run, annotations=labels(tmp_path / "blind.parquet", run))["trust"]
    assert any("is not known" in note["text"] and note["alarm"] for note in blind["notes"])


def test_labels_of_other_documents_are_refused(run: Run, tmp_path: Path) -> None:
    table = pa.table({"id": ["elsewhere"], "score": [3]})
    pq.write_table(table, tmp_path / "other.parquet")
    with pytest.raises(AnnotationsError, match="none of its 1 rows"):
        data(run, annotations=tmp_path / "other.parquet")
    pq.write_table(table.drop_columns(["id"]), tmp_path / "keyless.parquet")
    with pytest.raises(AnnotationsError, match="needs the columns"):
        data(run, annotations=tmp_path / "keyless.parquet")
    with pytest.raises(AnnotationsError, match="cannot read"):
        data(run, annotations=tmp_path / "missing.parquet")


def evaluation(digest: str) -> dict[str, Any]:
    estimate = {"value": 0.6, "low": 0.5, "high": 0.7}
    return {
        "format": "finesieve-evaluation",
        "version": 1,
        "finesieve": "0",
        "subject": {"name": "some-model", "kind": "linear", "digest": digest, "window": 3000},
        "protocol": "held out",
        "annotations": {
            "name": "labels.parquet",
            "sha256": "0",
            "rows": 100,
            "groups": 9,
            "target": "score",
            "seen": 0,
        },
        "min_score": 1.5,
        "resamples": 100,
        "predictions": 1,
        "random_state": 0,
        "confusion": {"kept_rightly": 1, "kept_wrongly": 1, "missed": 1, "dropped_rightly": 97},
        **dict.fromkeys(("judge", "probes", "comparison")),
        **dict.fromkeys(("baselines", "facets", "conformal", "examples", "notes"), ()),
        "sample": {"f1": estimate},
        "natural": None,
        "reliability": [{"rows": 50, "score": 1.0, "judge": estimate}, {"rows": 2, "score": 3.0, "judge": estimate}],
        "curve": [
            {"threshold": 1.5, "precision": 0.6, "recall": 0.5},
            {"threshold": 0.5, "precision": 0.2, "recall": 1.0},
        ],
        "histogram": [
            {"low": 0.0, "judge_keeps": 1, "judge_drops": 9},
            {"low": 0.25, "judge_keeps": 0, "judge_drops": 0},
        ],
    }


def test_an_evaluation_report_is_shown_and_one_of_another_model_is_called_that(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(evaluation(run.manifest["model"]["digest"])), encoding="utf-8")
    shown = data(run, evaluation=path)["trust"]
    assert [part["score"] for part in charts(shown)["reliability"]] == [1.0]
    assert charts(shown)["decisions"] == [[0.0, 1.0, 9.0]]
    assert not [note for note in shown["notes"] if note["alarm"]]
    path.write_text(json.dumps(evaluation("0" * 64)), encoding="utf-8")
    assert [note["alarm"] for note in data(run, evaluation=path)["trust"]["notes"]] == [True]


@pytest.mark.parametrize("content", ["", "[]", '{"format": "finesieve-evaluation"}', '{"format": "other"}'])
def test_something_else_than_an_evaluation_report_is_refused(run: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="no evaluation report"):
        data(run, evaluation=tmp_path / "report.json")


def test_precision_between_measured_points_is_that_of_what_is_really_kept() -> None:
    found = at_borders([(0.5, 0.2, 1.0), (1.5, 0.6, 0.5)], "labels")
    assert found is not None
    at = {round(float(edge), 2): place for place, edge in enumerate(EDGES)}
    assert [found["precision"][at[edge]] for edge in (0.0, 0.5, 0.51, 1.5, 1.51)] == [0.2, 0.2, 0.6, 0.6, None]
    assert [found["recall"][at[edge]] for edge in (0.0, 0.5, 0.51, 1.5, 1.51)] == [1.0, 1.0, 0.5, 0.5, 0.0]


def test_expected_precision_comes_from_the_models_reliability(run: Run) -> None:
    reliability = Reliability(min_score=1.5, scores=(0.0, 5.0), rows=(100, 100), kept=(0.0, 1.0))
    run = Run(run.path)
    run.manifest["model"]["reliability"] = reliability.to_json()
    expected = data(run)["expected"]
    assert expected["kind"] == "expected"
    kept = run.solve(Target("min_score", 0.3)).kept.documents
    scores = [row["score"] for row in rows_of(run).values() if row["reason"] in (None, "low_score")]
    above = [score for score in scores if score >= np.float32(0.3)]
    assert len(above) == kept
    assert expected["precision"][30] == pytest.approx(np.mean(above) / 5, abs=2e-4)
    assert expected["recall"][30] == pytest.approx(np.sum(above) / np.sum(scores), abs=2e-3)


def test_the_card_is_that_of_the_runs_model_or_none(run: Run) -> None:
    card = model_card(run)
    assert card is not None
    assert ("kind of classifier", "static") in card.rows
    assert card.metrics is not None
    assert card.metrics.rows[0][0] == "precision"
    other = Run(run.path)
    other.manifest["model"]["digest"] = "0" * 64
    assert model_card(other) is None
    other.manifest["config"]["model"] = "/nowhere/model"
    assert model_card(other) is None


def test_credentials_are_not_shown(run: Run) -> None:
    secret = Run(run.path)
    secret.manifest["config"]["inputs"][0]["storage_options"] = {"key": "hunter2"}
    assert "hunter2" not in json.dumps(data(secret))
