"""What fine-tuning changed in an encoder: whole weights of its uppermost blocks, or low-rank additions to them.

A model folder holds these arrays and not the encoder. Loading adds them to the encoder's own weights, so that a tuned
encoder is as fast as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from filters.errors import ModelError
from filters.model.folder import read_arrays, write_arrays
from filters.model.scorers import Options

TUNED = "tuned.safetensors"

Arrays = Mapping[str, npt.NDArray[Any]]


class TunedFeatures(Options):
    """Which weights were tuned, and how they are held."""

    kind: Literal["last_layers", "lora"]
    first: Annotated[int, Field(ge=0)]
    """Number of the lowest block tuned, from 0; all above it are."""
    scale: float = 1.0
    """lora: factor of the additions."""
    shapes: Annotated[dict[str, tuple[Annotated[int, Field(ge=1)], ...]], Field(min_length=1)]
    """Name -> shape of each array: block number and name within the block; lora: ending in .a and .b."""

    @property
    def dtype(self) -> str:
        """Of the arrays: whole weights in half precision, the much smaller additions in single."""
        return "float16" if self.kind == "last_layers" else "float32"


@dataclass(frozen=True, eq=False)
class TunedWeights:
    """Tuned arrays. Two are equal if their content is.

    Attributes:
        features: what they are.
        arrays: by name; `last_layers`: float16, a parameter each; `lora`: float32, a [rank, in] and b [out, rank] of a
            linear layer whose weight becomes weight + scale * b a (Hu et al. 2021).
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
        parameters = tunable(blocks, self.features)
        wanted = self.arrays if self.features.kind == "last_layers" else {name[:-2] for name in self.arrays}
        try:
            with torch.no_grad():
                for name in wanted:
                    weight = parameters[name]
                    if self.features.kind == "last_layers":
                        weight.copy_(torch.from_numpy(self.arrays[name].astype(np.float32)))
                    else:
                        a, b = (torch.from_numpy(self.arrays[f"{name}.{side}"]).to(weight.device) for side in "ab")
                        weight += self.features.scale * (b @ a)
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
        expected = {name: (features.dtype, shape) for name, shape in features.shapes.items()}
        return cls(features, read_arrays(path, expected))


def tunable(blocks: Any, features: TunedFeatures) -> dict[str, Any]:
    """The parameters that tuning may change, by block number and name: all of the blocks' or their linear layers'."""
    torch = _torch()
    found: dict[str, Any] = {}
    for number in range(features.first, len(blocks)):
        if features.kind == "last_layers":
            found.update({f"{number}.{name}": weight for name, weight in blocks[number].named_parameters()})
            continue
        for name, module in blocks[number].named_modules():
            if isinstance(module, torch.nn.Linear):
                found[f"{number}.{name}"] = module.weight
    return found


def _torch() -> Any:
    import torch

    return torch
