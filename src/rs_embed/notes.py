"""Warnings as values: noted where they arise, in any thread, and given where the caller stands."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rs_embed.errors import RsEmbedWarning


@dataclass(frozen=True)
class Note:
    """A warning still to be given: noted where it arises, given in the caller's thread."""

    message: str
    category: type[RsEmbedWarning]


def some(names: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """Return up to ``most`` of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more


def give_warnings(notes: Iterable[Note]) -> None:
    """Warn at the line of the caller's code that entered rs_embed, wherever we are inside it."""
    here = str(Path(__file__).parent) + os.sep
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame = frame.f_back
        level += 1
    for note in notes:
        warnings.warn(note.message, note.category, stacklevel=level)
