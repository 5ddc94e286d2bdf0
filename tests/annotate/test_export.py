"""Exported annotations: what train and datasets read, with the weights that make estimates unbiased."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from filters.annotate.config import AnnotateConfig
from filters.annotate.export import export_annotations
from filters.annotate.run import run_annotate
from filters.errors import AnnotationsError
from filters.train.annotations import read_annotations
from tests.annotate.judge_server import JudgeServer, reply

Make = Callable[..., AnnotateConfig]
Serve = Callable[..., JudgeServer]


def test_train_and_datasets_read_what_is_exported(config: Make, serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda n, body: reply(str(n % 4)))
    made = config(server.url, 80)
    with pytest.raises(AnnotationsError, match="no such store"):
        export_annotations(made, tmp_path / "labels")
    run_annotate(made)
    done = export_annotations(made, tmp_path / "labels")
    assert (done.rows, done.left_out) == (80, 0)
    read = read_annotations(done.path)
    assert (len(read), read.target) == (80, "expected_score")
    assert read.natural_weight is not None
    assert set(read.natural_weight.tolist()) == {1.0}
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets

    loaded = datasets.load_dataset(str(tmp_path / "labels"), split="train", cache_dir=str(tmp_path))
    assert loaded.num_rows == 80
    assert {"id", "url", "text", "score", "expected_score", "scores", "sampling"} <= set(loaded.column_names)
    row = loaded[0]
    assert row["scores"] == [pytest.approx(row["expected_score"], abs=1e-4)]
    assert row["judges"] == ["judge"]


def test_several_judges_are_brought_together(config: Make, serve: Serve, tmp_path: Path) -> None:
    strict, kind = serve(lambda n, body: reply("1")), serve(lambda n, body: reply("3", model="other"))
    made = config(strict.url, 60)
    second = made.judges[0].model_copy(update={"name": "kind|x", "model": "other", "base_urls": (kind.url,)})
    made = made.model_copy(update={"judges": (made.judges[0], second)})
    run_annotate(made)
    table = pq.read_table(export_annotations(made, tmp_path / "labels").path)
    assert table["expected_score"][0].as_py() == pytest.approx((0.8 + 2.8) / 2)
    assert table["scores"][0].as_py() == pytest.approx([0.8, 2.8])
    card = (tmp_path / "labels" / "README.md").read_text()
    assert "| judge | judge-1 | expected | 0 | none | -1.00 |" in card
    assert "kind\\|x" in card
    header = yaml.safe_load(card.split("---")[1])
    assert header["configs"][0]["data_files"] == "annotations.parquet"


def test_rejected_pages_are_left_out_and_said(config: Make, serve: Serve, tmp_path: Path) -> None:
    def behave(n: int, body: dict[str, Any]) -> Any:
        return reply("no idea") if "Page number 5 " in body["messages"][-1]["content"] else reply()

    made = config(serve(behave).url, 20)
    run_annotate(made)
    done = export_annotations(made, tmp_path / "labels")
    assert (done.rows, done.left_out) == (19, 1)
    card = (tmp_path / "labels" / "README.md").read_text()
    assert "no_score 1" in card
    assert "1 pages drawn have no readable answer" in card


def test_a_stratified_sample_carries_its_weights(config: Make, serve: Serve, tmp_path: Path) -> None:
    made = config(serve().url, 80, sample={"size": 40, "design": "stratified", "strata": ["length"], "near": None})
    run_annotate(made)
    table = pq.read_table(export_annotations(made, tmp_path / "labels").path)
    assert sum(table["natural_weight"].to_pylist()) == pytest.approx(80)
    assert set(table["sampling"].to_pylist()) == {"random"}
    assert None not in table["stratum"].to_pylist()


def test_an_active_sample_keeps_its_weights(config: Make, serve: Serve, tmp_path: Path) -> None:
    def behave(n: int, body: dict[str, Any]) -> Any:
        return reply(str(int(body["messages"][-1]["content"].split("Page number ")[1].split()[0]) % 5))

    made = config(serve(behave).url, 300, sample={"size": 150, "design": "active", "near": None})
    run_annotate(made)
    done = export_annotations(made, tmp_path / "labels")
    read = read_annotations(done.path)
    assert read.natural_weight is not None
    assert read.random.all()
    assert len(set(read.natural_weight.tolist())) > 10
    assert (read.natural_weight * read.random).sum() == pytest.approx(300, rel=0.3)


def test_a_label_of_a_cut_page_says_so(config: Make, serve: Serve, tmp_path: Path) -> None:
    made = config(serve().url, 12, {"max_page_tokens": 200}, words=200)
    run_annotate(made)
    table = pq.read_table(export_annotations(made, tmp_path / "labels").path)
    for text, cut in zip(table["text"].to_pylist(), table["text_cut"].to_pylist(), strict=True):
        assert 100 < cut < len(text)
    assert "`text_cut`: 12 pages were too long" in (tmp_path / "labels" / "README.md").read_text()


def test_judges_of_different_pages_are_exported_with_a_warning(config: Make, serve: Serve, tmp_path: Path) -> None:
    def knows(half: int) -> Any:
        def behave(n: int, body: dict[str, Any]) -> Any:
            page = int(body["messages"][-1]["content"].split("Page number ")[1].split()[0])
            return reply("3" if page % 2 == half else "no idea", model=f"model-{half}")

        return behave

    servers = [serve(knows(half)) for half in range(2)]
    made = config(servers[0].url, 20, {"name": "even", "model": "model-0"})
    odd = made.judges[0].model_copy(update={"name": "odd", "model": "model-1", "base_urls": (servers[1].url,)})
    made = made.model_copy(update={"judges": (made.judges[0], odd)})
    run_annotate(made)
    done = export_annotations(made, tmp_path / "labels")
    assert done.rows == 20
    assert [note.split(" rated")[0] for note in done.notes] == ["even", "odd"]
    card = (tmp_path / "labels" / "README.md").read_text()
    assert "| no_score 10 | unknown |" in card
    assert "Even rated no page that another judge rated" in card
