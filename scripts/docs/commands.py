"""The commands and their options, made from the command line itself, for its page."""

from __future__ import annotations

import re

import typer
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from rs_embed.cli import app

PAGE = "command-line.md"
_EXAMPLE = re.compile(r"\[dim\](.+?)\[/dim\]", re.S)


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return the page of the command line with its commands."""
    return f"{markdown}\n{commands()}" if page.file.src_uri == PAGE else markdown


def commands() -> str:
    """Return Markdown with a section for each command, with the options of the models."""
    root = typer.main.get_command(app)
    context = typer.Context(root, info_name="rs-embed")  # type: ignore[arg-type]
    sections = []
    for name in root.list_commands(context):  # type: ignore[attr-defined]
        _, command, _ = root.resolve_command(context, [name])  # type: ignore[attr-defined]
        sections.append(
            get_docs_for_click(
                obj=command, ctx=context, name=name, call_prefix="rs-embed", indent=1
            )
        )
    shown = _EXAMPLE.sub(_example, "\n".join(sections))
    return shown.replace("**Usage**:\n\n```console\n$ ", "**Usage**:\n\n```text\n").replace("\\[", "[")


def _example(found: re.Match[str]) -> str:
    """Return a command as a block of code, which is wrapped in the help texts."""
    return "```sh\n" + " \\\n    ".join(found[1].splitlines()) + "\n```"
