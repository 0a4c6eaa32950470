"""The file of one entry of the cache: complete or absent, and checked when it is read."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.raster import Raster

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = re.compile(r"[0-9a-f]{64}\.patch")
FORMAT = 1
# An entry begins with this, the BLAKE2b digest of all that follows (64 hexadecimal digits) and
# a line of JSON; the bytes of two arrays follow.
_KIND = b"rs_embed patch "
_MAGIC = _KIND + b"%d " % FORMAT


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
        return {**stated, **(dict.fromkeys(names) if self.key is None else _place(self.key))}


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
        **key["temporal"],
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


def read(path: Path) -> tuple[dict[str, Any], NDArray[Any], NDArray[np.bool_]] | None:
    """Return head, data and valid of an entry; None if a single bit has changed.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(len(_MAGIC) + 65)
        if not start.startswith(_MAGIC) or not start.endswith(b"\n"):
            return None
        head = file.readline()
        pixels = np.empty(os.fstat(file.fileno()).st_size - file.tell(), np.uint8)
        if file.readinto(pixels.data) != pixels.size:
            return None
    digest = _digest(head)
    digest.update(pixels.data)
    if digest.hexdigest().encode() != start[len(_MAGIC) : -1]:
        return None
    content = json.loads(head)
    shape = tuple(content["shape"])
    count = pixels.size - math.prod(shape[1:])
    data = pixels[:count].view(np.dtype(content["dtype"])).reshape(shape)
    return content, data, pixels[count:].view(np.bool_).reshape(shape[1:])


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
            file.readline()
            head = json.loads(file.readline())
        fetched, key = datetime.fromisoformat(head["fetched"]), head["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return Entry(path, status.st_size, used, used, None)
    return Entry(path, status.st_size, used, fetched, key)
