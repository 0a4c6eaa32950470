"""Formats of files, one row each, found by the suffix of a path."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from rs_embed._optional import require
from rs_embed.addresses import path_of
from rs_embed.errors import ExportError, UnknownNameError
from rs_embed.files.writing import check_place
from rs_embed.network.stores import Store, is_store

# Name under which files hold the meta of an embedding, as JSON text.
META_KEY = "rs_embed_meta"
# What libraries raise for the content of damaged files, besides `OSError`.
UNREADABLE = (
    LookupError, TypeError, ValueError, ArithmeticError, AttributeError, EOFError, RuntimeError,
    MemoryError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Format:
    """What is known of a format without opening a file.

    Attributes
    ----------
    name : str
        How people call it.
    suffixes : tuple of str
        Suffixes of its files, in lower case.
    media_type : str
        Its media type (RFC 6838).
    packages : tuple of str
        Modules that reading and writing import, if an extra installs them.
    extra : str
        That extra.
    """

    name: str
    suffixes: tuple[str, ...]
    media_type: str
    packages: tuple[str, ...] = ()
    extra: str = ""

    def require(self) -> None:
        """Raise `MissingDependencyError` if a package is not installed."""
        for package in self.packages:
            require(package, extra=self.extra, purpose=self.name)

    def check(self, path: Path) -> None:
        """Raise now what writing to ``path`` would raise later."""
        check_place(path)
        self.require()


@dataclass(frozen=True, kw_only=True)
class EmbeddingFormat(Format):
    """A format of vectors or token grids.

    Attributes
    ----------
    write : callable
        ``write(path, data, meta)`` writes ``Embedding.data`` and its meta, all or nothing.
    read : callable
        ``read(path)`` returns both; `ExportError` for other files.
    """

    write: Callable[[Path, Any, Mapping[str, Any]], None]
    read: Callable[[Path], tuple[Any, dict[str, Any]]]


Row = TypeVar("Row", bound=Format)


class Formats(Generic[Row]):
    """A table of the formats for one kind of result.

    Parameters
    ----------
    kind : str
        What the files hold, with its article, for messages.
    *rows : Format
        The formats; each suffix belongs to one.
    """

    def __init__(self, kind: str, *rows: Row) -> None:
        self.kind = kind
        self.rows = rows

    @property
    def suffixes(self) -> tuple[str, ...]:
        """All suffixes, in the order of the rows."""
        return tuple(suffix for row in self.rows for suffix in row.suffixes)

    def of(self, path: Path) -> Row:
        """Return the format of a path; `UnknownNameError` names near matches of its suffix."""
        suffix = path.suffix.lower()
        for row in self.rows:
            if suffix in row.suffixes:
                return row
        raise UnknownNameError.among(f"file type of {self.kind}", suffix, self.suffixes)

    def check(self, path: Path) -> None:
        """Raise now what writing to ``path`` would raise later; see `Format.check`."""
        self.of(path).check(path)

    def check_address(self, output: str | os.PathLike[str]) -> None:
        """Raise as `check`; of an object store nothing is requested yet."""
        if is_store(output):
            Store.of(os.fspath(output))
            self.of(Path(output)).require()
        else:
            self.check(path_of(output))


PICTURES = Formats("a picture", Format(name="PNG", suffixes=(".png",), media_type="image/png"))
_PLOT: dict[str, Any] = {"packages": ("matplotlib",), "extra": "plot"}
PLOTS = Formats(
    "a plot",
    Format(name="a plot as PNG", suffixes=(".png",), media_type="image/png", **_PLOT),
    Format(name="a plot as SVG", suffixes=(".svg",), media_type="image/svg+xml", **_PLOT),
    Format(name="a plot as PDF", suffixes=(".pdf",), media_type="application/pdf", **_PLOT),
)
REPORTS = Formats(
    "a report", Format(name="JSON", suffixes=(".json",), media_type="application/json")
)


def unreadable(path: Path, reason: Exception, expected: str) -> ExportError:
    """Return the error for a file that does not hold what was ``expected``."""
    why = f"{type(reason).__name__}: {reason}" if path.exists() else "there is no such file"
    return ExportError(f"cannot read {path} ({why}), expected a file of {expected}")
