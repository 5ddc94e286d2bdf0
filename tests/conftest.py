"""Fixtures every room's tests share."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# `datasets` reads these when it is imported: no network, and nothing left in the user's home.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="finesieve-tests-")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real pages, labels and WARCs that some tests measure on; a test that needs it skips without it."""
    if not SHARED.is_dir():
        pytest.skip(f"real data not found at {SHARED}")
    return SHARED
