"""Nothing from outside controls a terminal, whoever prints it and wherever."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from filters.terminal import harmless
from tests.command import finesieve

HOSTILE = "a\x1b[2J\x1b]0;owned\x07b\x9b31mc\rd\x08\x7fe\u202ef\u2066g\u2028h"
OBEYED = set("\x1b\x07\x9b\r\x08\x7f\u202e\u2066\u2028\x0b\x0c\x00")
PRINTERS = {
    "print": "print(hostile)",
    "stderr": "print(hostile, file=sys.stderr)",
    "exception": "raise ValueError(hostile)",
    "note": "error = KeyError(1); error.add_note(hostile); raise error",
    "warning": "import warnings; warnings.warn(hostile)",
    "log": "import logging; logging.getLogger().error(hostile)",
    "table": "from rich.table import Table; t = Table(title=hostile); t.add_row(hostile); make_console().print(t)",
    "console": "make_console().print(hostile); make_console(stderr=True).print(hostile, soft_wrap=True)",
    "rule": "make_console().rule(hostile)",
    "status": "\nwith make_console(stderr=True).status(hostile): print(hostile)",
    "progress": "from rich.progress import Progress\n"
    "with Progress(console=make_console()) as p: p.add_task(hostile); p.console.print(hostile); print(hostile)",
    "click": "import click; click.echo(hostile, err=True)",
    "unencodable": "print('\\ud800' + hostile)",
}


def printed(code: str, *, encoding: str = "utf-8") -> bytes:
    """What `code` prints to a pipe, after the command has set up its streams."""
    program = "import sys, json; from filters.terminal import *; from filters.terminal import guard_streams\n"
    program += f"guard_streams(); hostile = json.loads({json.dumps(json.dumps(HOSTILE))})\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("how", PRINTERS)
def test_nothing_that_is_printed_controls_the_terminal(how: str) -> None:
    shown = printed(PRINTERS[how]).decode()
    assert "owned" in shown
    assert not set(shown) & OBEYED


def test_colours_of_our_own_reach_a_terminal_and_those_of_others_do_not() -> None:
    program = (
        "from filters.terminal import guard_streams, make_console\nguard_streams()\nprint('plain first')\n"
        "make_console().print('x\\x1b[31my', style='bold')\nprint('plain\\x1b[0m last')\n"
    )
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    subprocess.run([sys.executable, "-c", program], stdout=theirs, env=environment | {"TERM": "xterm"}, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "\x1b[1mx\\u001b[31my\x1b[0m" in shown
    assert "plain\\u001b[0m last" in shown
    assert shown.index("first") < shown.index("31my") < shown.index("last")


@pytest.mark.parametrize("writer", [json.dumps, lambda value: orjson.dumps(value).decode()])
def test_json_stays_the_same_json(writer: object) -> None:
    value = {HOSTILE: ["\\", "\\\x9b", "é 😀", HOSTILE]}
    text = harmless(writer(value))  # type: ignore[operator]
    assert not set(text) & OBEYED
    assert json.loads(text) == value


def test_letters_of_all_scripts_and_emoji_stay_as_they_are() -> None:
    text = "ä ﷽ ‌می‌خواهم नमस्ते 👩‍👩‍👧 \t tab\nline"
    assert harmless(text) == text


def test_a_stream_that_lacks_a_letter_shows_its_escape() -> None:
    assert b"\\u20ac" in printed("print('\\u20ac')", encoding="latin-1:strict")


def test_file_names_columns_and_keys_of_models_are_shown_harmless(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    escape = "\x1b[2J\x1b]0;owned\x07"
    pq.write_table(pa.table({"body" + escape: ["x"]}), tmp_path / "n.parquet")
    (tmp_path / f"z{escape}.jsonl").write_text("not json\n" * 300)
    (tmp_path / "table.yaml").write_text(f'"key{escape}": 1\n'.replace("\x1b", "\\e").replace("\x07", "\\a"))
    (tmp_path / "lines.yaml").write_text("input: {kind: jsonl, paths: [.]}\noutput: {path: out}\n")
    commands = [
        ["score", "edu-en", "n.parquet"],
        ["filter", "lines.yaml"],
        ["score", f"model{escape}", "n.parquet"],
        ["inspect", f"run{escape}"],
        ["train", "table.yaml"],
        ["filter", f"config{escape}.yaml"],
        ["filter", f"--option{escape}"],
    ]
    for command in commands:
        done = finesieve(*command, status=2 if command[-1].startswith("--") else 1, cwd=tmp_path)
        assert "owned" in done.stdout + done.stderr, command
        assert not set(done.stdout + done.stderr) & OBEYED, command
