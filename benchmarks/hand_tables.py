"""Tables of the results that are measured by hand: Markdown for docs/results/ and README.md, one function a table.

`python -m benchmarks.table --write` puts them into the files. The argument of each function is the content of
benchmarks/results/*.json, by the name of the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Results = Mapping[str, Mapping[str, Any]]

PROBES = {
    "textbook": "a textbook's frame: objectives before the text, a summary and questions after it",
    "keywords": "twenty words of school life before and after the text",
    "markdown": "lines made headings and list items",
    "boilerplate": "a menu, a cookie notice and a newsletter box before the text",
    "truncation": "only the first half of the text",
    "white space": "white space doubled, lines indented",
    "encyclopedia": "the section headings of an encyclopedia",
    "upper case": "everything in capitals",
}
"""Changes of benchmarks/results/probes.json, the one that flips most decisions first."""
ROBUSTNESS = {
    "with the share of capitals": "the features of an earlier model, with the share of capital letters",
    "as it is": "the embedded model: without the share of capitals",
    "no style": "only words: no counts of characters",
    "clipped": "all features, limited to the range of 96 % of the labelled pages",
    "sentences only": "repeated lines, and lines of fewer than six words, are not read",
    "copies for 15 %": "15 % of the training pages dressed",
    "copies for 30 %": "30 % of the training pages dressed",
    "copies beside": "half of the training pages also as a dressed copy",
    "projected 1": "the main direction of dressing removed from all features",
    "projected 3": "the three main directions removed",
    "smooth head": "kernel ridge on landmarks instead of support vectors",
    "smooth head, copies": "the same, with every page also as a dressed copy",
    "two heads": "the mean of the embedded model and the last row; twice the size, half the speed",
}
"""Rows of benchmarks/results/robustness.json -> what was tried."""
SHORT = {
    "fasttext": "fastText",
    "edu-linear": "`linear`: hashed words and pairs of words",
    "edu-en": "`static`: **edu-en**, the embedded model",
    "edu-encoders": "`encoder`: four encoders under one head, the best",
}
"""Rows of README's table: name in classifiers.json -> what the reader sees."""


def _interval(value: Mapping[str, float], form: str = ".3f") -> str:
    return f"{value['value']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"


def _rate(row: Mapping[str, Any]) -> str:
    found: float = row["docs_per_second"]
    return f"{found:,.0f}" if found >= 100 else f"{found:.1f}"


def _table(head: Sequence[str], right: int, rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose last `right` columns are aligned to the right."""
    rule = ["---"] * (len(head) - right) + ["---:"] * right
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def readme_quality(results: Results) -> str:
    """README's table: four classifiers, each with quality and speed."""
    rows = {row["name"]: row for row in results["classifiers"]["rows"]}
    shown = [
        [label, *(_interval(rows[name]["sample"][metric]) for metric in ("f1", "pr_auc")), _rate(rows[name])]
        for name, label in SHORT.items()
    ]
    return _table(("classifier", "F1 of the kept class", "PR-AUC", "docs/s on one core"), 1, shown)


def classifiers(name: str) -> Callable[[Results], str]:
    """The function that makes a table of `benchmarks.classifiers.tables`, by its name there."""

    def make(results: Results) -> str:
        from benchmarks.classifiers import tables

        return "\n".join(tables(dict(results["classifiers"]))[name])

    return make


def embedded(results: Results) -> str:
    """Metrics of the embedded model, from its model.json."""
    rows = [
        [
            name,
            *(_interval(_metrics("edu-en")[part][metric]) for metric in ("f1", "best_f1", "pr_auc", "spearman", "mae")),
        ]
        for name, part in (("all 5,281 labels", "sample"), ("natural mix of the crawl", "natural"))
    ]
    return _table(("measured on", "F1 at the keep rule", "best F1", "PR-AUC", "Spearman", "MAE"), 0, rows)


def labels(results: Results) -> str:
    """The embedded models that tell names apart, beside naming the commonest."""
    rows = []
    for name in ("topic-en", "format-en"):
        metrics = _metrics(name)
        for part, words in (("sample", "all 5,281 labels"), ("natural", "natural mix of the crawl")):
            found = metrics[part]
            least = [f"{found[key]['value']:.3f}" for key in ("majority_accuracy", "majority_macro_f1")]
            rows.append(
                [f"`{name}`", words, _interval(found["accuracy"]), least[0], _interval(found["macro_f1"]), least[1]]
            )
    return _table(("model", "measured on", "accuracy", "naming the commonest", "macro-F1", "the commonest"), 0, rows)


def attributes(results: Results) -> str:
    """The embedded models of numbers other than the score."""
    rows = []
    for name in ("promo-en", "depth-en"):
        sample = _metrics(name)["sample"]
        rows.append([f"`{name}`", *(_interval(sample[key]) for key in ("spearman", "qwk", "mae", "pr_auc"))])
    return _table(("model", "Spearman", "QWK", "MAE", "PR-AUC of 1.5 and more"), 0, rows)


def _metrics(name: str) -> Any:
    return json.loads((ROOT / "filters" / "models" / name / "model.json").read_text(encoding="utf-8"))["metrics"]


def bands(results: Results) -> str:
    """Coverage of the embedded model's conformal bands, from its model.json."""
    rows = [
        [
            f"{row['alpha']:g}",
            _interval(row["coverage"]),
            *(f"{row[decision]:.1%}" for decision in ("keep", "undecided", "drop")),
        ]
        for row in _metrics("edu-en")["conformal"]
    ]
    return _table(("error rate", "share of judge's scores in the band", "keep", "undecided", "drop"), 3, rows)


def probes(results: Results) -> str:
    """Decisions that flip when a page only looks different."""
    flips = results["probes"]["flips"]
    if set(flips) != set(PROBES):
        raise KeyError(f"probes.json has {sorted(flips)}, and hand_tables.PROBES names {sorted(PROBES)}")
    rows = [
        [meaning, f"{flips[name]['value']:.1%} [{flips[name]['low']:.1%}, {flips[name]['high']:.1%}]"]
        for name, meaning in PROBES.items()
    ]
    return _table(("change of the page", "decisions that flip"), 1, rows)


def robustness(results: Results) -> str:
    """What makes the embedded model harder to talk into a score, and what that costs."""
    rows = [
        [
            ROBUSTNESS[name],
            _interval(row["pr_auc"]),
            _interval(row["spearman"]),
            f"{row['flips']['textbook']['value']:.1%}",
            f"{row['flips']['keywords']['value']:.1%}",
        ]
        for name, row in results["robustness"]["rows"].items()
    ]
    return _table(("what was tried", "PR-AUC", "Spearman", "flips: textbook's frame", "flips: school words"), 2, rows)


def encoder_recipes(results: Results) -> str:
    """Ways to read a page with SmolLM2."""
    rows = [
        [row["name"], *(_interval(row[metric]) for metric in ("best_f1", "pr_auc", "spearman"))]
        for row in results["encoder_recipes"]["rows"]
    ]
    return _table(("what is read", "best F1", "PR-AUC", "Spearman"), 0, rows)


def injections(results: Results) -> str:
    """Pages that ask the judge for a score, with and without the frame around a page."""
    rows = []
    for name, arm in (("page pasted into the message", "undefended"), ("framed and neutralised", "defended")):
        found = results["injections"]["arms"][arm]
        means = [
            "{mean:+.2f} [{low:+.2f}, {high:+.2f}]".format(**found[key]) for key in ("shift", "control_shift", "effect")
        ]
        broken = f"{found['structure_broken']} of {found['prompts']}"
        rows.append([name, broken, f"{found['clean']:.2f}", *means])
    head = ("prompt", "structure broken", "clean page", "shift", "shift by harmless text", "effect of injection")
    return _table(head, 5, rows)


def near_copies(results: Results) -> str:
    """What is removed as a near copy, by three methods, on planted and on real pages."""
    planted, real = results["near_copies"]["planted"], results["near_copies"]["real"]
    names = {"ours": "finesieve", "closure": "connected components over the same bands", "datatrove": "datatrove"}
    rows = [
        [
            f"{pages:,} {kind} pages",
            names[name],
            *(f"{part[name][what]:,}" for what in ("removed_as_near_copies", "removed_without_a_witness")),
        ]
        for kind, part, pages in (("planted", planted, planted["pages"]), ("real", real, real["pages"]))
        for name in names
        if name in part
    ]
    removed = _table(("pages", "method", "removed as near copies", "of these without a witness"), 2, rows)
    pairs = [
        [
            similarity,
            f"{step['pairs']:,}",
            str(step["share_not_both_kept"]),
            str(step["share_that_shares_a_band_by_theory"]),
        ]
        for similarity, step in planted["true_pairs"].items()
    ]
    head = ("similarity from", "pairs", "share of which not both stay", "share that shares a band, by theory")
    return f"{removed}\n\n{_table(head, 4, pairs)}"


def forecasts(results: Results) -> str:
    """Forecasts beside the runs they were for."""
    rows = []
    for size in results["forecast"]["sizes"]:
        cells = [f"{size['documents']:,}"]
        for what, digits in (("cpu_s", 1), ("disk_mb", 1), ("kept", 0)):
            said, was = (f"{size[what][name]:,.{digits}f}" for name in ("forecast", "measured"))
            cells.append(f"{said}, {was} ({100 * size[what]['error']:+.0f} %)")
        rows.append(cells)
    return _table(("documents", "CPU seconds of all phases", "disk, MB", "documents kept"), 4, rows)


def large_runs(results: Results) -> str:
    """Commands on 20 million documents, and the page in a browser."""
    rows = [
        [
            f"`finesieve {row['command']}`",
            f"{row['processor_seconds']:.2f} s of processor time, {row['peak_memory_mb']:,} MB",
        ]
        for row in results["terminal"]["results"]
    ]
    write, page = results["page"]["write"], results["page"]["page"]
    rows.append(
        [
            "`finesieve inspect RUN --html page.html`",
            f"{write['processor_seconds']:.1f} s of processor time, {write['peak_memory_mb']:,.0f} MB; the page has "
            f"{write['megabytes']:.1f} MB",
        ]
    )
    rows.append(["the page in headless Chromium: usable after", f"{page['interactive_ms'] / 1000:.1f} s"])
    rows.append(
        ["the same: frames per second while the threshold is dragged", f"{page['frames_per_second']:.0f} per second"]
    )
    return _table(("20 million documents, one core", "measured"), 1, rows)


def annotating(results: Results) -> str:
    """Rate and memory of `finesieve annotate` against a stub of a judge."""
    found = results["annotate"]
    memory = list(found["throughput"]["rss_mb"].values())
    rows = [
        ["answers per second of processor time, 256 in flight", f"{found['throughput']['per_cpu_second']:.0f}"],
        ["resident memory after 10,000 and after 20,000 requests", f"{memory[0]:.0f} MB, {memory[-1]:.0f} MB"],
        [
            "resuming a store with a million answers, imports included",
            f"{found['resume']['cpu_seconds_to_first_request']:.1f} s of processor time",
        ],
    ]
    return _table(("`finesieve annotate`", "measured"), 1, rows)


def languages_tokens(results: Results) -> str:
    """The mean error per page of the token estimate beside each tokenizer, by script and by language."""
    found = results["languages"]["tokens"]
    rows = []
    for kind in ("scripts", "languages"):
        for name, row in sorted(found[kind].items()):
            errors = [f"{100 * row[tokenizer]['error']:.0f} %" for tokenizer in ("o200k", "DeepSeek")]
            sums = [f"{100 * (row[tokenizer]['sum'] - 1):+.0f} %" for tokenizer in ("o200k", "DeepSeek")]
            rows.append([name if kind == "scripts" else f"`{name}`", f"{row['pages']:,}", *errors, *sums])
    return _table(("script or language", "pages", "o200k", "DeepSeek V4", "sum, o200k", "sum, DeepSeek V4"), 5, rows)


def languages_words(results: Results) -> str:
    """What unrelated pages share, and what is found of edited copies, by language."""
    rows = []
    for code, row in results["languages"]["words"].items():
        shared = [f"{100 * row['shared'][size]:.2f} %" for size in ("4", "5", "7", "11", "14")]
        shared.append(f"{100 * row['shared, 13 widened']:.2f} %")
        rows.append([f"`{code}`", *shared, *(f"{100 * found:.0f} %" for found in row["recall"].values())])
    sizes = [*(f"{size} in a row" for size in (4, 5, 7, 11, 14)), "13, as the leak check counts"]
    return _table(("language", *sizes, "1 % edited", "2 %", "5 %"), 9, rows)


_LANGUAGES = ROOT / "docs" / "languages.md"
_QUALITY, _SPEED = (ROOT / "docs" / "results" / name for name in ("quality.md", "speed.md"))
SECTIONS: tuple[tuple[Path, str, Callable[[Results], str]], ...] = (
    (ROOT / "README.md", "readme-quality", readme_quality),
    (_LANGUAGES, "languages-tokens", languages_tokens),
    (_LANGUAGES, "languages-words", languages_words),
    (_QUALITY, "embedded", embedded),
    (_QUALITY, "labels", labels),
    (_QUALITY, "attributes", attributes),
    (_QUALITY, "bands", bands),
    (_QUALITY, "probes", probes),
    (_QUALITY, "robustness", robustness),
    *((_QUALITY, name, classifiers(name)) for name in ("kinds", "fit", "windows", "distillation", "beside")),
    (_QUALITY, "encoder-recipes", encoder_recipes),
    (_QUALITY, "injections", injections),
    (_QUALITY, "near-copies", near_copies),
    (_SPEED, "forecasts", forecasts),
    (_SPEED, "large-runs", large_runs),
    (_SPEED, "annotating", annotating),
)
