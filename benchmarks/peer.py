"""A program to compare with, in a virtual environment of its own, serving runs over its standard input.

A peer imports and warms up before it is asked, so that what is timed is the work alone; between runs it waits, so that
ours and theirs never run at the same time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".peers"


class Peer:
    """A script in benchmarks/peers/, run by the Python of its environment.

    Args:
        name: of the environment; made at first use.
        requirements: what pip installs there, arguments of pip included.
        script: file name in benchmarks/peers/; answers a line of JSON to a line of JSON.

    Raises:
        RuntimeError: it cannot be installed, or its script failed; the message ends with what it printed.
    """

    def __init__(self, name: str, requirements: list[str], script: str) -> None:
        self.python = ENVIRONMENTS / name / "bin" / "python"
        self._install(ENVIRONMENTS / name, requirements)
        self.log = ENVIRONMENTS / f"{name}.log"
        with self.log.open("w") as stderr:
            self.process = subprocess.Popen(
                [self.python, HERE / "peers" / script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "RUST_LOG": "error"},
            )

    def _install(self, folder: Path, requirements: list[str]) -> None:
        installed = folder / "installed.json"
        if installed.exists() and json.loads(installed.read_text()) == requirements:
            return
        print(f"installing {' '.join(requirements)} into {folder} ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        command = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"pip install {' '.join(requirements)} failed:\n{done.stderr[-2000:]}")
        installed.write_text(json.dumps(requirements))

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} stopped:\n{self.log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
