"""Several models in one pass: each score is a column, and what models share is done once."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from filters import FilterConfig, QualityModel, Run, run_filter
from filters.cli.main import app
from filters.errors import ConfigError, FinesieveError, RunError
from filters.model.kinds import fasttext, static
from filters.model.kinds.fasttext import trainer
from filters.model.kinds.heads import LogisticHead, RidgeHead
from filters.run.select import run_select, score_run, selection_config
from filters.run.verify import verify_run
from filters.scores.histogram import Histogram
from filters.storage.location import location
from tests.model.test_together import TEXTS, head_on_edu_en
from tests.run.conftest import digest, jsonl, page, run_in_process
from tests.run.test_select import documents

Make = Callable[..., FilterConfig]


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if isinstance(result.exception, FinesieveError):
        return 1, str(result.exception)
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head of labels, a head of numbers, and a fastText file of two labels."""
    folder = tmp_path_factory.mktemp("models")
    lengths = [float(len(text)) for text in TEXTS]
    head_on_edu_en(RidgeHead(l2=(1.0,)), lengths).save(folder / "long")
    low, high = np.quantile(lengths, [0.3, 0.7])
    topics = head_on_edu_en(LogisticHead(), [2.0 if n < low else 0.0 if n > high else 1.0 for n in lengths])
    topics.save(folder / "topic")
    lines = folder / "lines.txt"
    lines.write_text("".join(f"__label__{'hq' if 'water' in text else 'lq'} {text}\n" for text in TEXTS))
    trained = trainer().train_supervised(str(lines), dim=8, epoch=3, thread=1, verbose=0, bucket=100)
    trained.save_model(str(folder / "two.bin"))
    return folder


@pytest.fixture
def make(tmp_path: Path, models: Path) -> Make:
    rows = [
        {"id": f"{n}", "text": TEXTS[n % 30] if n % 3 else page(n % 40), "kind": ["a", "b"][n % 2], "hq_now": n}
        for n in range(80)
    ]
    source = jsonl(tmp_path / "in.jsonl", [*rows, {"id": "empty", "text": ""}])

    def config(name: str, keep: dict[str, Any], **sections: Any) -> FilterConfig:
        scores = {"edu": "edu-en", "hq": f"{models}/two.bin#__label__hq", "lq": f"{models}/two.bin#__label__lq",
                  "long": str(models / "long"), "topic": str(models / "topic")}  # fmt: skip
        data = {
            "input": {"kind": "jsonl", "paths": [str(source)], "id_key": "id", "slices": ["kind"]},
            "scores": scores, "keep": keep, "output": {"path": str(tmp_path / name), "rejected": True},
        }  # fmt: skip
        return FilterConfig.model_validate(data | sections)

    return config


def test_each_score_is_a_column_as_its_model_alone_gives_it(make: Make, tmp_path: Path, models: Path) -> None:
    result = run_filter(make("run", {"min_score": 0.5}))
    for folder in ("data", "rejected", "attributes"):
        table = pq.read_table(tmp_path / "run" / folder)
        alive = table["score"].is_valid()
        assert table["topic"].is_valid().equals(alive)
        assert table["edu"].equals(table["score"])
        if folder == "attributes":
            continue
        texts = table.filter(alive)["text"].to_pylist()
        for column, name in (("hq", "two.bin#__label__hq"), ("lq", "two.bin#__label__lq"), ("long", "long")):
            alone = QualityModel.load(f"{models}/{name}").score(texts)
            np.testing.assert_array_equal(table.filter(alive)[column].to_numpy(), alone)
        said = QualityModel.load(models / "topic").predict(texts)
        assert said.label is not None
        labels = ["lessons", "mixed", "shops"]
        assert table.filter(alive)["topic"].to_pylist() == [labels[number] for number in said.label]
        np.testing.assert_array_equal(table.filter(alive)["topic_score"].to_numpy(), said.score)
    stated = result.manifest["scores"]
    assert list(stated) == ["edu", "hq", "lq", "long", "topic"]
    assert stated["hq"]["digest"] == QualityModel.load(f"{models}/two.bin#__label__hq").digest
    assert result.manifest["slices"] == ["kind", "topic"]
    rows = pq.read_table(tmp_path / "run" / "attributes")
    survivors = rows.filter(pa.compute.is_in(rows["reason"], pa.array([None, "low_score"])))
    assert Histogram.from_json(result.manifest["score_histograms"]["hq"]).total() == survivors.num_rows
    assert sum(part.total() for part in Run(str(tmp_path / "run")).histogram("topic").values()) == survivors.num_rows
    checks = verify_run(location(str(tmp_path / "run")))
    assert all(check.ok is not False for check in checks), checks
    assert "model of hq" in [check.name for check in checks]


def test_what_models_share_is_done_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each batch."""
    calls: list[str] = []
    features, loaded = static.static_features, fasttext._compiled
    monkeypatch.setattr(static, "static_features", lambda *args: calls.append("table") or features(*args))

    def load(*about: Any) -> Any:
        found = loaded(*about)
        if not hasattr(found, "counted"):
            found.counted, predict = True, found.predict_proba
            monkeypatch.setattr(found, "predict_proba", lambda packed: calls.append("fasttext") or predict(packed))
        return found

    monkeypatch.setattr(fasttext, "_compiled", load)
    run_in_process(make("run", {"min_score": 0.5}))
    assert calls
    assert calls == ["table", "fasttext"] * (len(calls) // 2)


def test_a_copy_of_a_table_is_the_same_table(models: Path, tmp_path: Path) -> None:
    lengths = [float(len(text)) for text in TEXTS]
    model = head_on_edu_en(RidgeHead(l2=(1.0,)), lengths)
    options = model.scorer.options.model_copy(update={"table_sha256": None})
    own = replace(model, scorer=replace(model.scorer, options=options))
    own = replace(own, metadata=own.metadata.model_copy(update={"features": own.scorer.features()}))
    assert own.save(tmp_path / "own").scorer.embedding == QualityModel.load(models / "long").scorer.embedding
    assert (tmp_path / "own" / "table.safetensors").exists()


@pytest.mark.parametrize("stays", ["first", "best", "none"])
def test_select_by_several_scores_is_filter_by_the_same_rule(make: Make, tmp_path: Path, stays: str) -> None:
    dedup = {"keep": stays}
    rule = {"where": "topic <> 'shops' and (hq > 0.3 or long > 2) and topic_score > 0.1", "fraction": 0.7, "by": "hq"}
    first = run_filter(make("first", {"where": "hq > 0.5"}, dedup=dedup))
    wanted = run_filter(make("wanted", rule, dedup=dedup))
    run = Run(str(first.path))
    result = run_select(run, selection_config(run, rule, str(tmp_path / "new")))
    assert documents(result.path) == documents(wanted.path)
    for key in ("scores", "score_histograms", "histograms", "slices", "ledger", "keep", "config"):
        assert result.manifest[key] == wanted.manifest[key], key
    if stays != "none":
        assert result.ledger.total.kept > 0
    assert result.ledger.total.removed["rule"]
    assert all(check.ok is not False for check in verify_run(location(str(result.path))))


def test_the_short_form_stays_and_scores_come_beside_it(make: Make, models: Path) -> None:
    config = make("run", {"min_score": 0.1}, model=f"{models}/two.bin#__label__hq", scores={"edu": "edu-en"})
    result = run_filter(config)
    table = pq.read_table(Path(result.path) / "data")
    np.testing.assert_array_equal(
        table["score"].to_numpy(), QualityModel.load(f"{models}/two.bin#__label__hq").score(table["text"].to_pylist())
    )
    np.testing.assert_array_equal(table["edu"].to_numpy(), QualityModel.load("edu-en").score(table["text"].to_pylist()))
    assert FilterConfig.model_validate(config.model_dump()).models == config.models
    assert FilterConfig.model_validate({**config.model_dump(exclude={"model"})}).model == "edu-en"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"scores": {"topic": "MODELS/topic"}}, r"scores\.topic: made-up tells labels apart .* gives no score"),
        ({"model": "MODELS/topic"}, r"^model: made-up tells labels apart"),
        ({"scores": {"a": "edu-en", "tokens": "edu-en"}}, r"scores\.tokens: a column 'tokens' is there already"),
        ({"scores": {"a": "edu-en", "kind": "edu-en"}}, r"scores\.kind: a column 'kind' is there already"),
        ({"scores": {"a": "edu-en", "score": "MODELS/long"}}, r"scores: 'score' is the column of `model`"),
        ({"scores": {"a": "edu-en", "topic": "MODELS/topic", "topic_score": "edu-en"}},
         r"scores\.topic_score: a column 'topic_score' is there already"),
        ({"scores": {"a": "edu-en", "b": "MODELS/nothing"}}, r"scores\.b: .*nothing: no such model"),
        ({"scores": {"a": "edu-en", "b": "MODELS/two.bin#__label__x"}}, r"scores\.b: .*has no label '__label__x'"),
        ({"model": "MODELS/long", "scores": {"edu": "edu-en"}, "language": {"keep": ["da"]}},
         r"scores\.edu: edu-en is for texts in 'en', and language\.keep lets only da through"),
        ({"scores": {"a": "edu-en"}, "keep": {"where": "b > 1"}}, r"keep\.where: .*no column.*'b'"),
    ],
)  # fmt: skip
def test_bad_scores_are_refused_before_anything_is_done(
    make: Make, tmp_path: Path, models: Path, sections: dict[str, Any], message: str
) -> None:
    sections = json.loads(json.dumps(sections).replace("MODELS", str(models)))
    with pytest.raises((FinesieveError, ValueError), match=message):
        run_filter(make("run", sections.pop("keep", {"min_score": 1.0}), **sections))
    assert not (tmp_path / "run" / ".work" / "done").exists()


def test_a_name_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "input: {kind: jsonl, paths: [a.jsonl]}\noutput: {path: run}\nscores:\n  hq: edu-en\n  hq: ./models/x\n"
    )
    with pytest.raises(ConfigError, match="the key 'hq' stands here twice"):
        FilterConfig.load(path)
    path.write_text(
        "input: {kind: jsonl, paths: [a.jsonl]}\noutput: {path: run}\nscores: {edu: edu-en, hq: models/x}\n"
    )
    assert FilterConfig.load(path).models == {"score": "edu-en", "edu": "edu-en", "hq": str(tmp_path / "models/x")}


def test_an_interrupted_run_is_not_resumed_with_another_scorer(
    make: Make, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from filters.run.shard import Shard

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "run", stop)
        with pytest.raises(KeyboardInterrupt):
            run_filter(make("run", {"min_score": 0.5}))
    other = {"edu": "edu-en", "hq": f"{models}/two.bin#__label__lq"}
    with pytest.raises(RunError, match=r"scores[^\n]*hq"):
        run_filter(make("run", {"min_score": 0.5}, scores=other))
    assert run_filter(make("run", {"min_score": 0.5})).ledger.total.records == 81


def test_a_finished_run_is_scored_with_more_models(
    make: Make, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"hq": f"{models}/two.bin#__label__hq", "topic": str(models / "topic")}
    rule = {"where": "hq > 0.5 or topic = 'lessons'"}
    wanted = run_filter(make("wanted", rule, scores={"edu": "edu-en", **more}))
    first = run_filter(make("first", {"min_score": 1.0}, scores={"edu": "edu-en"}))
    before = pq.read_table(tmp_path / "first" / "attributes")
    monkeypatch.chdir(models)
    added = score_run(Run(str(first.path)), {"hq": "two.bin#__label__hq", "topic": "topic"})
    assert Path(added.path) == Path(first.path)
    after, whole = (pq.read_table(tmp_path / name / "attributes") for name in ("first", "wanted"))
    assert after.select(before.column_names).equals(before)
    stays = pa.compute.is_in(whole["reason"], pa.array([None, "rule"]))
    for name in ("hq", "topic", "topic_score"):
        assert after.filter(stays)[name].equals(whole.filter(stays)[name])
        assert after[name].null_count == after.num_rows - pa.compute.sum(stays).as_py()
    assert list(added.manifest["scores"]) == ["edu", "hq", "topic"]
    assert added.manifest["score_histograms"] == wanted.manifest["score_histograms"]
    assert added.ledger.to_json() == first.ledger.to_json()
    checks = verify_run(location(str(first.path)))
    assert all(check.ok is not False for check in checks), checks
    run = Run(str(first.path))
    chosen = run_select(run, selection_config(run, rule, str(tmp_path / "new")))
    kept, expected = (pq.read_table(Path(one.path) / "data") for one in (chosen, wanted))
    assert kept.select(["id", "text", "hq", "topic"]).equals(expected.select(["id", "text", "hq", "topic"]))
    with pytest.raises(ConfigError, match="--add hq: the run has this score already"):
        score_run(run, {"hq": "edu-en"}, str(tmp_path / "again"))
    with pytest.raises(ConfigError, match=r"scores\.tokens: a column 'tokens' is there already"):
        score_run(run, {"tokens": "edu-en"}, str(tmp_path / "again"))
    assert not (tmp_path / "again").exists()


def test_the_command_adds_a_score(make: Make, tmp_path: Path, models: Path) -> None:
    first = run_filter(make("first", {"min_score": 1.0}, scores={"edu": "edu-en"}))
    new = tmp_path / "new"
    code, text = call("score", first.path, "--add", f"long={models / 'long'}", "--output", new)
    assert code == 0, text
    assert "long" in pq.read_schema(next((new / "data").iterdir())).names
    assert "long" not in Run(str(first.path)).scores
    for arguments, message in (
        ((first.path, "--add", "long"), "write NAME=MODEL"),
        ((first.path, "--add", "a=edu-en", "--add", "a=edu-en"), "each name once"),
        ((first.path, "x.jsonl", "--add", "a=edu-en"), "leave out FILES"),
        ((first.path, "--add", "a=nothing"), "no such model"),
        (("edu-en",), "what is to be scored is missing"),
    ):
        code, text = call("score", *arguments)
        assert code
        assert message in text


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing changes."""
    folder = tmp_path_factory.mktemp("finished")
    source = jsonl(folder / "in.jsonl", [{"id": f"{n}", "text": page(n), "kind": "a"} for n in range(12)])
    reads = {"kind": "jsonl", "paths": [str(source)], "id_key": "id", "slices": ["kind"]}
    output = {"path": str(folder / "run")}
    run_filter(FilterConfig.model_validate({"input": reads, "scores": {"edu": "edu-en"}, "output": output}))
    return folder / "run"


def given(path: Path, **columns: Any) -> Path:
    """A Parquet file of scores."""
    pq.write_table(pa.table(columns), path)
    return path


def test_scores_of_a_file_are_joined_by_id(make: Make, tmp_path: Path) -> None:
    """In the file: rows in another order, one twice, one of no document, without a key; values that are no number."""
    first = run_filter(make("first", {"min_score": 1.0}, scores={"edu": "edu-en"}))
    before = pq.read_table(tmp_path / "first" / "attributes")
    numbers = [*range(79, 20, -1), 30]
    values = [float("nan") if n == 50 else float("inf") if n == 51 else None if n == 52 else n / 2 for n in numbers]
    file = given(
        tmp_path / "other.parquet", maths=pa.array([*values, 1.0, 2.0], pa.float64()),
        genre=pa.array([*("even" if n % 2 == 0 else None for n in numbers), "x", "y"]).dictionary_encode(),
        id=pa.array([*map(str, numbers), "nobody", None], pa.large_string()), url=["u"] * 62,
    )  # fmt: skip
    code, text = call("score", first.path, "--scores", file)
    assert code == 0, text
    assert "59 of 81 documents matched by id; 2 of its 62 rows are of no document" in " ".join(text.split())
    after = pq.read_table(tmp_path / "first" / "attributes")
    assert after.select(before.column_names).equals(before)
    found = dict(zip(after["id"].to_pylist(), zip(*(after[c].to_pylist() for c in ("maths", "genre")), strict=True),
                     strict=True))  # fmt: skip
    assert found == {
        name: ((int(name) / 2 if int(name) not in (50, 51, 52) else None, None if int(name) % 2 else "even")
               if name != "empty" and int(name) > 20 else (None, None))
        for name in found
    }  # fmt: skip
    run = Run(str(first.path))
    stated = run.manifest["scores"]["maths"]
    assert stated["digest"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert stated["joined"] == {
        "kind": "float", "by": "id", "rows": 62, "documents": 59, "unmatched_rows": 2, "not_finite": 2
    }  # fmt: skip
    assert run.scores == {"edu": "float", "maths": "float", "genre": "text"}
    stays = pa.compute.is_in(before["reason"], pa.array([None, "low_score"]))
    assert run.score_histogram("maths").total() == after.filter(stays)["maths"].is_valid().to_pylist().count(True)
    for folder in ("data", "rejected"):
        rows = pq.read_table(tmp_path / "first" / folder)
        assert [found[name] for name in rows["id"].to_pylist()] == list(
            zip(rows["maths"].to_pylist(), rows["genre"].to_pylist(), strict=True)
        )


def test_joined_scores_are_columns_like_the_others(make: Make, tmp_path: Path, models: Path) -> None:
    first = run_filter(make("first", {"min_score": 1.0}, scores={"edu": "edu-en"}))
    file = given(tmp_path / "other.parquet", id=[f"{n}" for n in range(60)], maths=list(range(60)))
    new = score_run(Run(str(first.path)), {}, str(tmp_path / "new"), file=str(file))
    checks = {check.name: check for check in verify_run(location(str(new.path)))}
    assert all(check.ok is not False for check in checks.values()), checks
    assert checks["scores maths"].ok
    assert "cannot be computed again" in checks["scores maths"].detail
    run = Run(str(new.path))
    chosen = run_select(run, selection_config(run, {"where": "maths >= 30"}, str(tmp_path / "chosen")))
    rows = pq.read_table(tmp_path / "chosen" / "data")
    assert rows.num_rows
    assert min(rows["maths"].to_pylist()) >= 30
    assert chosen.manifest["scores"] == new.manifest["scores"]
    more = score_run(Run(str(chosen.path)), {"hq": f"{models}/two.bin#__label__hq"})
    assert list(more.manifest["scores"]) == ["edu", "maths", "hq"]
    other = given(tmp_path / "second.parquet", id=["3", "4"], code=["a", "b"])
    last = score_run(Run(str(chosen.path)), {}, file=str(other))
    assert pq.read_table(tmp_path / "chosen" / "data").select(rows.column_names).equals(rows)
    assert list(Run(str(last.path)).scores) == ["edu", "maths", "hq", "code"]
    code, text = call("inspect", last.path, "--sql", "SELECT count(maths), count(code) FROM documents")
    assert code == 0, text
    assert "60" in text
    given(file, id=["1"], maths=[2])
    other.unlink()
    checks = {check.name: check for check in verify_run(location(str(last.path)))}
    assert checks.pop("scores maths").ok is False
    assert checks["scores code"].ok is None
    assert all(check.ok is not False for check in checks.values()), checks


def test_an_interrupted_join_goes_on_with_the_same_file_only(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from filters.run.shard import Shard

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    first = run_filter(make("first", {"min_score": 0.5}, scores={"edu": "edu-en"}))
    before = documents(first.path)
    file = given(tmp_path / "other.parquet", id=["1", "2"], maths=[1, 2])
    with monkeypatch.context() as patch:
        patch.setattr(Shard, "run", stop)
        with pytest.raises(KeyboardInterrupt):
            score_run(Run(str(first.path)), {}, file=str(file))
    assert documents(first.path) == before
    given(file, id=["1", "2"], maths=[1, 3])
    with pytest.raises(RunError, match="maths"):
        score_run(Run(str(first.path)), {}, file=str(file))
    given(file, id=["1", "2"], maths=[1, 2])
    score_run(Run(str(first.path)), {}, file=str(file))
    values = pq.read_table(tmp_path / "first" / "attributes")["maths"].to_pylist()
    assert sorted(value for value in values if value is not None) == [1, 2]


def test_scores_are_joined_by_url(tmp_path: Path) -> None:
    """To every document of that address."""
    rows = [{"id": f"{n}", "text": page(n), "url": f"https://a.org/{n // 2}" if n else None} for n in range(12)]
    source = jsonl(tmp_path / "in.jsonl", rows)
    reads = {"kind": "jsonl", "paths": [str(source)], "id_key": "id", "columns": ["url"]}
    config = FilterConfig.model_validate({"input": reads, "output": {"path": str(tmp_path / "run")}})
    first = run_filter(config)
    file = given(tmp_path / "x.parquet", url=["https://a.org/2", "https://b.org/"], id=[1, 77], maths=[7.5, 1.0])
    code, text = call("score", first.path, "--scores", file, "--by", "url", "--output", tmp_path / "by_url")
    assert code == 0, text
    found = Run(str(tmp_path / "by_url")).attributes(["id", "maths"])
    assert {row["id"] for row in found.to_pylist() if row["maths"] == 7.5} == {"4", "5"}
    assert found["maths"].null_count == 10
    code, text = call("score", first.path, "--scores", file, "--output", tmp_path / "by_id")
    assert code == 0, text
    found = Run(str(tmp_path / "by_id")).attributes(["id", "maths"])
    assert {row["id"] for row in found.to_pylist() if row["maths"] is not None} == {"1"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"key": ["1"], "maths": [1]}, "has no column id or url, only key, maths"),
        ({"id": ["1"]}, "has no column beside id"),
        ({"id": ["1"], "url": ["u"]}, "has no column beside id"),
        ({"id": ["1"], "edu": [1]}, "column 'edu' is one that the run has already"),
        ({"id": ["1"], "text": ["x"]}, "column 'text' is one that the run has already"),
        ({"id": ["1"], "kind": ["x"]}, "column 'kind' is one that the run has already"),
        ({"id": ["1"], "Maths score": [1]}, "column 'Maths score' cannot be a score"),
        ({"id": ["1"], "maths": [[1]]}, "column 'maths' holds list<.*>, neither numbers nor text"),
        ({"id": ["1"], "maths": [True]}, "column 'maths' holds bool, neither numbers nor text"),
        ({"id": [1.5], "maths": [1]}, "column 'id' holds double, and keys are texts"),
        ({"id": ["1", "2", "1"], "maths": [1, 1, 2]}, "rows of the same id with different values: '1'"),
        ({"id": ["1", "1"], "maths": [1, None]}, "rows of the same id with different values: '1'"),
        ({"id": ["a", "b", "c", "d"], "maths": [1, 2, 3, 4]}, "The file has 'a', 'b', 'c'; the run has '0', '1', '10'"),
        ({"id": pa.array([], pa.string()), "maths": pa.array([], pa.int8())}, "The file has none; the run has '0'"),
    ],
)  # fmt: skip
def test_a_file_of_scores_that_cannot_be_joined_is_refused(
    finished: Path, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    before = digest(finished)
    file = given(tmp_path / "other.parquet", **columns)
    code, text = call("score", finished, "--scores", file)
    assert code
    assert re.search(message, " ".join(text.split())), text
    assert str(file) in text
    assert digest(finished) == before


def test_arguments_of_a_join_that_contradict_are_refused(finished: Path, tmp_path: Path) -> None:
    file = given(tmp_path / "other.parquet", id=["1"], maths=[1])
    (tmp_path / "no.parquet").write_text("id,maths")
    pq.write_table(pa.table([["1"], [1], [2]], names=["id", "maths", "maths"]), tmp_path / "twice.parquet")
    for arguments, message in (
        ((finished, "--scores", file, "--add", "a=edu-en"), "and the other"),
        ((finished, "--scores", file, "x.jsonl"), "leave out"),
        ((finished, "--scores", file, "--by", "text"), "joins by id or url"),
        ((finished, "--by", "id", "--add", "a=edu-en"), "joins by id or url"),
        ((finished, "--scores", file, "--by", "url"), "has no column url"),
        ((finished, "--scores", tmp_path / "twice.parquet"), "column 'maths' is there twice"),
        ((finished, "--scores", tmp_path / "no.parquet"), "cannot be read as Parquet"),
        ((finished, "--scores", tmp_path / "nothing.parquet"), "cannot be read as Parquet"),
    ):
        code, text = call("score", *arguments)
        assert code
        assert message in text, text


@pytest.mark.parametrize("joins", [False, True])
def test_a_kill_while_a_run_is_replaced_loses_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joins: bool
) -> None:
    config = make("first", {"min_score": 1.0}, scores={"edu": "edu-en"})
    first = run_filter(config.model_copy(update={"output": config.output.model_copy(update={"rejected": True})}))
    (tmp_path / "first" / "fingerprints").mkdir()  # what a run before had, and the new one has not
    rename, left = Path.rename, []

    def watched(path: Path, target: Path) -> Path:
        if Path(target).parent == Path(first.path) or path.name == ".work":
            left.append(tmp_path / f"killed-{len(left)}")
            shutil.copytree(str(first.path), left[-1])
        return rename(path, target)

    command: tuple[object, ...] = ("--add", "again=edu-en")
    if joins:
        ids = pa.chunked_array([table["id"].combine_chunks() for table in Run(str(first.path)).tables(["id"])])
        command = ("--scores", given(tmp_path / "theirs.parquet", id=ids, again=np.ones(len(ids))))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", watched)
        code, text = call("score", first.path, *command)
    assert code == 0, text
    assert len(left) == 7  # data, attributes, rejected, quarantine, card, manifest, and the work folder
    for killed in left:
        code, text = call("score", killed, *command)
        assert code == 0, text
        assert "a kill had interrupted its replacement" in " ".join(text.split())
        names = {path.relative_to(killed) for path in killed.rglob("*")}
        assert names == {path.relative_to(first.path) for path in Path(first.path).rglob("*")}
        assert all(check.ok is not False for check in verify_run(location(str(killed))))
        code, text = call("score", killed, "--add", "third=promo-en")
        assert code == 0, text


def test_an_interrupted_score_goes_on_or_is_dropped_for_another(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_filter(make("first", {"min_score": 1.0}, scores={"edu": "edu-en"}))
    with monkeypatch.context() as patch:
        patch.setattr("filters.run.select.publish_files", lambda *_: (_ for _ in ()).throw(RunError("killed")))
        assert call("score", first.path, "--add", "first=edu-en") == (1, "killed")
    assert (Path(first.path) / ".work" / "done").exists()
    same, other = (shutil.copytree(str(first.path), tmp_path / name) for name in ("same", "other"))
    code, text = call("score", same, "--add", "first=edu-en")
    assert code == 0, text
    assert "going on with the interrupted run" in text
    code, text = call("score", other, "--add", "second=promo-en")
    assert code
    assert "start afresh with --force-new" in text
    code, text = call("score", other, "--add", "second=promo-en", "--force-new")
    assert code == 0, text
    assert list(Run(str(other)).manifest["scores"]) == ["edu", "second"]
