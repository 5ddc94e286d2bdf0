"""The multiplier of multiplicative hashing."""

from __future__ import annotations

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, made odd (Knuth, The Art of Computer Programming, vol. 3, 6.4)."""
