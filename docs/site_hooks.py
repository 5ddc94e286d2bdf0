"""Hooks of mkdocs: the reference made from the code, the tree of rooms, and pages for files that pages link to.

Links in docs/ to files beside docs/ (`../configs/demo.yaml`) work where the repository is browsed. In the site each
such file is a page of its own, below source/.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TREE = "<!-- tree -->"
MOST_CHARACTERS = 60_000
"""Longest file that is shown whole."""
_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")
_BESIDE = {"contributing.md": ROOT / "CONTRIBUTING.md", "changelog.md": ROOT / "CHANGELOG.md"}
"""Pages of the site that are files beside docs/."""


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    sys.path.insert(0, str(ROOT))
    from docs.reference import pages

    texts = pages() | {name: path.read_text(encoding="utf-8") for name, path in _BESIDE.items()}
    sources = {path for file in files.documentation_pages() for path in _beside(file.src_uri, file.content_string)}
    sources |= {path for name in _BESIDE for path in _beside(name, texts[name])}
    texts |= {_page(path): _shown(path) for path in sources}
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put the tree where it belongs, and make links to files beside docs/ links to their pages."""
    name = page.file.src_uri
    if TREE in markdown:
        markdown = markdown.replace(TREE, f"```text\n{tree()}\n```")

    def local(match: re.Match[str]) -> str:
        path = _target(name, match[1])
        if path is not None:
            return f"]({os.path.relpath(_page(path), os.path.dirname(name) or '.')}{match[2] or ''})"
        return f"]({match[1].removeprefix('docs/')}{match[2] or ''})" if name in _BESIDE else match[0]

    return _LINK.sub(local, markdown)


def _folder(name: str) -> Path:
    return _BESIDE[name].parent if name in _BESIDE else (DOCS / name).parent


def _target(name: str, link: str) -> Path | None:
    """The file beside docs/ that a link of a page leads to, or None; pictures of docs/ are not beside it."""
    path = (_folder(name) / link).resolve()
    outside = path.exists() and path.is_relative_to(ROOT) and not path.is_relative_to(DOCS)
    return path if outside else None


def _beside(name: str, text: str) -> Iterator[Path]:
    for match in _LINK.finditer(text):
        path = _target(name, match[1])
        if path is not None and path not in _BESIDE.values():
            yield path


def _page(path: Path) -> str:
    """Name of the page that shows a file beside docs/."""
    for name, beside in _BESIDE.items():
        if path == beside:
            return name
    return f"source/{path.relative_to(ROOT).as_posix()}.md"


def _shown(path: Path) -> str:
    """The page that shows a file, or what a folder holds."""
    head = f"---\nsearch:\n  exclude: true\nhide: [toc]\n---\n# {path.relative_to(ROOT).as_posix()}\n\n"
    if path.is_dir():
        names = sorted(
            f"{one.name}{'/' * one.is_dir()}" for one in path.iterdir() if not one.name.startswith((".", "__"))
        )
        return head + "\n".join(f"- `{name}`" for name in names) + "\n"
    text = path.read_text(encoding="utf-8")
    if len(text) > MOST_CHARACTERS:
        text = text[:MOST_CHARACTERS].rsplit("\n", 1)[0] + "\n..."
    language = {".py": "python", ".yaml": "yaml", ".json": "json", ".ipynb": "json", ".md": "markdown"}.get(
        path.suffix, "text"
    )
    return f"{head}````{language}\n{text.rstrip()}\n````\n"


def tree() -> str:
    """The rooms of filters/ and their modules, each with the first sentence of its docstring."""
    lines = []
    package = ROOT / "filters"
    modules = [
        package,
        *sorted(one for one in package.iterdir() if one.suffix == ".py" or (one / "__init__.py").is_file()),
    ]
    for module in modules:
        if module.name in ("__init__.py", "__main__.py"):
            continue
        if module.suffix == ".py":
            lines.append(_line(f"  {module.name}", module))
            continue
        depth = "" if module == package else "  "
        lines.append(_line(f"{depth}{module.name}/", module / "__init__.py"))
        if module != package:
            lines += [_line(f"    {one.name}", one) for one in sorted(module.glob("*.py")) if one.name != "__init__.py"]
            for room in sorted(one.parent for one in module.glob("*/__init__.py")):
                lines.append(_line(f"    {room.name}/", room / "__init__.py"))
                inner = sorted(one for one in room.glob("*.py") if one.name != "__init__.py")
                lines += [_line(f"      {one.name}", one) for one in inner]
    return "\n".join(lines)


def _line(name: str, path: Path) -> str:
    said = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.:;]) ", said)[0].rstrip(".:;")
    return f"{name:<28}{sentence}".rstrip()
