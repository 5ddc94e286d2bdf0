"""Losses other than the error in the judge's score, each with one weight vector, so that scoring stays one product.

- `ordinal`: proportional odds with all thresholds (Rennie and Srebro 2005): one logistic loss per boundary between the
  judge's scores, all on the same direction.
- `classification`: logistic regression of "the judge keeps it".

`filters.train.linear` and `filters.train.heads` fit them. Raw scores are log-odds; calibration maps them to the judge's
scale like any other raw score.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

Loss = Literal["regression", "ordinal", "classification"]

CURVATURE = 4
"""A logistic loss is at most a quarter as curved as the square: the same penalty would weigh so many times as much."""
BOUNDARIES = (0.5, 1.5, 2.5, 3.5, 4.5)
_FEWEST = 5
"""Rows a boundary must have on either side to be learnt."""


def boundaries(loss: Loss, targets: Float64, positive: float) -> list[float]:
    """The scores at which a loss parts the rows in two, ascending.

    Args:
        loss: `ordinal`: those of `BOUNDARIES` with enough rows on either side; `classification`: `positive` alone.
        targets: float64[n], the judge's scores.
        positive: where the kept begin.
    """
    if loss != "ordinal":
        return [positive]
    counts = [(edge, int((targets >= edge).sum())) for edge in BOUNDARIES]
    return [edge for edge, above in counts if _FEWEST <= above <= len(targets) - _FEWEST] or [positive]


def fit_loss(
    loss: Literal["ordinal", "classification"], x: Any, targets: Float64, weights: Float64, l2: float, positive: float
) -> tuple[Float64, float]:
    """(weights float64[d], intercept) that minimise the weighted loss + l2 / 2 |w|^2, by L-BFGS.

    The intercept of `ordinal` is that of the boundary nearest to `positive`: which others there are differs between the
    parts of a cross-validation, and raw scores must mean the same in all of them.

    Args:
        loss: see the module.
        x: features [n, d], an array or a sparse matrix.
        targets: float64[n], the judge's scores.
        weights: float64[n], positive.
        l2: the penalty.
        positive: where the kept begin; `classification`: targets from here on are one class.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    edges = boundaries(loss, targets, positive)
    signs = np.where(targets[:, None] >= np.array(edges)[None], 1.0, -1.0)
    size = x.shape[1]
    if isinstance(x, np.ndarray):
        x = x.astype(np.float64)  # once, or each product would

    def objective(parameters: Float64) -> tuple[float, Float64]:
        direction, offsets = parameters[:size], parameters[size:]
        margins = signs * ((x @ direction)[:, None] + offsets[None])
        value = float(weights @ np.logaddexp(0, -margins).sum(axis=1)) + 0.5 * l2 * float(direction @ direction)
        slopes = -signs * expit(-margins) * weights[:, None]
        gradient = np.r_[x.T @ slopes.sum(axis=1) + l2 * direction, slopes.sum(axis=0)]
        return value, gradient

    share = np.clip((signs > 0).mean(axis=0), 1e-3, 1 - 1e-3)
    start = np.r_[np.zeros(size), np.log(share / (1 - share))]
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 300, "maxcor": 10})
    nearest = int(np.argmin(np.abs(np.array(edges) - positive)))
    return found.x[:size], float(found.x[size + nearest])
