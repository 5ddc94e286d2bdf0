"""Compiled kernels over packed text. numba lives here and nowhere else.

Compiled code is cached in the user's cache directory (or in NUMBA_CACHE_DIR where that is set), so only the first run
on a machine compiles. Where that folder cannot be written, a folder of the temporary directory takes its place.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numba
import numpy as np
import platformdirs

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, made odd: a multiplier for hashes (Knuth, The Art of Computer Programming, 6.4)."""


def cache_folder() -> Path:
    """The folder compiled kernels are cached in, created and writable; one per version of numba."""
    name = f"numba-{numba.__version__}"
    folders = [Path(platformdirs.user_cache_dir("finesieve")) / name]
    if hasattr(os, "getuid"):  # one per user: a stranger's code must not be loaded from a shared temporary folder
        folders.append(Path(tempfile.gettempdir()) / f"finesieve-{os.getuid()}" / name)
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
                continue
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="finesieve-numba-"))


_config: Any = numba.config
if not _config.CACHE_DIR:  # it holds NUMBA_CACHE_DIR if the user has set that
    _config.CACHE_DIR = str(cache_folder())
