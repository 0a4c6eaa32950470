"""Write files that appear whole or not at all."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rs_embed.errors import ExportError


@contextmanager
def written(path: Path, *, alone: bool = False) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to, and move it into place if nothing failed.

    At the end the file and its name are on the disk, so that they survive a power cut. ``alone``
    says that a lock keeps other processes from writing it at once: then what a killed one has left
    is replaced.

    Raises
    ------
    ExportError
        If the folder is missing or cannot be written, or the disk is full.
    """
    check_place(path)
    name = f".{path.stem}.writing" if alone else f".{uuid.uuid4().hex}"
    partial = path.with_name(f"{name}{path.suffix}")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync_name(path)
    except ExportError:
        raise
    except OSError as exc:
        raise ExportError(f"cannot write {path}: {exc}; choose another place") from exc
    finally:
        partial.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Raise `ExportError` if ``path`` is a folder, is too long, or its folder is not writable."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as exc:
        raise ExportError(f"cannot write {str(path)!r}: {exc}; choose another name") from exc
    if path.is_dir() or not path.parent.is_dir():
        what = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise ExportError(f"cannot write {path}: {what}; choose another place")
    if not os.access(path.parent, os.W_OK):
        raise ExportError(f"cannot write {path}: {path.parent} is read-only; choose another place")


def sync(path: Path) -> None:
    """Return when a file, or all files of a folder, are on the disk.

    A result must survive a power cut before what it was made from is removed.
    """
    for file in files_of(path):
        with file.open("rb+") as opened:
            os.fsync(opened)


def sync_name(path: Path) -> None:
    """Return when the name of a file is on the disk; Windows cannot tell."""
    if sys.platform != "win32":
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def files_of(path: Path) -> list[Path]:
    """Return a file, or all files of a folder."""
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
