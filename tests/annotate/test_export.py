"""Exported annotations: what train and datasets read, with the weights that make estimates unbiased."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from filters.annotate.agreement import AgreementReport, make_report
from filters.annotate.config import AnnotateConfig
from filters.annotate.export import export_annotations
from filters.annotate.ratings import read_rated
from filters.annotate.rubric import EXPORTED
from filters.annotate.run import run_annotate
from filters.annotate.store import Answer, Store
from filters.annotate.terminal import agreement_view
from filters.errors import AnnotationsError, ConfigError
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


ATTRIBUTES = """
name: several
version: "1"
scale: {min: 0, max: 10}
label: Score
prompt: Give this page scores for what it teaches and for how well it is written.
attributes:
  - {name: depth, weight: 1}
  - {name: style, weight: 0}
"""


def several(config: Make, serve: Serve, tmp_path: Path, judges: int = 2) -> AnnotateConfig:
    """A config whose rubric has two attributes, `depth` of page n being n % 11, and `style` 10 minus that."""
    (tmp_path / "rubric.yaml").write_text(ATTRIBUTES)

    def behave(n: int, body: dict[str, Any]) -> Any:
        depth = int(body["messages"][-1]["content"].split("Page number ")[1].split()[0]) % 11
        return reply(f"depth: {depth}\nstyle: {10 - depth}", logprobs=False)

    made = config(serve(behave).url, 88, {"mode": "sample", "repeats": 2})
    more = [made.judges[0].model_copy(update={"name": f"judge-{n}"}) for n in range(judges)]
    return made.model_copy(update={"judges": tuple(more)})


@pytest.mark.parametrize("judges", [1, 2])
def test_each_attribute_is_a_column_and_a_target(config: Make, serve: Serve, tmp_path: Path, judges: int) -> None:
    made = several(config, serve, tmp_path, judges)
    run_annotate(made)
    done = export_annotations(made, tmp_path / "labels")
    table = pq.read_table(done.path)
    assert EXPORTED | {"depth", "style"} == set(table.column_names)
    for row in table.to_pylist():
        depth = int(row["text"].split()[2]) % 11
        assert (row["depth"], row["style"]) == pytest.approx((depth / 2, 5 - depth / 2))  # on the scale of training
        assert row["expected_score"] == row["depth"]  # the weighted mean, and style weighs nothing
        assert row["scores"] == [row["depth"]] * 2 * judges
        assert row["attributes"] == [{"depth": depth / 2, "style": 5 - depth / 2}] * 2 * judges
    read = read_annotations(done.path, target="style")
    assert (read.target, len(read)) == ("style", 88)
    assert read.expected.tolist() == table["style"].to_pylist()
    assert read_annotations(done.path).target == "expected_score"
    assert "`depth`, `style`: the consensus on each attribute" in (tmp_path / "labels" / "README.md").read_text()


def test_agreement_is_reported_for_each_attribute(config: Make, serve: Serve, tmp_path: Path) -> None:
    made = several(config, serve, tmp_path, 1)
    run_annotate(made)
    with Store(made.store) as store:  # a judge that reads depth alike, and style at random
        judge, rubric = store.judge("second", "model", "m", {}).number, store.rubrics()[0].number
        random = np.random.default_rng(0)
        for number, said in {a.document: a for _, a in store.answers(rubric)}.items():
            attributes = {"depth": (said.attributes or {})["depth"], "style": float(random.uniform(0, 10.9))}
            store.save(1, judge, rubric, [Answer(number, 0, "ok", "", score=5, expected=5, attributes=attributes)])
    report = make_report(read_rated(made.store), curve=False, resamples=50)
    depth, style = report.attributes
    assert (depth.name, style.name, depth.overall) == ("depth", "style", None)
    assert depth.within[0].coefficients["alpha"].value == depth.between[0].coefficients["alpha"].value == 1
    assert abs(style.between[0].coefficients["spearman"].value or 0) < 0.3
    assert depth.mean.value == pytest.approx(5, abs=0.2)
    assert AgreementReport.model_validate_json(report.model_dump_json()) == report
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(agreement_view(report))
    shown = console.export_text()
    assert re.search(r"depth +88 +5\.00 +1\.00 \[1\.0,1\.0\]", shown)
    assert max(map(len, shown.splitlines())) <= 80


def test_an_attribute_called_as_a_column_is_refused(config: Make, tmp_path: Path) -> None:
    (tmp_path / "rubric.yaml").write_text(ATTRIBUTES.replace("style", "source"))
    with pytest.raises(ConfigError, match=r"attributes\.1\.name: annotations have a column 'source'"):
        run_annotate(config("http://127.0.0.1:9/v1"))


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
