"""examples/inspect.ipynb runs from beginning to end, and shows what it says it shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from examples.python_docs import write
from filters import FilterConfig, run_filter

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).resolve().parents[1]


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder like examples/, so that the run of `make demo` is neither needed nor touched.
    examples = tmp_path / "examples"
    examples.mkdir()
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "examples"), os.environ.get("PYTHONPATH")]))
    )
    write(tmp_path / "runs" / "python-docs.parquet", 40)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    paths = [f"input.paths=[{tmp_path}/runs/python-docs.parquet]", f"output.path={tmp_path}/runs/demo"]
    run_filter(FilterConfig.load(ROOT / "configs" / "demo.yaml", paths))
    notebook = nbformat.read(ROOT / "examples" / "inspect.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(examples)}})
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    said = "".join(output.get("text", "") for output in outputs)
    assert "score >= " in said
    assert "PSI " in said
