"""Pages of the reference, made from the code: config keys, commands, files of a run, model.json.

`docs/site_hooks.py` puts them into the site. Each function returns the Markdown of a page.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from typer.models import ArgumentInfo, OptionInfo

from filters.annotate.rubric import Rubric
from filters.cli.main import VERBS, common
from filters.config.filter import FilterConfig
from filters.config.json_schema import json_schema, section_schema
from filters.dedup.earlier_runs import KEY_SCHEMA, SET_SCHEMA
from filters.model.folder import Manifest
from filters.phases.rows import ATTRIBUTE_FIELDS, MEANINGS, OWN_FIELDS, REJECTED_FIELDS, added_fields

FILES = {
    "data/shard-00000.parquet, ...": "kept documents in input order (or `.jsonl.zst`); data/NAME/ for each "
    "bucket with a folder of its own",
    "attributes/attributes-00000.parquet, ...": "side files: a row for every input document, kept or not",
    "rejected/": "removed documents with their reasons (`output.rejected: true`)",
    "quarantine.jsonl": "a line for every record that could not be read",
    "fingerprints/": "band keys, exact hashes and shingles of kept documents, with `dedup.keep_fingerprints`",
    "manifest.json": "what decided the output, and what it is",
    "README.md": "a data-set card; `datasets.load_dataset` reads its header",
}
QUARANTINE = {
    "source": "name of the input file",
    "position": "place in the file, as in the side files; -1 if the whole file is meant",
    "cause": "a cause of the list below, then a colon and details",
    "first_bytes": "the first 200 bytes of the record, as Latin-1",
}
MANIFEST = {
    "format": "version of the format of the manifest",
    "finesieve": "version of finesieve",
    "config": "the config, with every default; without what opens addresses and without what decides nothing",
    "model": "name and digest of the model, and what its scores are worth by its own cross-validation",
    "benchmarks": "benchmarks of `decontaminate`, with SHA-256",
    "inputs": "every input file: size, and xxh3-128 or the version (ETag) at its server",
    "ledger": "records, kept, removed by reason and quarantined by cause: in all, and for each input file",
    "keep": "the keep rule: threshold, how it follows from a budget, and the rule in SQL with its counts",
    "documents_written": "documents in data/, repeats counted",
    "tokens_written": "tokens in data/, repeats counted",
    "selected_from": "only of `finesieve select`: the finished run: its name, and the digest of its manifest",
    "dedup": "pairs that were compared, crowded buckets, clusters, and sources that lost too much",
    "histogram": "histogram of the scores of the documents that survive deduplication",
    "scores": "the models of `scores`: column -> name, digest, and the labels that it tells apart; of a joined "
    "file its SHA-256, key, and how many documents and rows matched",
    "score_histograms": "scores of each of them, of the documents that survived deduplication",
    "slices": "columns that `finesieve inspect` can slice by",
    "histograms": "the same histogram for each value of these columns, and of language",
    "files": "every file of the run: size, SHA-256, rows",
    "digest": "SHA-256 of the manifest without this key",
}
REASONS = {
    "missing_text": "the text is missing or null",
    "empty_text": "the text is empty or white space",
    "blank_line": "a blank line of a file of JSON lines",
    "http_status": "a WARC response with another status than 200",
    "not_html": "a WARC response that is neither HTML nor plain text",
    "no_text_extracted": "less text was extracted than `extract.min_characters`",
    "extraction_timeout": "extraction took more than `extract.seconds`",
    "language": "another language than those in `language.keep`",
    "language_unsure": "the language has a lower probability than `language.min_score`",
    "gopher_quality:..., c4_quality:..., ...": "a heuristic removed it, with datatrove's own reason",
    "contaminated": "shares words in a row with a benchmark",
    "exact_duplicate": "has the same text as the document that stays",
    "near_duplicate": "is similar to a document that stays",
    "in_earlier_run": "is a copy of a document that an earlier run kept",
    "low_score": "the score is below the threshold",
    "over_quota": "reaches the threshold, but its language or input file has used up its quota",
    "rule": "`keep.where` is not true for it",
    "low_rank": "its number under `keep.by` is too low for the budget, or NULL",
    "other_bucket": "is in a bucket that `keep.buckets` does not name",
}
CAUSES = {
    "truncated": "the file ends inside a record or a compressed member",
    "corrupt": "compressed data or a Parquet page is damaged",
    "missing_dictionary": "a zstd frame needs a dictionary that the file does not hold",
    "too_large": "the record decompresses to more than `input.max_document_bytes`",
    "invalid_utf8": "the record is not valid UTF-8",
    "bad_json": "the line is not JSON",
    "not_an_object": "the line is JSON, but no object",
    "text_not_a_string": "the text is no string",
    "bad_http": "a WARC response without a status line",
    "undecodable": "no charset makes the page readable",
    "extraction_failed": "the extractor failed or died on the page, or the page is built to stall it",
    "heuristic_failed": "a heuristic failed on the document",
    "killed_worker": "the document killed its worker twice",
}
CONFIGS = {
    "filter": (
        "Filter config",
        "finesieve filter",
        "[Filter](../filter.md), [Dedup](../dedup.md) and [Decide](../decide.md)",
        "dedup.near.bands=20",
    ),
    "train": ("Train config", "finesieve train", "[Train](../train.md)", "window=1800"),
    "annotate": ("Annotate config", "finesieve annotate", "[Annotate](../annotate.md)", "budget.max_money=5"),
}

_VALUES = {int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}


def pages() -> dict[str, str]:
    """Address in docs/ -> Markdown of every page of the reference."""
    return {
        **{f"reference/{name}.md": config_page(name) for name in CONFIGS},
        "reference/commands.md": commands_page(),
        "reference/files.md": files_page(),
        "reference/model.md": model_page(),
    }


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells are escaped where they would end."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *cells))


def config_page(name: str) -> str:
    """Every key of a config: type, default, meaning; a table for each section."""
    title, command, guides, example = CONFIGS[name]
    parts = [
        f"# {title}\n\nEvery key of a config of `{command}`. Read {guides} for how to use them. "
        f"`finesieve schema {name}` prints the same for editors, as JSON Schema.\n\n"
        "A key without a default is required. A single value stands for a list of one. `--set key.path=value` "
        f"overrides a key, for example `--set {example}`."
    ]
    parts += _sections(json_schema(name))
    if name == "annotate":
        parts.append("## Rubric files {#rubric-file}\n\nThe file that `rubric` names.")
        parts += _sections(section_schema(Rubric), "rubric", 3)
    return "\n\n".join(parts) + "\n"


def _sections(schema: dict[str, Any], place: str = "", level: int = 2) -> Iterator[str]:
    """Heading, meaning and table of a section, then of the sections in it; each section once."""
    places: dict[int, str] = {}

    def of(section: dict[str, Any], place: str, level: int) -> Iterator[str]:
        if place:
            yield f"{'#' * level} {place} {{#{_anchor(place)}}}\n\n{section['description']}"
        else:
            yield section["description"]
        rows, inside = [], []
        for key, value in section["properties"].items():
            path = f"{place}.{key}" if place else key
            links = []
            for label, inner in _inner(value, schema):
                if id(inner) not in places:
                    places[id(inner)] = f"{path} ({label})" if label else path
                    inside.append(inner)
                links.append(f"[{label or key}](#{_anchor(places[id(inner)])})")
            kind = _type(value, schema)
            default = "required" if key in section.get("required", ()) else _default(value, bool(links))
            if links:
                words = "sections" if "sections" in kind else "section"
                kind = kind.replace(words, f"{words} {' or '.join(links)}", 1)
            rows.append([f"`{key}`", kind, default, value["description"]])
        yield table(("key", "type", "default", "meaning"), rows)
        for inner in inside:
            yield from of(inner, places[id(inner)], level if not place else min(level + 1, 4))

    yield from of(schema, place, level)


def _anchor(place: str) -> str:
    return re.sub(r"\W+", "-", place).strip("-") or "top"


def _inner(value: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind or "", section) of every section that a value can be."""
    if "$ref" in value:
        section = schema["$defs"][value["$ref"].rpartition("/")[2]]
        if "properties" in section:
            yield section["properties"].get("kind", {}).get("const", ""), section
    parts = [*value.get("anyOf", ()), *value.get("oneOf", ())]
    parts += [value[key] for key in ("items", "additionalProperties") if isinstance(value.get(key), dict)]
    seen = set()
    for part in parts:
        for kind, section in _inner(part, schema):
            if id(section) not in seen:
                seen.add(id(section))
                yield kind, section


def _type(value: dict[str, Any], schema: dict[str, Any]) -> str:
    """The type of a value in words; "section" where it is one."""
    if "$ref" in value or "oneOf" in value:
        return "section" if any(_inner(value, schema)) else "anything"
    if "anyOf" in value:
        items = [part.get("items") for part in value["anyOf"]]
        parts = [part for part in value["anyOf"] if part not in items]  # one value may stand for a list of one
        null = ", or `null`" if any(part.get("type") == "null" for part in parts) else ""
        if [_types(part) for part in parts][:2] == [["integer", "string"], ["string"]]:
            return f"size: bytes, or text such as `256MiB`{null}"
        kinds = list(dict.fromkeys(_type(part, schema) for part in parts if part.get("type") != "null"))
        return " or ".join(kinds) + null
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    kinds = _types(value)
    if "array" in kinds:
        if "prefixItems" in value:
            return f"list of {len(value['prefixItems'])}: " + ", ".join(
                _type(one, schema) for one in value["prefixItems"]
            )
        inner = _type(value["items"], schema) if value.get("items") else "anything"
        return f"list of {_plural(inner)}"
    if "object" in kinds:
        inner = value.get("additionalProperties")
        return f"mapping of text to {_type(inner, schema)}" if isinstance(inner, dict) and inner else "mapping"
    if "boolean" in kinds:
        return "true or false"
    for kind, words in (("integer", "whole number"), ("number", "number")):
        if kind in kinds:
            return words + _bounds(value)
    return "text" if "string" in kinds else "anything"


def _types(value: dict[str, Any]) -> list[str]:
    kinds = value.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _plural(words: str) -> str:
    for one, many in (
        ("list", "lists"),
        ("whole number", "whole numbers"),
        ("number", "numbers"),
        ("text", "texts"),
        ("section", "sections"),
    ):
        if words == one or words.startswith(f"{one} "):
            return many + words[len(one) :]
    return words


def _bounds(value: dict[str, Any]) -> str:
    low, above = value.get("minimum"), value.get("exclusiveMinimum")
    high, below = value.get("maximum"), value.get("exclusiveMaximum")
    ends = []
    if low is not None or above is not None:
        ends.append(f"at least {low:,}" if low is not None else f"above {above:,}")
    if high is not None and abs(high) < 10**12:
        ends.append(f"at most {high:,}")
    if below is not None and abs(below) < 10**12:
        ends.append(f"below {below:,}")
    if low is not None and high is not None and abs(high) < 10**12:
        ends = [f"{low:,} to {high:,}"]
    return f" ({', '.join(ends)})" if ends else ""


def _default(value: dict[str, Any], is_section: bool) -> str:
    if "default" not in value:
        return "empty" if "object" in _types(value) else "see the section" if is_section else ""
    default = value["default"]
    if is_section and isinstance(default, dict):
        kind = f"kind `{default['kind']}`, " if "kind" in default else ""
        return f"{kind}with its defaults"
    if default in ([], {}):
        return "empty"
    if isinstance(default, int) and default >= 2**20 and default % 2**20 == 0:
        return f"`{default // 2**20}MiB`"
    return f"`{json.dumps(default)}`"


def commands_page() -> str:
    """Every command with its arguments and options, as --help shows them."""
    parts = [
        "# Commands\n\nExit status: 0 for success, 1 for an error or a check that failed, 2 for a wrong call, 130 "
        "after Ctrl-C, 143 after SIGTERM. `finesieve annotate` has 3 too: answers are missing, another run "
        "may bring them.",
        "## Before a command {#finesieve}\n\n`finesieve [OPTIONS] COMMAND ...`",
        _options(common),
    ]
    for name, verb in VERBS.items():
        text = "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(verb) or "").split("\n\n"))
        arguments = [
            (_argument(one), one[2].help or "") for one in _parameters(verb) if isinstance(one[2], ArgumentInfo)
        ]
        usage = " ".join(["finesieve", name, "[OPTIONS]", *(shown for shown, _ in arguments)])
        parts.append(f"## {name} {{#{name}}}\n\n{text}\n\n```\n{usage}\n```")
        if arguments:
            parts.append(table(("argument", "meaning"), ([f"`{shown}`", meaning] for shown, meaning in arguments)))
        parts.append(_options(verb))
    return "\n\n".join(filter(None, parts)) + "\n"


def _parameters(verb: Callable[..., Any]) -> Iterator[tuple[str, inspect.Parameter, Any, Any]]:
    """(name, parameter, what typer is told of it, type) of each argument and option of a verb."""
    for name, parameter in inspect.signature(verb, eval_str=True).parameters.items():
        told = getattr(parameter.annotation, "__metadata__", ())
        if told:
            yield name, parameter, told[0], parameter.annotation.__origin__


def _argument(one: tuple[str, inspect.Parameter, Any, Any]) -> str:
    name, parameter, told, kind = one
    shown = (told.metavar or name).upper() + "..." * (get_origin(kind) is list)
    return shown if parameter.default is inspect.Parameter.empty else f"[{shown}]"


def _options(verb: Callable[..., Any]) -> str:
    rows = []
    for name, parameter, told, kind in _parameters(verb):
        if not isinstance(told, OptionInfo):
            continue
        dashed = name.replace("_", "-")
        is_flag = kind is bool
        given = [one for one in (told.default, *(told.param_decls or ())) if isinstance(one, str)]
        names = given or ([f"--{dashed}", f"--no-{dashed}"] if is_flag else [f"--{dashed}"])
        value = "" if is_flag else f" {told.metavar or _value(kind)}"
        default = parameter.default
        shown = "" if default in (None, False) else f"`{names[0]}`" if default is True else f"`{default}`"
        rows.append([", ".join(f"`{one}{value}`" for one in names), shown, told.help or ""])
    return table(("option", "default", "meaning"), rows) if rows else ""


def _value(kind: Any) -> str:
    """What stands for a value of an option."""
    parts = [part for part in (kind, *get_args(kind)) if part in _VALUES]
    return _VALUES[parts[0]] if parts else "TEXT"


def files_page() -> str:
    """Every file of a run with its columns or keys, reasons of removal and causes of quarantine."""

    def columns(fields: Iterable[Any]) -> str:
        return table(
            ("column", "type", "meaning"), ([f"`{one.name}`", str(one.type), MEANINGS[one.name]] for one in fields)
        )

    config = FilterConfig.model_validate(
        {
            "input": {"kind": "parquet", "paths": ["a"]},
            "output": {
                "path": "b",
                "repeat": {"by": "cluster_size"},
                "buckets": {"borders": [0.5], "names": ["low", "high"]},
            },
        }
    )
    added = added_fields(config, {})
    return (
        "\n\n".join(
            [
                "# Files of a run\n\nA folder without `manifest.json` is no finished run.",
                table(("file", "content"), ([f"`{name}`", content] for name, content in FILES.items())),
                "## Shards {#shards}\n\nColumns of `data/`, then the columns of `input.columns` (a name that is taken "
                "gets the prefix `input_`). `copies` and `bucket` exist only if the config asks for them.",
                columns([*OWN_FIELDS, *added]),
                "`rejected/` has these columns too:",
                columns(REJECTED_FIELDS),
                "## Side files {#attributes}\n\nColumns of `attributes/`, then those of `scores` and `input.slices`.",
                columns([*ATTRIBUTE_FIELDS, *added]),
                "## Reasons of removal {#reasons}",
                table(("reason", "the document"), ([f"`{name}`", meaning] for name, meaning in REASONS.items())),
                "## quarantine.jsonl {#quarantine}",
                table(("key", "meaning"), ([f"`{name}`", meaning] for name, meaning in QUARANTINE.items())),
                table(("cause", "what is wrong"), ([f"`{name}`", meaning] for name, meaning in CAUSES.items())),
                "## manifest.json {#manifest}\n\nIt holds no times, no machine and no number of workers, so that it is "
                "the same for the same input, config and model.",
                table(("key", "meaning"), ([f"`{name}`", meaning] for name, meaning in MANIFEST.items())),
                "## fingerprints/ {#fingerprints}\n\n`near-*.parquet` and `exact-*.parquet`, sorted by key:",
                table(
                    ("column", "type", "meaning"),
                    [
                        [
                            f"`{KEY_SCHEMA.names[0]}`",
                            str(KEY_SCHEMA.types[0]),
                            "band key, or the upper half of the exact hash",
                        ],
                        [
                            f"`{KEY_SCHEMA.names[1]}`",
                            str(KEY_SCHEMA.types[1]),
                            "row of the document in `attributes/`",
                        ],
                    ],
                ),
                "`sets-*.parquet`:",
                table(
                    ("column", "type", "meaning"),
                    [
                        [f"`{SET_SCHEMA.names[0]}`", str(SET_SCHEMA.types[0]), "row of the document in `attributes/`"],
                        [f"`{SET_SCHEMA.names[1]}`", str(SET_SCHEMA.types[1]), "hashes of its shingles"],
                    ],
                ),
            ]
        )
        + "\n"
    )


def model_page() -> str:
    """Every key of model.json."""
    parts = [
        "# model.json\n\nA model folder holds `model.json`, the files that it lists (safetensors: arrays, and nothing "
        "that executes), and a card, `README.md`. An ensemble also holds the model folders of its members. Any other "
        "file is refused. These are the keys of `model.json`.",
        *_sections(section_schema(Manifest)),
    ]
    return "\n\n".join(parts) + "\n"
