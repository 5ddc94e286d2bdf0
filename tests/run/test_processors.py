"""The output does not depend on the processor: scores, keys, hashes and languages are the same bits without AVX."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_pages import columns

from tests.conftest import SHARED
from tests.run.conftest import digest

FOUND = np.show_config("dicts")["SIMD Extensions"].get("found", [])
OLD = {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "", "NPY_DISABLE_CPU_FEATURES": " ".join(FOUND)}
"""Makes numpy and numba compute as on a processor of 2008."""


def pages(folder: Path) -> Path:
    """Real pages where there are some, else made ones: of several lengths, with copies and near copies among them."""
    real = SHARED / "web" / "unlabelled.parquet"
    if real.exists():
        return real
    texts = [text[: 40 + 97 * (number % 30)] for number, text in enumerate(columns()["text"] * 3)]
    pq.write_table(pa.table({"text": texts}), folder / "pages.parquet")
    return folder / "pages.parquet"


@pytest.mark.skipif(not FOUND, reason="this processor has none of the vector units that numpy knows")
def test_a_run_has_the_same_bytes_without_vector_units(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        f"input: {{kind: parquet, paths: [{pages(tmp_path)}]}}\nlanguage: {{min_score: 0}}\nkeep: {{min_score: 1}}\n"
        f"output: {{path: {tmp_path}/run}}\n"
    )
    found = []
    for name, changed in (("here", {}), ("old", OLD)):
        command = [str(Path(sys.executable).parent / "finesieve"), "filter", str(tmp_path / "config.yaml")]
        run = tmp_path / name
        done = subprocess.run(
            [*command, "--set", f"output.path={run}"],
            env=os.environ | changed,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found.append({path: sha for path, sha in digest(run).items() if path.startswith(("data/", "attributes/"))})
    assert len(found[0]) >= 2
    assert found[0] == found[1]
