"""Write a map beside its path, and move it into place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rs_embed.errors import ExportError
from rs_embed.files.writing import files_of, sync, sync_name

if TYPE_CHECKING:
    from rs_embed.maps.formats.map_format import MapFormat

# Left free for the item of a map, and for what a file system needs itself.
_SPARE_BYTES = 16 * 2**20


def check_room(path: Path, needed_bytes: int) -> None:
    """Raise `ExportError` if the disk has less room than the numbers take uncompressed."""
    free = shutil.disk_usage(path.parent).free
    if free < needed_bytes + _SPARE_BYTES:
        raise ExportError(
            f"cannot write {path}: it needs up to {needed_bytes / 1e9:.2f} GB and "
            f"{path.parent} has {free / 1e9:.2f} GB free; make room, choose another place, or "
            "store less with dtype='int8' (--dtype int8) or pca= (--pca)"
        )


@contextmanager
def placed(path: Path, form: MapFormat) -> Iterator[Path]:
    """Yield ``.<name>.writing`` beside ``path``, and move it into place if nothing failed.

    It is a file or a folder. The name is always the same, so that the next run removes what a
    killed run left; two runs must not write the same map at once. A store that is replaced stays
    at ``.<name>.old`` until the new one has its name; if a run is killed in between, the next one
    puts it back. Raises `ExportError` if ``path`` cannot be written.
    """
    form.check(path)
    partial, old = path.with_name(f".{path.name}.writing"), path.with_name(f".{path.name}.old")
    try:
        if old.exists() and not path.exists():
            os.replace(old, path)
        for left in (partial, old):
            _remove(left)
        try:
            yield partial
            sync(partial)
            if path.is_dir():
                os.replace(path, old)
            for sidecar in form.beside(path):  # statistics or overviews of the old map
                sidecar.unlink()
            os.replace(partial, path)
            sync_name(path)
        except BaseException:
            # Threads of an interrupted writer may still add files to what is removed here; the
            # error is that of the writer, and the next run removes the rest.
            shutil.rmtree(partial, ignore_errors=True)
            with suppress(OSError):
                partial.unlink()
            raise
        _remove(old)
    except ExportError:
        raise
    except OSError as exc:
        raise ExportError(f"cannot write {path}: {exc}; choose another place") from exc


def size_bytes(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in files_of(path))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
