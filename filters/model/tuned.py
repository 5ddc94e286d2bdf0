"""Fine-tuned weights of an encoder's uppermost blocks.

A model folder holds these arrays and not the encoder. Loading puts them in the place of the encoder's own weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from filters.errors import ModelError
from filters.model.folder import read_arrays, write_arrays
from filters.model.scorers import Options

TUNED = "tuned.safetensors"

Arrays = Mapping[str, npt.NDArray[Any]]


class TunedFeatures(Options):
    """The names of the tuned weights, and their number format."""

    first: Annotated[int, Field(ge=0)]
    """Number of the lowest block tuned, from 0; all above it are."""
    shapes: Annotated[dict[str, tuple[Annotated[int, Field(ge=1)], ...]], Field(min_length=1)]
    """Name -> shape of each array: block number and name within the block."""


@dataclass(frozen=True, eq=False)
class TunedWeights:
    """Tuned arrays. Two are equal if their content is.

    Attributes:
        features: what they are.
        arrays: by name, float16, a parameter each.
        digest: sha256 over all of it.
    """

    features: TunedFeatures
    arrays: Arrays
    digest: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        content = hashlib.sha256(self.features.model_dump_json().encode())
        for name in sorted(self.arrays):
            content.update(name.encode() + np.ascontiguousarray(self.arrays[name]).tobytes())
        object.__setattr__(self, "digest", content.digest())

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TunedWeights) and self.digest == other.digest

    def apply(self, blocks: Any, encoder: str) -> None:
        """Change the weights of an encoder's blocks (a ModuleList in float32).

        Raises:
            ModelError: the encoder has no such weights.
        """
        torch = _torch()
        parameters = tunable(blocks, self.features.first)
        try:
            with torch.no_grad():
                for name, array in self.arrays.items():
                    parameters[name].copy_(torch.from_numpy(array.astype(np.float32)))
        except (KeyError, RuntimeError) as error:
            raise ModelError(
                f"encoder {encoder}: the tuned weights do not fit it: {error}. Remedy: get the encoder the model was "
                "trained with, or train again"
            ) from error

    def write(self, path: Path) -> None:
        """Write the arrays as safetensors."""
        write_arrays(path, self.arrays)

    @classmethod
    def read(cls, path: Path, features: TunedFeatures) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: arrays that do not fit.
        """
        expected = {name: ("float16", shape) for name, shape in features.shapes.items()}
        return cls(features, read_arrays(path, expected))


def tunable(blocks: Any, first: int) -> dict[str, Any]:
    """The parameters of the blocks from number `first` on, by block number and name."""
    return {
        f"{number}.{name}": weight
        for number in range(first, len(blocks))
        for name, weight in blocks[number].named_parameters()
    }


def _torch() -> Any:
    import torch

    return torch
