"""Text of others on a terminal: nothing in it is a command, and it is not longer than useful."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

# What a terminal obeys instead of showing it (C0, DEL, C1, and reordering of letters), and what no
# stream can encode. Tabs and ends of lines are our own.
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return text, or JSON, with each control character as ``\u001b`` and the like."""
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def excerpt(text: str, most: int = 160) -> str:
    """Return the beginning of what a server answered, in one line of ``most`` characters."""
    return " ".join(text.split())[:most]


def html_table(title: str, rows: Mapping[str, Any]) -> str:
    """Return an HTML table of names and values, for notebooks; nothing in them is markup."""
    cells = "".join(
        f'<tr><th style="text-align:left">{_escaped(name)}</th>'
        f'<td style="text-align:left">{_escaped(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table><caption>{_escaped(title)}</caption>{cells}</table>"


def html_text(text: str) -> str:
    """Return text as HTML, line by line as it is."""
    return f"<pre>{_escaped(text)}</pre>"


def _escaped(value: Any) -> str:
    return html.escape(printable(str(value)))
