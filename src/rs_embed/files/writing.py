"""Write files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rs_embed.errors import ExportError


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to, and move it into place if nothing failed.

    Raises
    ------
    ExportError
        If the folder is missing or cannot be written, or the disk is full.
    """
    check_place(path)
    partial = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
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
