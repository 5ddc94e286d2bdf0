"""Small heads on dense features, held as arrays: fitted to labels, and applied.

A score comes from a linear head, or from one on radial basis functions; labels come from a linear head with a row of
weights for each. All standardise the features first.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from filters.arrays import Float32, Float64
from filters.config.yaml_file import Section
from filters.errors import ModelError
from filters.model.folder import read_arrays, write_arrays

if TYPE_CHECKING:
    from filters.kernels.vectors import RadialCentres

HEAD = "head.safetensors"

HeadKind = Literal["linear", "rbf", "labels"]


class Head(Protocol):
    """Features to raw scores."""

    kind: ClassVar[HeadKind]
    """Name of the kind of head, by which it is read back."""

    def __call__(self, features: Float32) -> Float32:
        """float32[n], or of k labels float32[n, k], of features float32[n, d]."""

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
        from filters.kernels.vectors import weighted_sums

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
        from filters.kernels.vectors import radial_sums

        z = (features - self.mean) / self.scale * self._root
        return radial_sums(z, self._radial) + np.float32(self.intercept)

    @property
    def _root(self) -> np.float32:
        """What a vector is multiplied by for gamma to be 1/2."""
        return np.float32(np.sqrt(2 * self.gamma))

    @functools.cached_property
    def _radial(self) -> RadialCentres:
        from filters.kernels.vectors import RadialCentres

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


@dataclass(frozen=True)
class LabelHead:
    """Logits of k labels: intercepts + weights . (x - mean) / scale.

    Attributes:
        mean: float32[d].
        scale: float32[d], positive.
        weights: float32[k, d].
        intercepts: float32[k].
    """

    mean: Float32
    scale: Float32
    weights: Float32
    intercepts: Float32
    kind: ClassVar[HeadKind] = "labels"

    def __call__(self, features: Float32) -> Float32:
        """float32[n, k] of features float32[n, d]."""
        from filters.kernels.vectors import products

        return products(features - self.mean, self._blocks)[:, : len(self.weights)] + self.intercepts

    @functools.cached_property
    def _blocks(self) -> Float32:
        from filters.kernels.vectors import column_blocks

        return column_blocks(self.weights / self.scale)

    def write(self, path: Path) -> None:
        """Write the arrays as safetensors."""
        names = ("mean", "scale", "weights", "intercepts")
        write_arrays(path, {name: getattr(self, name) for name in names})


def probabilities(logits: Float32) -> Float64:
    """float64[n, k], rows summing to 1, of logits float32[n, k]; as float32 they are the same anywhere."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf))
    shares: Float64 = powers / powers.sum(axis=1, keepdims=True)
    return shares


def read_head(path: Path, kind: HeadKind, width: int) -> Head:
    """Read what `Head.write` wrote, for features of `width` columns.

    Raises:
        ModelError: arrays that do not fit.
    """
    common: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "mean": ("float32", (width,)),
        "scale": ("float32", (width,)),
    }
    if kind == "labels":
        shapes = {"weights": ("float32", (None, width)), "intercepts": ("float32", (None,))}
        a = read_arrays(path, common | shapes)
        if len(a["weights"]) != len(a["intercepts"]):
            raise ModelError(f"{path}: weights and intercepts do not fit together. Remedy: train the model again")
        return LabelHead(a["mean"], _positive(path, a["scale"]), a["weights"], a["intercepts"])
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


_REDUCED_L2 = 0.003
_NEVER = -100.0


class RidgeHead(Section):
    """Ridge regression. `l2` is the penalty per feature, so that one value suits encoders of any width."""

    kind: Literal["ridge"] = "ridge"
    """Chooses this kind of head."""
    l2: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1.0,)
    """Candidates for the penalty; inner cross-validation chooses one."""


class SvrHead(Section):
    """Support vectors with a radial basis function kernel (Drucker et al. 1997)."""

    kind: Literal["svr"] = "svr"
    """Chooses this kind of head."""
    c: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (2.0,)
    """Candidates for the inverse of the penalty; inner cross-validation chooses one."""
    gamma: Annotated[float, Field(gt=0)] = 0.3
    """Width of the kernel: its gamma is this value, divided by the number of features."""
    epsilon: Annotated[float, Field(ge=0)] = 0.1
    """Errors up to this size count as none, in points of the judge's score."""
    scale: Literal["unit", "root"] = "unit"
    """Each feature is divided by its standard deviation (unit), or by the square root of it (root)."""
    centres: Annotated[int, Field(ge=8, le=16_384)] | None = None
    """Number of support vectors that the head is reduced to (Schoelkopf et al. 1999), which makes it smaller and
    faster. null: all are kept."""


class LandmarkHead(Section):
    """Kernel ridge regression on landmarks (Nystroem; Williams and Seeger 2001): an RBF head of a size one chooses."""

    kind: Literal["landmarks"] = "landmarks"
    """Chooses this kind of head."""
    landmarks: Annotated[int, Field(ge=8, le=16_384)] = 1024
    """Number of landmarks, which are drawn from the training rows."""
    l2: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.3,)
    """Candidates for the ridge penalty; inner cross-validation chooses one."""
    gamma: Annotated[float, Field(gt=0)] = 0.15
    """Width of the kernel: its gamma is this value, divided by the number of features."""


class LogisticHead(Section):
    """Multinomial logistic regression: tells labels apart, such as topics, and gives each a probability."""

    kind: Literal["logistic"] = "logistic"
    """Chooses this kind of head."""
    l2: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (30.0,)
    """Candidates for the penalty; inner cross-validation chooses one."""


HeadConfig = Annotated[RidgeHead | SvrHead | LandmarkHead | LogisticHead, Field(discriminator="kind")]


def strengths(config: HeadConfig) -> tuple[float, ...]:
    """The candidates for the strength of regularisation: C of `svr`, else l2."""
    return config.c if isinstance(config, SvrHead) else config.l2


def fit_head(
    config: HeadConfig,
    strength: float,
    features: Float32,
    targets: Float64,
    weights: Float64,
    random_state: int,
) -> Head:
    """Fit a head.

    Args:
        config: which, and how.
        strength: one of `strengths(config)`.
        features: float32[n, d].
        targets: float64[n], the judge's scores; for a `LogisticHead` numbers of labels, 0 to k - 1.
        weights: float64[n], positive.
        random_state: seed of the choice of landmarks.
    """
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = features.std(axis=0, dtype=np.float64)
    # A constant feature tells nothing; divided by a spread near zero it would outweigh all others.
    scale = np.where(spread > 1e-6, spread + 1e-6, 1).astype(np.float32)
    if isinstance(config, SvrHead) and config.scale == "root":
        scale = np.sqrt(scale * np.sqrt(np.mean(scale**2))).astype(np.float32)
    z: Float32 = (features - mean) / scale
    rows = _Rows(mean, scale, z, targets, weights / weights.mean())
    if isinstance(config, RidgeHead):
        return _linear(strength * z.shape[1], rows)
    if isinstance(config, LogisticHead):
        return _logistic(strength, rows)
    gamma = config.gamma / z.shape[1]
    if isinstance(config, SvrHead):
        return _svr(config, strength, gamma, rows)
    return _landmarks(config, strength, gamma, rows, random_state)


@dataclass(frozen=True)
class _Rows:
    """What a head is fitted to: the arguments of `fit_head`, with features standardised and weights of mean 1."""

    mean: Float32
    scale: Float32
    z: Float32
    targets: Float64
    weights: Float64


def _linear(l2: float, rows: _Rows) -> LinearHead:
    coefficients, intercept = _ridge(rows.z, rows.targets, rows.weights, l2)
    return LinearHead(rows.mean, rows.scale, coefficients.astype(np.float32), float(intercept))


def _logistic(l2: float, rows: _Rows) -> LabelHead:
    from sklearn.linear_model import LogisticRegression

    labels = rows.targets.astype(np.int64)
    model = LogisticRegression(C=1 / l2, max_iter=1000, tol=1e-4).fit(rows.z.astype(np.float64), labels, rows.weights)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # one row, which tells the second from the first
        coefficients, intercepts = np.r_[-coefficients, coefficients] / 2, np.r_[-intercepts, intercepts] / 2
    # A label without rows gets a logit that is never the highest.
    weights = np.zeros((labels.max() + 1, rows.z.shape[1]), np.float32)
    logits = np.full(labels.max() + 1, _NEVER)
    weights[model.classes_], logits[model.classes_] = coefficients, intercepts
    return LabelHead(rows.mean, rows.scale, weights, logits.astype(np.float32))


def _ridge(z: Float32, targets: Float64, weights: Float64, l2: float) -> tuple[Float64, float]:
    """Ridge regression, in the dual if that is smaller; the intercept is not penalised."""
    mean = float(np.average(targets, weights=weights))
    centre = np.average(z, axis=0, weights=weights).astype(np.float32)
    root = np.sqrt(weights)
    x = ((z - centre) * root[:, None]).astype(np.float32)
    y = (targets - mean) * root
    if x.shape[1] <= len(x):
        gram = (x.T @ x).astype(np.float64)
        gram[np.diag_indices(len(gram))] += l2
        coefficients = np.linalg.solve(gram, x.T.astype(np.float64) @ y)
    else:
        gram = (x @ x.T).astype(np.float64)
        gram[np.diag_indices(len(gram))] += l2
        coefficients = x.T.astype(np.float64) @ np.linalg.solve(gram, y)
    weights_found: Float64 = np.asarray(coefficients, np.float64)
    return weights_found, mean - float(centre.astype(np.float64) @ weights_found)


def _kernel(a: Float32, b: Float32, gamma: float) -> Float64:
    squares = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b)[None] - 2 * (a @ b.T)
    kernel: Float64 = np.exp(-gamma * np.maximum(squares, 0).astype(np.float64))
    return kernel


def _svr(config: SvrHead, c: float, gamma: float, rows: _Rows) -> RbfHead:
    from sklearn.svm import SVR

    # Rounded first, so that a head that was saved scores as before.
    z = rows.z.astype(np.float16).astype(np.float32)
    machine = SVR(kernel="precomputed", C=c, epsilon=config.epsilon, cache_size=1000, tol=3e-3)
    machine.fit(_kernel(z, z, gamma), rows.targets, rows.weights)
    dual, vectors = np.asarray(machine.dual_coef_[0], np.float64), z[machine.support_]
    if config.centres is not None and config.centres < len(vectors):
        vectors, dual = _reduced(vectors, dual, z, gamma, config.centres)
    return RbfHead(rows.mean, rows.scale, vectors, dual.astype(np.float32), gamma, float(machine.intercept_[0]))


def _reduced(vectors: Float32, dual: Float64, z: Float32, gamma: float, count: int) -> tuple[Float32, Float64]:
    """(the `count` heaviest vectors, what they weigh so that their sum is nearly that of all, on rows `z`)."""
    heaviest = np.sort(np.argsort(-np.abs(dual), kind="stable")[:count])
    centres = vectors[heaviest]
    whole = _kernel(z, vectors, gamma) @ dual
    part = _kernel(z, centres, gamma)
    gram = part.T @ part + _REDUCED_L2 * _kernel(centres, centres, gamma)
    gram[np.diag_indices(count)] += 1e-5 * np.trace(gram) / count
    weights: Float64 = np.asarray(np.linalg.solve(gram, part.T @ whole), np.float64)
    return centres, weights


def _landmarks(config: LandmarkHead, l2: float, gamma: float, rows: _Rows, random_state: int) -> RbfHead:
    z, targets, weights = rows.z, rows.targets, rows.weights
    chosen = _spread(targets, min(config.landmarks, len(z)), np.random.default_rng(random_state))
    centres = z[chosen].astype(np.float16).astype(np.float32)
    cross, among = _kernel(z, centres, gamma), _kernel(centres, centres, gamma)
    intercept = float(np.average(targets, weights=weights))
    gram = cross.T @ (cross * weights[:, None]) + l2 * among
    gram[np.diag_indices(len(gram))] += 1e-6 * np.trace(gram) / len(gram)
    dual = np.linalg.solve(gram, cross.T @ (weights * (targets - intercept)))
    return RbfHead(rows.mean, rows.scale, centres, dual.astype(np.float32), gamma, intercept)


def _spread(targets: Float64, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows to be landmarks: half drawn from all, half evenly over the targets, or the high ones would be rare."""
    order = np.argsort(targets, kind="stable")
    values = np.linspace(targets.min(), targets.max(), count // 2)
    nearest = order[np.clip(np.searchsorted(targets[order], values), 0, len(order) - 1)]
    rows = np.unique(nearest)
    others = rng.permutation(np.setdiff1d(np.arange(len(targets)), rows))[: count - len(rows)]
    return np.sort(np.r_[rows, others])
