"""The command as a user meets it: exit statuses, no tracebacks; a real process where that is the point."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from labelled_pages import columns, write

from filters.cli.main import VERBS
from filters.errors import install_command
from tests.command import finesieve

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [str(Path(sys.executable).parent / "finesieve")]
OF_SOME_VERBS = (
    *("datasets", "sklearn", "trafilatura", "resiliparse", "fasttext", "aiohttp", "torch", "matplotlib"),
    *("huggingface_hub", "s3fs", "scipy.stats", "scipy.optimize", "pyarrow.dataset", "datatrove.io", "duckdb"),
)
"""Modules that take time to import, and that a plain `score` or `filter` has no use for."""
HEAVY = ("numba", "pyarrow", "datatrove", "pandas", "numpy", "scipy", "safetensors", "rich", *OF_SOME_VERBS)


def process(*arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """A config over four documents, two of them copies, and one broken line."""
    lesson = "A fraction names a part of a whole. The denominator says into how many equal parts it is cut. " * 2
    rows = [{"id": "a", "text": lesson}, {"id": "b", "text": lesson.upper()}, {"id": "c", "text": "Buy now! Sale."}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    path = tmp_path / "config.yaml"
    path.write_text(
        f"input: {{kind: jsonl, paths: [{tmp_path}/in.jsonl], id_key: id}}\n"
        f"keep: {{min_score: 0}}\noutput: {{path: {tmp_path}/run, rejected: true}}\n"
    )
    return path


IMPORTED = """
import sys
from filters.cli.main import main
for command, heavy in (
    (["--version"], {heavy}),
    (["--help"], {heavy}),
    (["score", "--help"], {heavy}),
    (["score", "edu-en", "{dump}/in.jsonl"], {verbs}),
    (["filter", "{dump}/config.yaml"], {verbs}),
):
    sys.argv = ["finesieve", *command]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, command
    found = [name for name in heavy if name in sys.modules]
    assert not found, (command, found)
"""


def test_a_verb_imports_only_what_it_needs(dump: Path) -> None:
    code = IMPORTED.format(dump=dump.parent, heavy=HEAVY, verbs=OF_SOME_VERBS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert "2 of 4 documents kept" in done.stdout


def test_every_verb_has_help() -> None:
    shown = finesieve("--help").stdout
    for verb in VERBS:
        assert verb in shown
        assert "Usage" in finesieve(verb, "--help").stdout


def test_shell_completion_is_offered() -> None:
    done = subprocess.run(
        COMMAND,
        env=os.environ | {"_FINESIEVE_COMPLETE": "complete_bash", "COMP_WORDS": "finesieve in", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "inspect" in done.stdout


def test_a_dry_run_prints_the_plan_and_does_nothing(dump: Path) -> None:
    before = sorted(dump.parent.iterdir())
    shown = finesieve("filter", "--dry-run", "--pilot", "0", dump, "--set", "executor.workers=2").stdout
    assert sorted(dump.parent.iterdir()) == before
    for expected in ("1 file(s)", "in.jsonl", "MinHash, 5-word shingles, 14 bands x 8 rows", "edu-en", "2 worker(s)"):
        assert expected in shown


def test_filter_then_inspect(dump: Path) -> None:
    run = dump.parent / "run"
    shown = process("filter", dump, "--examples", "2").stdout
    for expected in ("in = kept + removed + quarantined", "exact_duplicate", "2 of 4 documents kept", "the 2 best"):
        assert expected in shown
    assert max(len(line) for line in shown.splitlines() if str(dump.parent) not in line) <= 80
    assert "\x1b" not in shown
    shown = finesieve("inspect", run).stdout
    for expected in ("scores of 2 documents", "what a threshold keeps", "quarantined"):
        assert expected in shown
    found = json.loads(finesieve("inspect", run, "--json").stdout)
    assert found["ledger"]["total"]["kept"] == 2
    assert sum(documents for _, documents, *_ in found["histogram"]["counts"]) == 2
    assert "holds a finished run" in finesieve("filter", dump, status=1).stderr


def test_mistakes_end_in_one_message(dump: Path, tmp_path: Path) -> None:
    assert "unknown key" in finesieve("filter", dump, "--set", "outptu.path=x", status=1).stderr
    assert "nope" in finesieve("filter", dump, "--set", "input.paths=[nope.jsonl]", status=1).stderr
    assert "edu-xx" in finesieve("filter", dump, "--set", "model=edu-xx", status=1).stderr
    assert "no finished run" in finesieve("inspect", tmp_path, status=1).stderr
    assert "none.txt" in finesieve("score", "edu-en", "none.txt", status=1).stderr
    assert "none.parquet" in finesieve("evaluate", "edu-en", "none.parquet", status=1).stderr
    finesieve("inspect", tmp_path, "--bins", "7", status=2)
    finesieve("inspect", tmp_path, "--weight", "pages", status=2)
    finesieve("filtre", status=2)


def test_a_damaged_manifest_is_named(dump: Path) -> None:
    finesieve("filter", dump)
    manifest = dump.parent / "run" / "manifest.json"
    for damage in ("{", "[]", '{"keep": {"min_score": 1}, "ledger": {}}'):
        manifest.write_text(damage)
        assert "manifest.json" in finesieve("inspect", dump.parent / "run", status=1).stderr


def test_score_decides_keep_drop_or_undecided(dump: Path, tmp_path: Path) -> None:
    lines = finesieve("score", "edu-en", tmp_path / "in.jsonl", "--error-rate", "0.2").stdout.splitlines()
    found = [json.loads(line) for line in lines if '"score": ' in line]
    assert len(found) == 3
    for line in found:
        assert 0 <= line["low"] <= line["score"] <= line["high"] <= 5
        decision = "keep" if line["low"] >= 1.5 else "drop" if line["high"] < 1.5 else "undecided"
        assert line["decision"] == decision
    assert found[2]["decision"] == "drop"
    assert found[0]["score"] == found[1]["score"]  # the second is the first in capitals
    message = finesieve("score", "edu-en", tmp_path / "in.jsonl", "--error-rate", "0.001", status=1).stderr
    assert "must lie between 0.01 and 1. Remedy" in message


@pytest.mark.parametrize(
    ("number", "status", "line"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize("ignored", [False, True])
def test_a_signal_in_training_says_so_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals, status: int, line: str, *, ignored: bool
) -> None:
    if ignored and number == signal.SIGINT:
        pytest.skip("a process that ignores SIGINT is not interrupted by it")
    before = signal.SIG_IGN if ignored else signal.default_int_handler
    write(tmp_path / "labels.parquet", columns())
    (tmp_path / "train.yaml").write_text(
        f"annotations: {tmp_path}/labels.parquet\noutput: {tmp_path}/model\nname: lessons\n"
        "classifier: {kind: linear, bits: 12}\nvalidation: {folds: 3, repeats: 20, inner_folds: 2}\n"
    )
    with subprocess.Popen(
        [*COMMAND, "train", str(tmp_path / "train.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # A shell that starts this in the background has SIGINT ignored, and children inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, before),  # type: ignore[func-returns-value]
    ) as process:
        assert process.stdout is not None
        while "fold 1" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=600)
    assert process.returncode == status
    assert errors == f"finesieve: {line}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.parquet", "train.yaml"]


def test_score_reads_text_and_record_files(dump: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_text(
        "Water boils at 100 degrees Celsius at sea level, because there its vapour pressure equals the air's."
    )
    lines = finesieve("score", "edu-en", page, tmp_path / "in.jsonl", "--id-key", "id").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [line.get("id") for line in found] == [str(page), "a", "b", "c", None]
    assert all(0 <= line["score"] <= 5 for line in found[:4])
    assert found[4]["position"] == 4
    assert found[4]["cause"]
    assert found[1]["score"] > found[3]["score"]


def test_the_command_has_a_version_and_two_module_names() -> None:
    version = finesieve("--version").stdout
    for module in ("finesieve", "filters"):
        done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == version == f"finesieve {metadata.version('finesieve')}\n"


def test_the_api_has_the_name_of_the_product() -> None:
    import filters
    import finesieve as api

    assert api.__all__ == filters.__all__
    assert set(api.__all__) <= set(dir(api))
    assert {name: getattr(api, name) for name in api.__all__} == {name: getattr(filters, name) for name in api.__all__}
    with pytest.raises(AttributeError, match="it has FilterConfig"):
        _ = api.Runs


def test_quiet_says_nothing_and_verbose_says_where(dump: Path, tmp_path: Path) -> None:
    done = finesieve("-q", "filter", dump)
    assert done.stdout + done.stderr == ""
    missing = tmp_path / "missing.yaml"
    done = process("-v", "filter", missing, status=1)
    assert done.stderr.startswith("finesieve: ")
    assert "Traceback" in done.stderr


def test_score_reads_standard_input_and_no_table_as_one_page(tmp_path: Path) -> None:
    done = finesieve("score", "edu-en", "-", stdin="A fraction names a part.")
    assert json.loads(done.stdout)["id"] == "-"
    (tmp_path / "pages.csv").write_text("text\nA fraction names a part.\n")
    error = finesieve("score", "edu-en", tmp_path / "pages.csv", status=1).stderr
    assert "pages.csv: score reads no .csv files" in error
    assert "score MODEL - < FILE" in error


def test_score_tells_what_holds_no_text(tmp_path: Path) -> None:
    (tmp_path / "pages.jsonl").write_text('{"body": "A fraction names a part."}\n{"body": "x", "title": ""}\n')
    done = finesieve("score", "edu-en", tmp_path / "pages.jsonl", status=1)
    assert done.stdout.count("missing_text") == 2
    assert "none of its 2 records has a text under the key 'text'; they have 'body', 'title'" in done.stderr
    (tmp_path / "bytes.txt").write_bytes(b"a\xff")
    assert "no text in UTF-8 (byte 1)" in finesieve("score", "edu-en", tmp_path / "bytes.txt", status=1).stderr
    assert "No such file or directory. Remedy" in finesieve("score", "edu-en", "a text", status=1).stderr
    empty = finesieve("score", "edu-en", "-", stdin="\n", status=1)
    assert empty.stdout == ""
    assert "-: empty" in empty.stderr


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    with (tmp_path / "pages.jsonl").open("w") as pages:
        pages.writelines('{"text": "A fraction names a part of a whole."}\n' for _ in range(20_000))
    command = [*COMMAND, "score", "edu-en", str(tmp_path / "pages.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() != 0


def test_init_writes_the_configs_that_come_with_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "demo.yaml").write_text("mine")
    done = finesieve("init", "mine", cwd=tmp_path)
    assert "1 of" in done.stdout
    assert (tmp_path / "mine" / "demo.yaml").read_text() == "mine"
    configs = sorted(path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml"))
    assert sorted(path.relative_to(tmp_path / "mine") for path in (tmp_path / "mine").rglob("*.yaml")) == configs
    (tmp_path / "file").touch()
    assert "file" in finesieve("init", "file", cwd=tmp_path, status=1).stderr


def test_a_missing_extra_is_installed_from_where_this_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        def __init__(self, origin: dict[str, object] | None) -> None:
            self.origin = origin

        def read_text(self, name: str) -> str | None:
            return None if self.origin is None else json.dumps(self.origin)

    def command(*origins: dict[str, object] | None) -> str:
        monkeypatch.setattr(metadata, "distributions", lambda name: map(Installed, origins))
        return install_command("plots").partition(" -m pip ")[2]

    clone = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    monkeypatch.chdir(tmp_path)
    assert command(clone) == "install -e '.[plots]'"
    assert command(None, clone | {"dir_info": {}}) == "install '.[plots]'"
    assert command(None) == command() == "install 'finesieve[plots]'"
    wheel = {"url": f"{tmp_path.as_uri()}/finesieve-0.1.0-py3-none-any.whl", "archive_info": {}}
    assert command(wheel) == f"install 'finesieve[plots] @ {wheel['url']}'"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command(clone) == f"install -e '{tmp_path}[plots]'"


@pytest.mark.parametrize(
    "arguments",
    [("inspect", "{}"), ("status", "{}"), ("filter", "c.yaml", "--set", "output.path={}"), ("score", "{}", "a")],
)
def test_a_path_that_is_too_long_is_told_in_a_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "c.yaml").write_text("input: {kind: jsonl, paths: a.jsonl}\noutput: {path: out}\n")
    (tmp_path / "a.jsonl").write_text('{"text": "a text"}\n')
    long = "x" * 5000
    command = [sys.executable, "-m", "finesieve", *(part.format(long) for part in arguments)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "File name too long" in done.stderr
