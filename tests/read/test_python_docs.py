from __future__ import annotations

import sys
from pathlib import Path

import pytest
from synthetic import read_all

from filters.config import InputConfig
from filters.read.python_docs import MAX_FILE_BYTES
from filters.read.units import plan_units

LONG = "A docstring long enough to be a document. " * 8


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with one distribution, `oddpack`, whose files are as odd as the tests make them."""
    info = tmp_path / "oddpack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: oddpack\nVersion: 1.0\n\n# Oddpack\n\nDescription.\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def install(root: Path, files: dict[str, bytes], absent: tuple[str, ...] = ()) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    record = "".join(f"{name},,\n" for name in (*files, *absent))
    (root / "oddpack-1.0.dist-info" / "RECORD").write_text(record)


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
    install(
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
    result = read_all(InputConfig(kind="python-docs"))
    assert result.column("url") == [
        "oddpack/METADATA",
        "oddpack/oddpack-1.0.dist-info/licenses/LICENSE",
        "oddpack/oddpack/guide.md",
        "oddpack/oddpack/b.py",
        "oddpack/oddpack/b.py#First",
        "oddpack/oddpack/b.py#function",
        "oddpack/oddpack/b.py#First.method",
    ]
    assert result.texts[0] == "# Oddpack\n\nDescription."
    assert "# Guide\ntext" in result.texts
    assert "Licence text" in result.texts
    assert [text.strip() for text in result.texts].count(LONG.strip()) == 4
    assert result.positions == list(range(len(result)))
    assert {batch.source for batch in result.batches} == {"oddpack"}


def test_odd_files_cost_only_themselves(package: Path) -> None:
    long = b'"""' + LONG.encode() + b'"""\n'
    install(
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
    result = read_all(InputConfig(kind="python-docs"))
    assert result.causes == ["invalid_utf8", *4 * ["unparsable"]]
    assert result.skipped == 1
    assert "fine" in result.texts
    assert any(text.startswith("? A docstring") for text in result.texts)
    assert result.reasons[result.texts.index("")] == "empty_text"


def test_a_description_that_is_no_utf8_is_quarantined(package: Path) -> None:
    (package / "oddpack-1.0.dist-info" / "METADATA").write_bytes(b"Name: oddpack\n\ncaf\xe9\n")
    install(package, {"oddpack/fine.md": b"fine"})
    result = read_all(InputConfig(kind="python-docs"))
    assert result.texts == ["fine"]
    assert result.causes == ["invalid_utf8"]


def test_this_environment() -> None:
    result = read_all(InputConfig(kind="python-docs", max_files=40))
    assert len(result) > 1000
    assert len(result) - len(set(result.texts)) > 20
    assert len(set(result.ids)) == len(result)


def test_distributions_come_by_name_and_the_same_every_time() -> None:
    config = InputConfig(kind="python-docs", max_files=12)
    names = [unit.source for unit in plan_units(config)]
    assert len(names) == 12
    assert names == sorted(names, key=str.lower)
    first, second = read_all(config), read_all(config)
    assert (first.ids, first.texts) == (second.ids, second.texts)
