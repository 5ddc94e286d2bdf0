"""The page of a run as a file: only its own scripts can run, its size is bounded, its numbers are the solver's."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from copy import deepcopy
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import AnnotationsError, InputError
from filters.inspect import html
from filters.inspect.evidence import at_borders, model_card
from filters.inspect.html import MAX_BYTES, page, page_data, readable, write_page
from filters.model.reliability import Reliability
from filters.model.trained_on import TrainedOn
from filters.page import ASSETS, LIBRARY, island
from filters.scores.finished_run import Run
from filters.scores.histogram import EDGES
from filters.scores.threshold import Target
from tests.inspect.runs import ATTACKS, hostile_pages, make_run, pages
from tests.inspect.synthetic import add_score


class Elements(HTMLParser):
    """Elements of a page with their attributes, and the content of each script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, dict[str, str | None], str]] = []
        self._open: tuple[str, dict[str, str | None]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open = tag, dict(attrs)
            self.inside.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            tag, attributes, text = self.inside[-1]
            self.inside[-1] = tag, attributes, text + data


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("hostile"), hostile_pages(), min_score=0.0)


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("plain"), pages(120))


def data_of(content: bytes) -> dict[str, Any]:
    found = [text for tag, attributes, text in Elements(content.decode()).inside if attributes.get("id") == "data"]
    data: dict[str, Any] = json.loads(found[0])
    return data


def test_hostile_pages_add_no_element_and_reach_the_page_whole(
    hostile_run: Run, plain_run: Run, tmp_path: Path
) -> None:
    hostile, plain = tmp_path / "hostile.html", tmp_path / "plain.html"
    write_page(hostile_run, hostile)
    write_page(plain_run, plain)
    names = [name for name, _ in Elements(hostile.read_text(encoding="utf-8")).elements]
    assert names == [name for name, _ in Elements(plain.read_text(encoding="utf-8")).elements]
    texts = {item["id"]: item["text"] for item in data_of(hostile.read_bytes())["samples"]["items"]}
    assert texts["script"].startswith(ATTACKS["script"])
    assert texts["end"].startswith(ATTACKS["end"])
    assert texts["separator"].startswith("one two three {{data}} {{script}}")


def test_no_element_has_a_handler_a_style_or_an_address(hostile_run: Run, tmp_path: Path) -> None:
    write_page(hostile_run, tmp_path / "page.html")
    for name, attributes in Elements((tmp_path / "page.html").read_text(encoding="utf-8")).elements:
        assert not [key for key in attributes if key.startswith("on") or key in ("style", "src", "srcdoc", "action")]
        assert (attributes.get("href") or "#").startswith("#"), name


def test_the_policy_allows_these_scripts_and_nothing_else(plain_run: Run, tmp_path: Path) -> None:
    write_page(plain_run, tmp_path / "page.html")
    parsed = Elements((tmp_path / "page.html").read_text(encoding="utf-8"))
    policies = [a["content"] or "" for name, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    directives = dict(part.strip().split(" ", 1) for part in policies[0].split(";"))
    assert directives["default-src"] == "'none'"
    digests: dict[str, list[str]] = {"script": [], "style": []}
    for tag, attributes, text in parsed.inside:
        if attributes.get("type") != "application/json":
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            digests[tag].append(f"'sha256-{digest}'")
    assert directives["script-src"].split() == digests["script"]
    assert directives["style-src"].split() == digests["style"]
    assert len(digests["script"]) == 2
    assert "unsafe" not in policies[0]
    # The policy comes before anything it has to speak of.
    names = [name for name, _ in parsed.elements]
    assert names.index("meta") < names.index("style") < names.index("script")


def test_scripts_write_text_and_never_markup() -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|\.html\(|setTimeout\(\s*[\"']"
    )
    for path in (*ASSETS.glob("*.js"), *html.SCRIPTS):
        if path.name != "d3.min.js":
            assert not re.findall(forbidden, path.read_text(encoding="utf-8")), path


def test_numbers_of_the_page_are_those_of_the_solver(plain_run: Run, tmp_path: Path) -> None:
    write_page(plain_run, tmp_path / "page.html")
    data = data_of((tmp_path / "page.html").read_bytes())
    first = data["histogram"]["first"]
    for threshold in (0.0, 0.2, 0.3, 0.35, 0.5, 1.0):
        solution = plain_run.solve(Target("min_score", threshold))
        border = round(threshold / 5 * 500)
        for weight in ("documents", "tokens", "bytes"):
            shown = sum(data["histogram"][weight][max(0, border - first) :])
            assert shown == getattr(solution.kept, weight), (threshold, weight)
    assert data["threshold"]["score"] == plain_run.min_score
    assert dict(data["lineage"]["rows"])["keep rule"].startswith("score >= 0.3 (")  # a float32: not 0.30000001192092896
    assert data["threshold"]["kept"]["documents"] == plain_run.ledger["total"]["kept"]
    by_host = next(facet for facet in data["slices"] if facet["by"] == "host")
    assert sum(sum(item["documents"]) for item in by_host["items"]) == sum(data["histogram"]["documents"])


def test_same_run_same_page(plain_run: Run, tmp_path: Path) -> None:
    write_page(plain_run, tmp_path / "a.html")
    write_page(plain_run, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_page_is_cut_to_the_size_it_may_have(plain_run: Run) -> None:
    data = page_data(plain_run, evaluation=None, annotations=None, characters=2000)
    item = data["samples"]["items"][0]
    big = deepcopy(data)
    big["samples"]["items"] = [item | {"text": "<" * 2000} for _ in range(600)]
    whole = page(big)
    assert len(whole) <= MAX_BYTES
    shown = data_of(whole)["samples"]["items"]
    assert len(shown) == 600
    assert 0 < len(shown[0]["text"]) < 2000
    assert shown[0]["cut"]
    too_big = data | {"lineage": data["lineage"] | {"card": "x" * MAX_BYTES}}
    with pytest.raises(InputError, match="5 MB"):
        page(too_big)


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
@settings(max_examples=60)
def test_an_island_is_json_that_cannot_end_its_element(value: Any) -> None:
    text = island({"value": value})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"value": value}


def test_lone_surrogates_do_not_break_the_island() -> None:
    assert json.loads(island({"value": "a\ud800b"})) == {"value": "a?b"}


def test_a_page_that_cannot_be_written_is_refused_and_leaves_nothing(plain_run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder that exists"):
        write_page(plain_run, tmp_path / "missing" / "page.html")
    with pytest.raises(InputError, match="folder that exists"):
        write_page(plain_run, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_library_is_the_one_that_was_published() -> None:
    library, licence = (ASSETS / name for name in ("d3.min.js", "d3.LICENSE"))
    # d3-7.9.0.tgz of the npm registry, package/dist/d3.min.js
    published = "f2094bbf6141b359722c4fe454eb6c4b0f0e42cc10cc7af921fc158fceb86539"
    assert hashlib.sha256(library.read_bytes()).hexdigest() == published
    assert "</script" not in library.read_text().lower()
    assert "Permission to use, copy, modify" in licence.read_text()
    assert "7.9.0" in library.read_text()[:80]
    assert "7.9.0" in LIBRARY


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


def test_a_further_score_is_shown_against_the_first(tmp_path: Path) -> None:
    path = Path(str(add_score(Path(str(make_run(tmp_path, pages(60)).path)), "hq")))
    run = Run(path)
    (pair,) = data(run)["pairs"]
    assert pair["name"] == "hq"
    survivors = run.histogram().total()
    assert sum(count for _, _, count in pair["cells"]) == sum(pair["bars"]) == survivors
    assert all(column < pair["columns"] <= 50 and row < pair["rows"] <= 50 for column, row, _ in pair["cells"])
    assert 0 <= pair["threshold"] <= pair["step"] * pair["rows"] <= 1
    assert data(make_run(tmp_path / "one", pages(30)))["pairs"] == []


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
        monkeypatch.setattr("filters.inspect.html.model_card", lambda _: trained)
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
