"""Tutorials as notebooks, made from their pages."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbformat import v4

# Blocks that run; what says "not run" stays text.
_CODE = re.compile(r"(?<! -->\n)^```python\n(.*?)^```\n", re.S | re.M)
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^):]+)\)")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^):]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a notebook for each tutorial."""
    for page in Path(config.docs_dir).glob("tutorial-*.md"):
        content = nbformat.writes(notebook(page, config.site_url or ""))
        files.append(File.generated(config, f"{page.stem}.ipynb", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return a tutorial with the link to its notebook below its title."""
    name = page.file.src_uri
    if not name.startswith("tutorial-"):
        return markdown
    link = f"[Download as a notebook]({name.replace('.md', '.ipynb')}){{ .md-button download='' }}"
    return re.sub(r"(?<=\n)", f"\n{link}\n", markdown, count=1)


def notebook(page: Path, site: str) -> Any:
    """Return a page as a notebook that stands alone: its images are part of it.

    Links to other pages need the address ``site``; without one only their text is kept.
    """
    parts = [part.strip() for part in _CODE.split(page.read_text())]  # text, code, text, ...
    cells = [
        v4.new_code_cell(part, id=f"{n}") if n % 2 else _text(part, page, site, id=f"{n}")
        for n, part in enumerate(parts)
        if part
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _text(text: str, page: Path, site: str, **fields: str) -> Any:
    def link(found: re.Match[str]) -> str:
        address = urljoin(urljoin(site, f"{page.stem}.html"), found[2].replace(".md", ".html"))
        return f"[{found[1]}]({address})" if site else found[1]

    images = {
        name: {"image/png": b64encode((page.parent / name).read_bytes()).decode()}
        for _, name in _IMAGE.findall(text)
    }
    shown = _LINK.sub(link, _IMAGE.sub(r"![\1](attachment:\2)", text))
    return v4.new_markdown_cell(shown, **fields, **({"attachments": images} if images else {}))
