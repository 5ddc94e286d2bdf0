"""Prints constraints.txt: the newest versions of everything that any extra of finesieve needs, as pip resolves them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

LEFT_OUT = re.compile(r"finesieve|pip|setuptools|triton|(cuda|nvidia)-.*")
"""The package itself, the installers, and what torch brings for one platform alone."""
HEAD = "# The versions CI installs (pip's --constraint). Made by `make constraints`; `make test-newest` does without."


def main() -> None:
    """Resolve every extra together, install nothing, print a line a package."""
    extras = ",".join(tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"])
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        resolve = ["install", "--quiet", "--dry-run", "--ignore-installed", "--report", report.name]
        subprocess.run([sys.executable, "-m", "pip", *resolve, f".[{extras}]"], check=True)
        found = [package["metadata"] for package in json.load(report)["install"]]
    versions = {re.sub(r"[-_.]+", "-", package["name"].lower()): package["version"] for package in found}
    print(HEAD)
    for name, version in sorted(versions.items()):
        if not LEFT_OUT.fullmatch(name):
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
