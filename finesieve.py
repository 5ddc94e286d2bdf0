"""The public API of the package `filters` under the name of the product, and `python -m finesieve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import filters

if TYPE_CHECKING:
    from filters import FilterConfig, QualityModel, Run, Target, __version__, run_filter

__all__ = ["FilterConfig", "QualityModel", "Run", "Target", "__version__", "run_filter"]
__getattr__ = filters.__getattr__
__dir__ = filters.__dir__

if __name__ == "__main__":
    from filters.__main__ import main

    main()
