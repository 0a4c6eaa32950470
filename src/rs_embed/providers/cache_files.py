"""The file of one entry of the cache: complete or absent, and checked when it is read."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from rs_embed.addresses import DOCUMENT_BYTES, check_regular
from rs_embed.files.formats import UNREADABLE
from rs_embed.geo.grid import MAX_PIXELS, Grid, known_crs
from rs_embed.geo.raster import Raster

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEAD = {
    "key": dict, "fetched": str, "dtype": str, "shape": list, "bands": list,
    "reflectance": list | None, "source": dict, "notes": list,
}  # fmt: skip
_DTYPE = re.compile(r"[<>|=]?(?:[iu][1248]|f[248])")
NAME = re.compile(r"[0-9a-f]{64}\.patch")
FORMAT = 1
# An entry begins with this, the BLAKE2b digest of all that follows (64 hexadecimal digits) and
# a line of JSON; the bytes of two arrays follow.
_KIND = b"rs_embed patch "
_MAGIC = _KIND + b"%d " % FORMAT


class UntrustedError(OSError):
    """Others can write an entry."""


@dataclass(frozen=True)
class Entry:
    """A file of the cache, from its first lines."""

    path: Path
    size: int  # bytes
    used: datetime  # last served or written, UTC
    fetched: datetime  # UTC; as `used` if the file is damaged
    key: Mapping[str, Any] | None  # see `CachedProvider.key`; None if the file is damaged

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON values; place and period are None where it is damaged."""
        stated: dict[str, Any] = {
            "file": self.path.name,
            "fetched": self.fetched.isoformat(timespec="seconds"),
            "used": self.used.isoformat(timespec="seconds"),
            "bytes": self.size,
        }
        names = ("provider", "lon", "lat", "height_px", "width_px", "pixel_size", "start", "end")
        try:
            place = dict.fromkeys(names) if self.key is None else _place(self.key)
        except UNREADABLE:
            place = dict.fromkeys(names)  # of a key that is not one of `CachedProvider`
        return {**stated, **place}


def _place(key: Mapping[str, Any]) -> dict[str, Any]:
    height, width = key["grid"]["shape"]
    transform = Affine(*key["grid"]["transform"])
    grid = Grid(known_crs(key["grid"]["crs"]), transform, (height, width))
    # The middle pixel, or two: the bounds of a large grid are not a rectangle in degrees.
    middle = grid.enlarged(2 - height % 2, 2 - width % 2)
    west, south, east, north = middle.geographic_bounds()
    return {
        "provider": key["provider"],
        "lon": round((west + east) / 2, 5),
        "lat": round((south + north) / 2, 5),
        "height_px": height,
        "width_px": width,
        "pixel_size": transform.a,
        "start": key["temporal"]["start"],
        "end": key["temporal"]["end"],
    }


def name_of(key: Mapping[str, Any]) -> str:
    """Return the name of the file that holds what ``key`` determines."""
    return f"{hashlib.sha256(_canonical(key)).hexdigest()}.patch"


def _canonical(value: Any) -> bytes:
    # Floats are written by repr, which is exact.
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _digest(start: bytes) -> hashlib.blake2b:
    # SHA-256 takes twice as long on processors without instructions for it.
    return hashlib.blake2b(start, digest_size=32)


def parts_of(key: Mapping[str, Any], raster: Raster) -> tuple[bytes, memoryview, memoryview]:
    """Return the content of an entry's file in parts; pixels are not copied."""
    head = _canonical(
        {
            "key": key,
            "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
            "dtype": raster.data.dtype.str,
            "shape": raster.data.shape,
            "bands": raster.bands,
            "reflectance": raster.reflectance,
            "source": dict(raster.source),
            "notes": raster.notes,
        }
    )
    head += b"\n"
    data, valid = _bytes_of(raster.data), _bytes_of(raster.valid)
    digest = _digest(head)
    digest.update(data)
    digest.update(valid)
    return _MAGIC + digest.hexdigest().encode() + b"\n" + head, data, valid


def _check_own(entry: os.stat_result, folder: os.stat_result) -> None:
    """Raise `UntrustedError` if others wrote or can write an entry, or put it in the folder."""
    if not hasattr(os, "geteuid"):  # Windows
        return
    if entry.st_uid != os.geteuid():
        raise UntrustedError(f"the user {entry.st_uid} wrote some, and you are {os.geteuid()}")
    # In folders with the sticky bit, such as /tmp, only its owner can replace a file.
    own = folder.st_mode & stat.S_ISVTX
    for mode, which in ((entry.st_mode, "some of them"), (0 if own else folder.st_mode, "it")):
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UntrustedError(f"other users can write {which} (mode {stat.S_IMODE(mode):o})")


def read(
    path: Path, key: Mapping[str, Any], grid: Grid, *, shared: bool
) -> tuple[dict[str, Any], NDArray[Any], NDArray[np.bool_]] | None:
    """Return head, data and valid of an entry; None if it is not exactly one of ours for ``key``.

    ``grid`` is that of the key; ``shared`` allows entries that other users can write.

    Raises
    ------
    OSError
        If it cannot be read; `UntrustedError` if others can write it.
    """
    check_regular(path)
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not shared:
            _check_own(status, os.stat(path.parent))
        start = file.read(len(_MAGIC) + 65)
        if not start.startswith(_MAGIC) or not start.endswith(b"\n"):
            return None
        line = file.readline(DOCUMENT_BYTES)
        head = _head(line)
        if head is None or head["key"] != key or head["shape"][1:] != list(grid.shape):
            return None
        shape, dtype = tuple(head["shape"]), np.dtype(head["dtype"])
        count = math.prod(shape) * dtype.itemsize
        size = count + math.prod(shape[1:])
        if status.st_size != file.tell() + size:
            return None
        pixels = np.empty(size, np.uint8)
        if file.readinto(pixels.data) != size:
            return None
    digest = _digest(line)
    digest.update(pixels.data)
    if digest.hexdigest().encode() != start[len(_MAGIC) : -1] or pixels[count:].max() > 1:
        return None
    data = pixels[:count].view(dtype).reshape(shape)
    return head, data, pixels[count:].view(np.bool_).reshape(shape[1:])


def _head(line: bytes) -> dict[str, Any] | None:
    """Return the head of an entry; None if it is not one that `parts_of` writes."""
    try:
        head = json.loads(line)
        if not isinstance(head, dict) or head.keys() != _HEAD.keys():
            return None
        if not all(isinstance(head[name], kind) for name, kind in _HEAD.items()):
            return None
        units = head["reflectance"] or [1, 0]
        texts = [*head["bands"], *head["notes"]]
        numbers = (
            all(type(side) is int and 0 < side <= MAX_PIXELS for side in head["shape"])
            and all(type(one) in (int, float) and math.isfinite(one) for one in units)
        )  # fmt: skip
        whole = len(head["shape"]) == 3 and len(head["bands"]) == head["shape"][0]
        stated = _DTYPE.fullmatch(head["dtype"])
        dated = datetime.fromisoformat(head["fetched"]).tzinfo is not None
    except (ValueError, RecursionError, OverflowError):
        return None
    plain = numbers and len(units) == 2 and all(isinstance(text, str) for text in texts)
    return head if plain and whole and stated and dated else None


def is_ours(path: str | PathLike[str]) -> bool:
    """Return whether a file is an entry, or the beginning of one; False if it is gone."""
    try:
        with open(path, "rb") as file:
            start = file.read(len(_KIND))
    except OSError:
        return False
    return _KIND.startswith(start)


def entry_of(path: Path, status: os.stat_result) -> Entry | None:
    """Return the entry that the first lines of a file describe; None if it is not ours."""
    if not is_ours(path):
        return None
    used = datetime.fromtimestamp(min(status.st_mtime, time.time()), UTC)
    try:
        with path.open("rb") as file:
            file.readline(DOCUMENT_BYTES)
            head = _head(file.readline(DOCUMENT_BYTES))
    except OSError:
        head = None
    if head is None:
        return Entry(path, status.st_size, used, used, None)
    return Entry(path, status.st_size, used, datetime.fromisoformat(head["fetched"]), head["key"])
