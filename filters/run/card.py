"""The data-set card beside the shards: a YAML header the Hub and `datasets` read, and the run in words."""

from __future__ import annotations

from typing import Any

from filters.cards import bullets, card_table, cell, make_card

SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
         (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"))  # fmt: skip


def card(manifest: dict[str, Any]) -> str:
    """README.md of a run folder, from its manifest."""
    total, config = manifest["ledger"]["total"], manifest["config"]
    suffix = "parquet" if config["output"]["format"] == "parquet" else "jsonl.zst"
    buckets, repeat = config["output"]["buckets"], config["output"]["repeat"]
    folders = _folders(manifest) if buckets and buckets["folders"] else []
    everything = "data/*/*" if folders else "data/*"
    configs = [{"config_name": "default", "data_files": f"{everything}.{suffix}", "default": True}]
    configs += [{"config_name": name, "data_files": f"data/{name}/*.{suffix}"} for name in folders]
    configs.append({"config_name": "attributes", "data_files": "attributes/*.parquet"})
    header: dict[str, Any] = {
        "task_categories": ["text-generation"],
        "tags": ["finesieve", "quality-filtered", "deduplicated"],
        "size_categories": [next((name for bound, name in SIZES if total["kept"] < bound), "n>10B")],
        "configs": configs,
    }
    if config["language"] and config["language"]["keep"]:
        header["language"] = list(config["language"]["keep"])
    kinds = " and ".join(sorted({str(one["kind"]) for one in config["inputs"]}))
    near = config["dedup"]["near"]
    dedup = [
        "exact copies (xxh3-128 of the lower-cased text with white space collapsed)" * config["dedup"]["exact"],
        f"near copies (MinHash over {near['shingle']}-word shingles, {near['bands']} bands of {near['rows']} rows)"
        if near
        else "",
    ]
    keep = config["dedup"]["keep"]
    stays = "every document with a copy goes" if keep == "none" else f"of each group of copies the {keep} one stays"
    return make_card(
        "# Filtered with finesieve",
        f"{total['kept']:,} of {total['records']:,} records of {len(manifest['inputs']):,} {kinds} "
        f"input file(s), {_rule(manifest)}. Copies removed: {' and '.join(filter(None, dedup)) or 'none'}; "
        f"{stays}.",
        card_table(
            ("what became of them", "records"),
            [
                ("kept", f"{total['kept']:,}"),
                *((f"removed: {cell(reason)}", f"{n:,}") for reason, n in total["removed"].items()),
                *((f"quarantined: {cell(cause)}", f"{n:,}") for cause, n in total["quarantined"].items()),
                ("**all records read**", f"{total['records']:,}"),
            ],
            right=[1],
        ),
        bullets(
            "`data/`: the kept documents, in input order.",
            f"Column `bucket`: quality by rank; {', '.join(buckets['names'])}, the best last." if buckets else "",
            f"Column `copies`: a document is there so often, by {repeat['by']}." if repeat else "",
            "`attributes/`: a row for every document read, kept or not: score, language, tokens (an estimate), "
            "duplicate cluster, the id of the copy that stayed, reason.",
            "`rejected/`: the removed documents with their reasons." if config["output"]["rejected"] else "",
            "`quarantine.jsonl`: records that could not be read: source, position, cause, first bytes.",
            "`manifest.json`: config, model digest, ledger of every input file, histogram, SHA-256 of every file.",
        ),
        f"Model digest: `{manifest['model']['digest']}`. finesieve {manifest['finesieve']}.\n"
        "The texts keep the licences of their sources.",
        header=header,
    )


def _rule(manifest: dict[str, Any]) -> str:
    """The keep rule in words."""
    keep, model = manifest["keep"], f"the model `{manifest['model']['name']}`"
    rule, solution = keep.get("rule"), keep["solution"]
    if rule is None:
        return f"kept by {model} at score >= {keep['min_score']:g}"
    words = [f"scored by {model} and kept"]
    if rule["where"] is not None:
        words.append(f"where `{cell(' '.join(rule['where'].split()))}`")
    if rule["by"] is not None:
        words.append(f"from {solution['threshold']:g} of `{cell(' '.join(rule['by'].split()))}`")
    elif "min_score" not in solution["target"] or manifest["config"]["keep"]["min_score"] is not None:
        words.append(f"at score >= {keep['min_score']:g}")
    return " ".join(words)


def _folders(manifest: dict[str, Any]) -> list[str]:
    """The buckets that have shards of their own, the lowest first."""
    present = {file["path"].split("/")[1] for file in manifest["files"] if file["path"].startswith("data/")}
    return [name for name in manifest["config"]["output"]["buckets"]["names"] if name in present]
