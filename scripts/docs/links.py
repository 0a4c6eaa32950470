"""Pages from outside ``docs/``, and links that work on the site as they do in the repository."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# Page of the site -> file of the repository.
OUTSIDE = {
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "sample-scene.md": "src/rs_embed/data/SAMPLE.md",
    "scalemae-tiny.md": "src/rs_embed/data/scalemae-tiny/MODEL_CARD.md",
}
_PAGES = {path: page for page, path in OUTSIDE.items()}
_LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(?=(#[^)]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside ``docs/``."""
    for page, path in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Return the page with links of the site."""
    source = OUTSIDE.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return site_links(markdown, source, config.repo_url)


def site_links(markdown: str, source: str, repository: str | None) -> str:
    """Return Markdown whose links lead to pages of the site, or else to the repository.

    Parameters
    ----------
    markdown : str
        Text of a file of the repository.
    source : str
        Path of that file from the root of the repository.
    repository : str or None
        Address of the repository. Without one, MkDocs warns of links to files that are not pages.
    """

    def of_site(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        if not (ROOT / path).exists():
            return link[1]
        if path in _PAGES or path.startswith("docs/"):
            return _PAGES.get(path, path.removeprefix("docs/"))
        return f"{repository.rstrip('/')}/blob/HEAD/{path}" if repository else link[1]

    return _LINK.sub(of_site, markdown)
