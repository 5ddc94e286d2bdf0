"""Small regressors on dense features, held as arrays: a linear one, and one on radial basis functions.

Both standardise the features first. Fitting is in `filters.train.heads`; the rest of the package only scores.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np

from filters.arrays import Float32
from filters.errors import ModelError
from filters.model.folder import read_arrays, write_arrays

if TYPE_CHECKING:
    from filters.kernels.products import RadialCentres


HEAD = "head.safetensors"

HeadKind = Literal["linear", "rbf"]


class Head(Protocol):
    """Features to raw scores."""

    kind: ClassVar[HeadKind]
    """Name of the kind of head, by which it is read back."""

    def __call__(self, features: Float32) -> Float32:
        """float32[n] of features float32[n, d]."""

    def write(self, path: Path) -> None:
        """Write the arrays as safetensors."""


@dataclass(frozen=True)
class LinearHead:
    """intercept + weights . (x - mean) / scale.

    Attributes:
        mean: float32[d].
        scale: float32[d], positive.
        weights: float32[d].
        intercept: float.
    """

    mean: Float32
    scale: Float32
    weights: Float32
    intercept: float
    kind: ClassVar[HeadKind] = "linear"

    def __call__(self, features: Float32) -> Float32:
        """float32[n] of features float32[n, d]."""
        from filters.kernels.products import weighted_sums

        folded = (self.weights / self.scale).astype(np.float32)
        return weighted_sums(features - self.mean, folded) + np.float32(self.intercept)

    def write(self, path: Path) -> None:
        """Write the arrays as safetensors."""
        write_arrays(
            path,
            {
                "mean": self.mean,
                "scale": self.scale,
                "weights": self.weights,
                "intercept": np.array([self.intercept], np.float64),
            },
        )


@dataclass(frozen=True)
class RbfHead:
    """intercept + sum over centres c_j of weights_j * exp(-gamma |z - c_j|^2), z being the standardised features.

    One form for a support vector regression and for kernel ridge regression on landmarks (Nystroem).

    Attributes:
        mean: float32[d].
        scale: float32[d], positive.
        centres: float32[m, d], standardised, of values float16 holds exactly.
        weights: float32[m].
        gamma: positive.
        intercept: float.
    """

    mean: Float32
    scale: Float32
    centres: Float32
    weights: Float32
    gamma: float
    intercept: float
    kind: ClassVar[HeadKind] = "rbf"

    def __call__(self, features: Float32) -> Float32:
        """float32[n] of features float32[n, d]."""
        from filters.kernels.products import radial_sums

        z = (features - self.mean) / self.scale * self._root
        return radial_sums(z, self._radial) + np.float32(self.intercept)

    @property
    def _root(self) -> np.float32:
        """What a vector is multiplied by for gamma to be 1/2."""
        return np.float32(np.sqrt(2 * self.gamma))

    @functools.cached_property
    def _radial(self) -> RadialCentres:
        from filters.kernels.products import RadialCentres

        return RadialCentres.of(self.centres * self._root, self.weights)

    def write(self, path: Path) -> None:
        """Write the arrays as safetensors."""
        write_arrays(
            path,
            {
                "mean": self.mean,
                "scale": self.scale,
                "centres": self.centres.astype(np.float16),
                "weights": self.weights,
                "shape": np.array([self.gamma, self.intercept], np.float64),
            },
        )


def read_head(path: Path, kind: HeadKind, width: int) -> Head:
    """Read what `Head.write` wrote, for features of `width` columns.

    Raises:
        ModelError: arrays that do not fit.
    """
    common: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "mean": ("float32", (width,)),
        "scale": ("float32", (width,)),
    }
    if kind == "linear":
        a = read_arrays(path, common | {"weights": ("float32", (width,)), "intercept": ("float64", (1,))})
        return LinearHead(a["mean"], _positive(path, a["scale"]), a["weights"], float(a["intercept"][0]))
    a = read_arrays(
        path,
        common | {"centres": ("float16", (None, width)), "weights": ("float32", (None,)), "shape": ("float64", (2,))},
    )
    gamma, intercept = a["shape"].tolist()
    if len(a["centres"]) != len(a["weights"]) or gamma <= 0:
        raise ModelError(f"{path}: centres, weights and gamma do not fit together. Remedy: train the model again")
    centres = a["centres"].astype(np.float32)
    return RbfHead(a["mean"], _positive(path, a["scale"]), centres, a["weights"], gamma, intercept)


def _positive(path: Path, scale: Float32) -> Float32:
    if (scale <= 0).any():
        raise ModelError(f"{path}: scale holds values that are not positive. Remedy: train the model again")
    return scale
