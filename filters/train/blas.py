"""Linear algebra on one thread: sums in another order, on more threads, would make another model of the same labels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def one_blas_thread(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, during whose calls every BLAS library of this process uses one thread."""

    @functools.wraps(function)
    def pinned(*args: P.args, **kwargs: P.kwargs) -> T:
        import scipy.linalg  # noqa: F401  # its BLAS comes with it; one loaded later would not be pinned
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):
            return function(*args, **kwargs)

    return pinned
