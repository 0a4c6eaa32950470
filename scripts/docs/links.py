"""Pages from outside ``docs/``, and links that work on the site as they do in the repository."""

from __future__ import annotations

import re
from os.path import dirname, join, normpath
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# File of the repository -> page of the site.
OUTSIDE = {
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "src/rs_embed/data/SAMPLE.md": "sample-scene.md",
    "src/rs_embed/data/scalemae-tiny/MODEL_CARD.md": "scalemae-tiny.md",
}
_PATH = re.compile(r"(?<=\]\()[^)#\s:]+(?=(#[^)]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside ``docs/``."""
    for path, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Return the page with links of the site."""
    sources = {to: path for path, to in OUTSIDE.items()}
    name = page.file.src_uri
    return site_links(markdown, sources.get(name, f"docs/{name}"), config.repo_url or "")


def site_links(markdown: str, source: str, repository: str) -> str:
    """Return the Markdown of a file of the repository with links of the site.

    Files that are not pages are linked at the address ``repository``; without one the link stays
    as it is, and MkDocs warns of it.
    """

    def of_site(link: re.Match[str]) -> str:
        path = normpath(join(dirname(source), link[0]))
        if path in OUTSIDE or (path.startswith("docs/") and (ROOT / path).exists()):
            return OUTSIDE.get(path, path.removeprefix("docs/"))
        in_repository = repository and (ROOT / path).exists()
        return f"{repository.rstrip('/')}/blob/HEAD/{path}" if in_repository else link[0]

    return _PATH.sub(of_site, markdown)
