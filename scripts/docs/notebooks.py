"""Tutorials as notebooks, made from their pages."""

from __future__ import annotations

import base64
import re
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urljoin

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

# Blocks that run; what says "not run" stays text.
_CODE = re.compile(r"(?<! -->\n)^```python\n(.*?)^```\n", re.S | re.M)
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^):]+)\)")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^):]+)\)")


def is_tutorial(page: str) -> bool:
    """Return whether a page of ``docs/`` is also a notebook."""
    return fnmatch(page, "tutorial-*.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a notebook for each tutorial."""
    for page in [file for file in files if is_tutorial(file.src_uri)]:
        made = notebook(Path(config.docs_dir, page.src_uri), config.site_url or "")
        name = page.src_uri.replace(".md", ".ipynb")
        files.append(File.generated(config, name, content=nbformat.writes(made)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return a tutorial with the link to its notebook below its title."""
    name = page.file.src_uri
    if not is_tutorial(name):
        return markdown
    title, _, text = markdown.partition("\n")
    link = f"[Download as a notebook]({name.replace('.md', '.ipynb')})"
    return f"{title}\n\n{link}{{ .md-button download }}\n{text}"


def notebook(path: Path, site: str) -> NotebookNode:
    """Return a page as a notebook that stands alone: its images are part of it.

    Parameters
    ----------
    path : Path
        Markdown of the page.
    site : str
        Address of the site, for links to other pages; without one only their text is kept.
    """
    parts = _CODE.split(path.read_text())  # text, code, text, ...
    cells = [new_code_cell(part.strip()) if n % 2 else _text(part, path, site)
             for n, part in enumerate(parts) if part.strip()]  # fmt: skip
    for n, cell in enumerate(cells):
        cell.id = f"cell-{n}"  # the same in each build
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _text(part: str, path: Path, site: str) -> NotebookNode:
    images = {name: (path.parent / name).read_bytes() for _, name in _IMAGE.findall(part)}
    part = _IMAGE.sub(r"![\1](attachment:\2)", part)
    page = urljoin(site, path.stem + ".html")
    part = _LINK.sub(lambda m: f"[{m[1]}]({urljoin(page, m[2].replace('.md', '.html'))})" if site
                     else m[1], part)  # fmt: skip
    cell = new_markdown_cell(part.strip())
    if images:
        cell.attachments = {name: {"image/png": base64.b64encode(png).decode()}
                            for name, png in images.items()}  # fmt: skip
    return cell
