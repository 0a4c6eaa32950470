"""Refuse raster files whose pixels, masks or overviews come from files that they name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rs_embed._optional import install
from rs_embed.addresses import check_beside, local_files, shown_path
from rs_embed.errors import ImageryError

# Beside an image GDAL opens these by what they hold: TIFF and BigTIFF, Erdas Imagine.
_COMPANIONS = (".msk", ".ovr")
_OWN = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"EHFA_HEADER_TAG")
_HDF5, _HDF5_AT = b"\x89HDF\r\n\x1a\n", (0, 512, 1024, 2048, 4096)


def check_content(address: str) -> None:
    """Raise `ImageryError` if what is at a path, or beside it, may show other files."""
    try:
        check_beside(address, image=True)
        for path in local_files(address):
            _check_companions(path)
            if _is_hdf5(path):
                _check_hdf5(path)
    except OSError as exc:
        raise ImageryError(f"cannot read {shown_path(address)!r} as an image: {exc}") from exc


def check_opened(dataset: Any, shown: str) -> None:
    """Raise `ImageryError` if an open file names a file of overviews."""
    if dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE"):
        dataset.close()
        raise ImageryError(
            f"{shown!r} names another file as its overviews, expected a file that shows itself; "
            "make a copy without it: gdal_translate"
        )


def _check_companions(path: Path) -> None:
    names = {f"{path}{suffix}" for suffix in _COMPANIONS}
    names |= {str(path.with_suffix(suffix)) for suffix in _COMPANIONS if path.suffix}
    for name in (*names, *(n[:-4] + n[-4:].upper() for n in names)):
        if os.path.isfile(name) and name != str(path):
            with open(name, "rb") as file:
                own = file.read(16).startswith(_OWN)
            if not own:
                raise ImageryError(
                    f"{name!r} is not a mask or overview that software writes (TIFF, Erdas "
                    f"Imagine), but GDAL would read it with {path.name!r}; remove it"
                )


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        for at in _HDF5_AT:
            file.seek(at)
            if file.read(len(_HDF5)) == _HDF5:
                return True
    return False


def _check_hdf5(path: Path) -> None:
    """Refuse values in other files: external storage, virtual datasets, external links."""
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as exc:
        raise ImageryError(
            f"{str(path)!r} is HDF5 (or netCDF-4), which may show the content of other files, and "
            f"the package that can tell is missing; {install('netcdf')}"
        ) from exc
    elsewhere: list[str] = []

    def look(name: str, link: Any) -> None:
        if isinstance(link, h5py.ExternalLink):
            elsewhere.append(name)
        elif isinstance(link, h5py.HardLink):
            found = file[name]
            if isinstance(found, h5py.Dataset) and (
                found.external or (found.is_virtual and _virtual_elsewhere(found))
            ):
                elsewhere.append(name)

    try:
        with h5py.File(path, "r") as file:
            file.visititems_links(look)
    except (OSError, RuntimeError, KeyError, ValueError) as exc:
        raise ImageryError(f"cannot read {str(path)!r} as HDF5 ({exc})") from exc
    if elsewhere:
        raise ImageryError(
            f"{str(path)!r} has its {elsewhere[0]!r} in another file, expected a file that holds "
            "its values; copy them into it: h5repack"
        )


def _virtual_elsewhere(dataset: Any) -> bool:
    return any(source.file_name != "." for source in dataset.virtual_sources())
