"""README.md shows numbers and output that were measured, and commands and files that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.floors import FLOORS, check
from benchmarks.measure import RESULTS
from benchmarks.run import SCRIPTS
from benchmarks.table import outdated, read_results

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_speed_tables_are_the_benchmarks_results() -> None:
    assert outdated(read_results(RESULTS)) == []


def test_the_speed_results_pass_their_floors() -> None:
    results = read_results(RESULTS)
    assert set(results) == set(SCRIPTS)
    assert check(RESULTS, FLOORS) == []


def test_the_table_of_near_copies_is_the_benchmark_s_result() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "near_copies.json").read_text())
    planted, real = found["planted"], found["real"]
    assert planted["ours"]["removed_without_a_witness"] == planted["ours"]["of_these_both_stay"] == 0

    def cell(of: dict[str, int]) -> str:
        return f"{of['removed_as_near_copies']:,}; {of['removed_without_a_witness']:,}"

    steps = [planted["true_pairs"][step] for step in ("0.70", "0.75", "0.80", "0.90")]
    for text in (
        *(cell(planted[name]) for name in ("ours", "closure", "datatrove")),
        f"{planted['ours']['pairs_that_share_a_bucket_and_are_alike']:,}; 0",
        ", ".join(str(step["share_not_both_kept"]) for step in steps),
        ", ".join(str(step["share_that_shares_a_band_by_theory"]) for step in steps),
        f"{cell(real['ours'])}; {cell(real['closure'])}",
    ):
        assert sum(line.endswith(f"| {text} |") for line in README.splitlines()) == 1


def test_the_table_of_the_forecast_is_the_benchmark_s_result() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "forecast.json").read_text())
    assert len(found["sizes"]) == 3
    for row in found["sizes"]:
        cells = [f"{row['documents']:,}"]
        for what, digits in (("cpu_s", 1), ("disk_mb", 1), ("memory_mb", 0)):
            assert abs(row[what]["error"]) <= found["limit"]
            said, was = (f"{row[what][name]:,.{digits}f}" for name in ("forecast", "measured"))
            cells.append(f"{said}, {was} ({100 * row[what]['error']:+.0f} %)")
        assert f"| {' | '.join(cells)} |" in README.splitlines()


def test_the_metrics_are_those_of_the_model() -> None:
    metrics = json.loads((ROOT / "filters" / "models" / "edu-en" / "model.json").read_text())["metrics"]
    for name, part in (("all 5,281 labels", "sample"), ("natural mix of the crawl", "natural")):
        shown = next(line for line in README.splitlines() if line.startswith(f"| {name} |"))
        for metric in ("f1", "best_f1", "pr_auc", "spearman", "mae"):
            interval = metrics[part][metric]
            assert "{value:.3f} [{low:.3f}, {high:.3f}]".format(**interval) in shown


def test_the_tables_of_the_kinds_are_the_benchmark_s_result() -> None:
    from benchmarks.classifiers import tables

    results = json.loads((ROOT / "benchmarks" / "results" / "classifiers.json").read_text())
    for lines in tables(results).values():
        assert len(lines) >= 5
        assert "\n".join(lines) in README


def test_the_bands_and_probes_are_those_of_the_model() -> None:
    metrics = json.loads((ROOT / "filters" / "models" / "edu-en" / "model.json").read_text())["metrics"]
    for row in metrics["conformal"]:
        coverage = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**row["coverage"])
        cells = f"{row['keep']:.1%} | {row['undecided']:.1%} | {row['drop']:.1%}"
        assert f"| {row['alpha']:g} | {coverage} | {cells} |" in README.splitlines()
    probes = json.loads((ROOT / "benchmarks" / "results" / "probes.json").read_text())
    said = " ".join(README.split())
    names = {
        "textbook": "a textbook frame",
        "keywords": "twenty words of school life",
        "markdown": "markdown",
        "boilerplate": "a cookie notice",
        "truncation": "half of the text",
        "white space": "white space",
        "encyclopedia": "an encyclopedia's headings",
        "upper case": "capitals",
    }
    assert set(names) == set(probes["flips"])
    for probe, name in names.items():
        assert f"{name} {100 * probes['flips'][probe]['value']:.1f} %" in said
    assert f"calibration error {metrics['sample']['calibration_error']['value']:.3f};" in said


def test_the_figures_of_the_page_are_the_benchmark_s_result() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "page.json").read_text())
    write, page = results["write"], results["page"]
    said = " ".join(README.split())
    assert f"written in {write['processor_seconds']:.1f} s of processor time on one core" in said
    assert f"on one core, {write['megabytes']:.1f} MB" in said
    assert f"usable {page['interactive_ms'] / 1000:.1f} s after it is opened" in said
    assert f"and {page['frames_per_second']:.0f} frames per second" in said
    assert results["documents"] == 20_000_000


def test_the_injection_table_is_the_benchmark_s_result() -> None:
    arms = json.loads((ROOT / "benchmarks" / "results" / "injections.json").read_text())["arms"]
    for name, arm in (("page pasted into the message", "undefended"), ("framed and neutralised", "defended")):
        found = arms[arm]
        shown = next(line for line in README.splitlines() if line.startswith(f"| {name} |"))
        cells = [f"{found['structure_broken']} of {found['prompts']}", f"{found['clean']:.2f}"]
        keys = ("shift", "control_shift", "effect")
        cells += ["{mean:+.2f} [{low:+.2f}, {high:+.2f}]".format(**found[key]) for key in keys]
        assert shown == f"| {name} | {' | '.join(cells)} |"


def test_the_numbers_of_annotate_are_the_benchmark_s_result() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "annotate.json").read_text())
    memory = list(results["throughput"]["rss_mb"].values())
    seconds = results["resume"]["cpu_seconds_to_first_request"]
    text = " ".join(README.split())
    assert f"{results['throughput']['per_cpu_second']:.0f} answers per second of CPU time with 256 in flight" in text
    assert f"memory {memory[0]:.0f} MB after 10,000 requests and {memory[-1]:.0f} MB after 20,000" in text
    assert f"resumes after {seconds:.1f} s of CPU time" in text


def test_linked_files_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert len(links) >= 6
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.search(r"@[A-Z]+@", README)
