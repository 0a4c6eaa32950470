"""One run at a time in a folder."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rs_embed.errors import ExportError, RsEmbedWarning, TrainingError

# What network file systems without locks answer.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Make the folder if it is missing, and hold it against other runs.

    The lock is the system's own, on the folder itself: it ends with the process, however that
    ends, and leaves no file behind. On Windows nothing is held, and neither on file systems
    without such locks, with a warning.

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
        except OSError as exc:
            if exc.errno not in _NO_LOCKS:
                raise ExportError(f"cannot lock the folder {folder}: {exc}") from exc
            warnings.warn(
                f"{folder} lies on a file system without locks: start no second run there",
                RsEmbedWarning,
                stacklevel=3,
            )
        yield
    finally:
        os.close(handle)
