"""A program to compare with, in a virtual environment of its own, serving runs over its standard input.

A peer imports and warms up before it is asked, so that what is timed is the work alone; between runs it waits, so that
ours and theirs never run at the same time. It inherits the processor its parent is bound to.
"""

from __future__ import annotations

import json
import os
import subprocess
import venv
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
FOLDER = HERE / ".peers"
ENVIRONMENTS = {
    "datatrove": [
        "datatrove[io,processing]==0.10.1",
        "spacy>=3.8,<4",
        "tokenizers>=0.20",
        "trafilatura==1.11.0",
        "lxml-html-clean",
    ],
    # Without its dependencies: they want numpy 1, and the extension module that does the work uses none of them.
    "dolma": ["--no-deps", "dolma==1.2.1"],
    "rensa": ["rensa==0.5.0", "pyarrow>=17"],
}
"""Name of an environment -> what pip installs there, arguments of pip included."""


class PeerError(RuntimeError):
    """A peer cannot be compared with here; the message ends with what it printed."""


def install(name: str) -> Path:
    """Make an environment, unless it is there as it should be; its Python.

    Raises:
        PeerError: it cannot be made.
    """
    folder, requirements = FOLDER / name, ENVIRONMENTS[name]
    python, installed = folder / "bin" / "python", folder / "installed.json"
    if installed.exists() and json.loads(installed.read_text()) == requirements:
        return python
    print(f"  installing {' '.join(requirements)} into {folder} ...", flush=True)
    try:
        venv.create(folder, with_pip=True, clear=True)
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    except subprocess.CalledProcessError as error:
        raise PeerError(f"{name} does not install: {_last_line(error.stderr)}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"{name} does not install: {error}") from error
    installed.write_text(json.dumps(requirements))
    return python


class Peer:
    """A script in benchmarks/peers/, run by the Python of an environment.

    Args:
        name: of the environment; made at first use.
        script: file name in benchmarks/peers/; answers a line of JSON to a line of JSON.

    Raises:
        PeerError: it cannot be installed, or its script failed.
    """

    def __init__(self, name: str, script: str) -> None:
        python = install(name)
        self.name, self.log = name, FOLDER / f"{name}.log"
        with self.log.open("w") as stderr:
            self.process = subprocess.Popen(
                [python, HERE / "peers" / script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "RUST_LOG": "error"},
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            PeerError: the script has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerError(f"{self.name} stopped: {_last_line(self.log.read_text())} (see {self.log})")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            self.process.wait(timeout=30)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it printed nothing"])[-1]
