"""The documentation site: nothing is missing, and it reads as the repository does."""

from __future__ import annotations

import importlib
import re
import sys
from inspect import ismodule
from pathlib import Path
from typing import Any

import pytest
import yaml

import rs_embed
from tests.conftest import python_environment
from tests.test_docs import BLOCK, PAGES, ROOT

pytest.importorskip("mkdocs", reason="the site needs the extra docs")
sys.path.insert(0, str(ROOT / "scripts" / "docs"))
commands, links, notebooks, reference = (
    importlib.import_module(name) for name in ("commands", "links", "notebooks", "reference")
)
sys.path.pop(0)

TUTORIALS = [page for page in PAGES if page.name.startswith("tutorial-")]


@pytest.fixture(scope="module")
def config() -> Any:
    from mkdocs.config import load_config

    return load_config(str(ROOT / "mkdocs.yml"))


def test_every_page_is_in_the_navigation(config: Any) -> None:
    pages = [page.name for page in PAGES if page.parent.name == "docs"]
    made = [*links.OUTSIDE.values(), *(f"api/{page}.md" for page in reference.API)]
    assert sorted(re.findall(r"[\w/-]+\.md", str(config.nav))) == sorted(pages + made)


def test_nothing_comes_from_other_servers(config: Any) -> None:
    assert config.theme["font"] is False
    for path in [*config.extra["polyfills"], *config.extra_css]:
        assert (ROOT / "docs" / path).is_file()


def test_every_public_name_is_in_the_reference() -> None:
    named = [(package, name) for _, package, names in reference.API.values()
             for name in names.split()]  # fmt: skip
    assert len(set(named)) == len(named)
    for package, name in named:
        assert hasattr(importlib.import_module(package), name), name
    public = {("rs_embed", name) for name in rs_embed.__all__}
    for package in [name for name in rs_embed.__all__ if ismodule(getattr(rs_embed, name))]:
        public -= {("rs_embed", package)}
        public |= {(f"rs_embed.{package}", name) for name in getattr(rs_embed, package).__all__}
    assert {one for one in named if one[0] in {package for package, _ in public}} == public


def test_every_command_is_on_its_page() -> None:
    from rs_embed.cli import app

    page = commands.commands()
    registered = [one.name for one in app.registered_commands] + ["cache", "cache ls"]
    assert set(registered) <= set(re.findall(r"^##+ `rs-embed (.+)`$", page, re.M))
    embed = page.partition("`rs-embed embed`")[2].partition("\n## ")[0]
    assert {"--lon", "--variant", "--gsd"} <= set(re.findall(r"^\* `(--[\w-]+)", embed, re.M))
    assert "[dim]" not in page
    assert "```sh\nrs-embed doctor" in page


@pytest.mark.parametrize(
    ("link", "source", "repository", "expected"),
    [
        ("search.md#what-is-compared", "docs/maps.md", "", "search.md#what-is-compared"),
        ("images/a.png", "docs/maps.md", "", "images/a.png"),
        ("../benchmarks/README.md#tiles", "docs/speed.md", "", "benchmarks.md#tiles"),
        ("../docs/maps.md#seams", "benchmarks/README.md", "", "maps.md#seams"),
        ("docs/architecture.md", "CONTRIBUTING.md", "", "architecture.md"),
        ("../LICENSE", "docs/maps.md", "https://x.org/r/", "https://x.org/r/blob/HEAD/LICENSE"),
        ("../LICENSE", "docs/maps.md", "", "../LICENSE"),  # MkDocs warns
        ("../missing.md", "docs/maps.md", "https://x.org/r", "../missing.md"),  # MkDocs warns
        ("https://a.org/b.md", "docs/maps.md", "https://x.org/r", "https://a.org/b.md"),
        ("#the-area", "docs/maps.md", "", "#the-area"),
    ],
)
def test_links(link: str, source: str, repository: str, expected: str) -> None:
    assert links.site_links(f"[a]({link}), b", source, repository) == f"[a]({expected}), b"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_site_shows_what_the_repository_shows(page: Path, config: Any) -> None:
    """Lists and tables are the same in both kinds of Markdown."""
    from markdown import Markdown
    from markdown_it import MarkdownIt

    site = Markdown(extensions=config.markdown_extensions, extension_configs=config.mdx_configs)
    html = [one(page.read_text()) for one in (site.convert, MarkdownIt().enable("table").render)]
    shown = [re.findall(r"<(?:[uo]l|li|tr|h\d|img)\b", one) for one in html]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_notebooks_stand_alone_and_have_the_code_of_their_pages(page: Path) -> None:
    import nbformat

    for site in ("", "https://x.org/d/"):
        notebook = notebooks.notebook(page, site)
        nbformat.validate(notebook)
        code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        blocks = BLOCK.finditer(page.read_text())
        assert code == [block["code"].strip() for block in blocks if not block["why"]]
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        assert not re.search(r"\]\((?!https?:|attachment:)", text)


def test_a_notebook_runs(tmp_path: Path) -> None:
    """One is enough: test_docs runs the same blocks of all pages."""
    from nbclient import NotebookClient

    notebook = notebooks.notebook(ROOT / "docs" / "tutorial-places.md", site="")
    folder = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(notebook, kernel_name="python3", resources=folder)
    client.timeout = client.startup_timeout = 300
    client.execute(env=python_environment())
    assert "19 of 21" in str(notebook.cells[-2].outputs)


def test_project_files_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == rs_embed.__version__
    assert f"\n## [{rs_embed.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    for form in ("bug.yml", "question.yml"):
        body = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / form).read_text())["body"]
        assert any("rs-embed doctor --json" in str(field["attributes"]) for field in body), form
