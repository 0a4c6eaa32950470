"""A format of maps in one file, as somebody would add it: NumPy archives named ``.npzmap``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from rs_embed.errors import ExportError
from rs_embed.files.writing import check_place
from rs_embed.maps.formats.content import MapContent
from rs_embed.maps.formats.encoding import FittedEncoding
from rs_embed.maps.formats.map_format import MapFormat, decoded_map, meta_text, not_a_map
from rs_embed.maps.formats.paths import placed


def write_npz(path: Path, content: MapContent, encoding: FittedEncoding) -> None:
    grid = content.grid
    assert grid.crs is not None
    whole = np.concatenate(list(content.strips(content.rows_at_once)))
    with placed(path, NPZ) as partial, partial.open("wb") as file:
        np.savez(
            file, tokens=encoding.encode(whole), meta=meta_text(content, encoding),
            crs=grid.crs.to_wkt(), transform=tuple(grid.transform),
        )  # fmt: skip


def open_npz(path: Path) -> xr.DataArray:
    from affine import Affine

    try:
        with np.load(path) as stored:
            tokens, (meta, crs) = stored["tokens"], (str(stored[k]) for k in ("meta", "crs"))
            transform = Affine(*stored["transform"])
    except (OSError, ValueError, KeyError) as exc:
        raise not_a_map(path, "it is not an archive with a map") from exc
    height, width = tokens.shape[:2]
    array = xr.DataArray(
        tokens.transpose(2, 0, 1), dims=("d", "y", "x"),
        coords={
            "x": transform.c + transform.a * (np.arange(width) + 0.5),
            "y": transform.f + transform.e * (np.arange(height) + 0.5),
        },
    )  # fmt: skip
    return decoded_map(array.rio.write_crs(crs).rio.write_transform(transform), meta, None, None)


def check_replaced(path: Path) -> None:
    check_place(path)
    if path.is_file() and not path.read_bytes().startswith(b"PK"):
        raise ExportError(f"cannot write {path}: it is not an archive; choose another name")


NPZ = MapFormat(
    name="a map in NumPy",
    suffixes=(".npzmap",),
    media_type="application/x-npzmap",
    write=write_npz,
    open=open_npz,
    check_replaced=check_replaced,
    sidecars=(".note",),
)
