"""Where a map is written: room on the disk, a name beside it, and the step into its place."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rs_embed.errors import ExportError, ImageryError, UnknownNameError
from rs_embed.files.embeddings import check_place
from rs_embed.files.gdal import open_file, quietly
from rs_embed.maps.formats.provenance import ITEM_KEY, META_KEY, META_TAG

MAP_SUFFIXES = (".zarr", ".tif", ".tiff")
_SIDECARS = (".aux.xml", ".ovr", ".msk")
# Left free beside what a map needs: its item, and what a file system keeps for itself.
_SPARE_BYTES = 16 * 2**20


def check_map_place(path: Path) -> None:
    """Raise before any work is done if a map cannot be written there later.

    Raises
    ------
    UnknownNameError
        If its suffix is not one of `MAP_SUFFIXES`.
    ExportError
        If there is no such folder, it is read-only, or what is there, map or item, is not ours.
    """
    if path.suffix.lower() not in MAP_SUFFIXES:
        raise UnknownNameError.among("file type of a map", path.suffix, MAP_SUFFIXES)
    is_store = path.suffix.lower() == ".zarr" and (path / "zarr.json").is_file()
    if not is_store:
        check_place(path)
    elif META_KEY not in _content(path / "zarr.json", "attributes"):
        raise ExportError(f"cannot write {path}: it is a store of others; choose another name")
    if path.is_file() and path.suffix.lower() == ".zarr":
        raise ExportError(f"cannot write {path}: it is a file; choose another name")
    if path.is_file() and path.stat().st_size:
        _check_own_image(path)
    item = item_path(path)
    check_place(item)
    if item.exists() and ITEM_KEY not in _content(item, "properties"):
        raise ExportError(
            f"cannot write {item}, which describes the map: it is a file of others; choose another "
            "name for the map"
        )
    for sidecar in [] if path.exists() else _sidecars(path):
        raise ExportError(
            f"cannot write {path}: {sidecar.name} beside it would be read with it; remove that, or "
            "choose another name"
        )
    if not os.access(path.parent, os.W_OK):
        raise ExportError(f"cannot write {path}: {path.parent} is read-only; choose another place")


def item_path(map_path: Path) -> Path:
    """Return the path of the item of a map: its name with ``.json``."""
    return map_path.with_name(f"{map_path.name}.json")


def _content(path: Path, name: str) -> dict[str, Any]:
    """Return an object within a JSON file; an empty one where it is unreadable."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    inner = content.get(name) if isinstance(content, dict) else None
    return inner if isinstance(inner, dict) else {}


def _check_own_image(path: Path) -> None:
    try:
        with quietly(), open_file(str(path)) as dataset:
            is_own = META_TAG in dataset.tags()
    except ImageryError as exc:
        raise ExportError(
            f"cannot write {path}: what is there cannot be read, so nobody knows whose it is "
            f"({exc.__cause__}); delete it, or choose another name"
        ) from exc
    if not is_own:
        raise ExportError(f"cannot write {path}: it is no map of rs_embed; choose another name")


def _sidecars(path: Path) -> list[Path]:
    """Return the files beside an image that GDAL would read with it."""
    beside = (path.with_name(f"{path.name}{suffix}") for suffix in _SIDECARS)
    return [file for file in beside if file.is_file()] if path.suffix.lower() != ".zarr" else []


def check_room(path: Path, needed_bytes: int) -> None:
    """Raise before writing if the disk has less room than the numbers take uncompressed.

    Raises
    ------
    ExportError
        If so.
    """
    free = shutil.disk_usage(path.parent).free
    if free < needed_bytes + _SPARE_BYTES:
        raise ExportError(
            f"cannot write {path}: it needs up to {needed_bytes / 1e9:.2f} GB and "
            f"{path.parent} has {free / 1e9:.2f} GB free; make room, choose another place, or "
            "store less with dtype='int8' (--dtype int8) or pca= (--pca)"
        )


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Give ``.<name>.writing`` beside ``path``, and put it in place when all went well.

    It is a file or a folder. A name that is always the same means that what a killed run left is
    removed by the next one. Two runs must not write the same map at once. A store that is
    replaced stays at ``.<name>.old`` until the new one has its name; a run that is killed between
    the two steps is mended by the next.

    Raises
    ------
    ExportError
        If the place cannot be written.
    """
    check_map_place(path)
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
            for sidecar in _sidecars(path):  # statistics or overviews of the map that was there
                sidecar.unlink()
            os.replace(partial, path)
            sync_name(path)
        except BaseException:
            # What failed is what counts: threads of an interrupted writer may still add files to
            # what is removed here, and the next run removes what is left.
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
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def sync(path: Path) -> None:
    """Return when a file, or all files of a folder, are on the disk.

    What finished windows are kept for must survive a power cut before they are let go.
    """
    for file in [at for at in path.rglob("*") if at.is_file()] if path.is_dir() else [path]:
        with file.open("rb+") as opened:
            os.fsync(opened)


def sync_name(path: Path) -> None:
    """Return when the name of a file is on the disk; Windows has no way to ask for that."""
    if sys.platform != "win32":
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
