"""The documents that `make demo` filters: found by reading files alone, the same every time."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from examples.python_docs import MAX_FILE_BYTES, documents, packages, write

LONG = "A docstring long enough to be a document. " * 8


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with one package, `oddpack`, whose files are as odd as the tests make them."""
    info = tmp_path / "oddpack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: oddpack\nVersion: 1.0\n\n# Oddpack\n\nDescription.\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def install(root: Path, files: dict[str, bytes], absent: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """The documents of oddpack with these files, and with `absent` ones that only its RECORD names."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    record = "".join(f"{name},,\n" for name in (*files, *absent))
    (root / "oddpack-1.0.dist-info" / "RECORD").write_text(record)
    found = packages()
    assert list(found) == ["oddpack"]
    return list(documents(found["oddpack"]))


def test_documents_in_order_with_their_places(package: Path) -> None:
    source = f'''"""{LONG}"""
import this_is_never_imported
class First:
    """{LONG}"""
    def method(self):
        """{LONG}"""
    def short(self):
        """Too short."""
async def function():
    """{LONG}"""
'''
    found = install(
        package,
        {
            "oddpack/b.py": source.encode(),
            "oddpack/data.csv": b"1,2",
            "oddpack/guide.md": b"# Guide\r\ntext",
            "oddpack/tests/test_b.py": source.encode(),
            "oddpack-1.0.dist-info/licenses/LICENSE": b"Licence text",
            "oddpack-1.0.dist-info/top_level.txt": b"oddpack",
        },
        absent=("oddpack/gone.md", "oddpack/gone.py"),
    )
    assert [place for place, _ in found] == [
        "METADATA",
        "oddpack-1.0.dist-info/licenses/LICENSE",
        "oddpack/guide.md",
        "oddpack/b.py",
        "oddpack/b.py#First",
        "oddpack/b.py#function",
        "oddpack/b.py#First.method",
    ]
    texts = [text for _, text in found]
    assert texts[0] == "# Oddpack\n\nDescription."
    assert texts[1:3] == ["Licence text", "# Guide\ntext"]
    assert [text.strip() for text in texts].count(LONG.strip()) == 4


def test_odd_files_cost_only_themselves(package: Path) -> None:
    long = b'"""' + LONG.encode() + b'"""\n'
    found = install(
        package,
        {
            "oddpack/a_latin1.md": b"caf\xe9",
            "oddpack/b_python2.py": long + b"print 'no longer valid'\n",
            "oddpack/c_null.py": long + b"\0",
            "oddpack/d_bytes.py": long + b"x = '\xff'\n",
            "oddpack/e_deep.py": long + b"x = " + b"(" * 5000 + b")" * 5000 + b"\n",
            "oddpack/f_escape.py": b'"""\\ud800 ' + LONG.encode() + b'"""\n',
            "oddpack/words.txt": b"a word list is no documentation",
            "oddpack/g_huge.md": b"x" * (MAX_FILE_BYTES + 1),
            "oddpack/h_empty.md": b"",
            "oddpack/i_fine.md": b"fine",
        },
    )
    texts = [text for _, text in found]
    assert texts[1:3] == ["caf\ufffd", "fine"]
    assert len(texts) == 4
    assert texts[3].startswith("? A docstring")


def test_this_environment(tmp_path: Path) -> None:
    names = list(packages(12))
    assert len(names) == 12
    assert names == sorted(names, key=str.lower)
    count = write(tmp_path / "a" / "docs.parquet", 12)
    table = pq.read_table(tmp_path / "a" / "docs.parquet")
    assert table.column_names == ["text", "url", "package"]
    assert len(table) == count > 100
    assert set(table["package"].to_pylist()) <= set(names)
    write(tmp_path / "b.parquet", 12)
    assert (tmp_path / "b.parquet").read_bytes() == (tmp_path / "a" / "docs.parquet").read_bytes()
