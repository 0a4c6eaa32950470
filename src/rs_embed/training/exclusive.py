"""One run at a time in a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rs_embed.errors import ExportError, TrainingError


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Make the folder if it is missing, and hold it against other runs.

    The lock is the system's own, on the folder itself: it ends with the process, however that
    ends, and leaves no file behind. On Windows, and on file systems without such locks, nothing
    is held.

    Raises
    ------
    TrainingError
        If another run holds it.
    ExportError
        If the folder cannot be made or opened.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ExportError(f"cannot make the folder {folder}: {exc}; choose another one") from exc
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as exc:
        raise ExportError(f"cannot open the folder {folder}: {exc}; choose another one") from exc
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise TrainingError(
                f"another run is using {folder}; wait for its end, or take another run.folder"
            ) from exc
        except OSError:  # some network file systems have no locks
            pass
        yield
    finally:
        os.close(handle)
