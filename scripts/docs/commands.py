"""The commands and their options, for their page, made from the command line itself."""

from __future__ import annotations

import re
from typing import Any

import typer
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from rs_embed.cli import app


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return the page of the command line with its commands."""
    return f"{markdown}\n{commands()}" if page.file.src_uri == "command-line.md" else markdown


def commands() -> str:
    """Return Markdown with a section for each command, with the options of the models."""
    root: Any = typer.main.get_command(app)
    context = typer.Context(root, info_name="rs-embed")
    sections = ""
    for name in root.list_commands(context):
        command = root.resolve_command(context, [name])[1]
        sections += get_docs_for_click(
            obj=command, ctx=context, name=name, call_prefix="rs-embed", indent=1
        )
    sections = sections.replace("```console\n$ ", "```text\n").replace("\\[", "[")
    return re.sub(r"\[dim\](.+?)\[/dim\]", _example, sections, flags=re.S)


def _example(found: re.Match[str]) -> str:
    return "```sh\n" + found[1].replace("\n", " \\\n    ") + "\n```"  # it is wrapped
