"""Refuse what a VRT can do besides showing rasters: read the bytes of any file as pixels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from rs_embed.addresses import ODD_SYSTEMS, check_regular, shown_path
from rs_embed.errors import ImageryError
from rs_embed.files.foreign import check_content, check_opened

# Bytes: of a VRT that is looked at, and of the beginning of a file that may be one.
_MOST, _HEAD = 64_000_000, 1024
_MOST_FILES = 10_000
# Drivers of GDAL whose files show their own content, or what lies beside them.
PLAIN = (
    "GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "HFA", "ENVI", "PNG", "JPEG", "netCDF",
    "HDF5", "HDF5Image", "HDF4", "HDF4Image", "GRIB", "NITF", "SENTINEL2",
)  # fmt: skip
_ARCHIVED = re.compile(r"/vsi(?:zip|tar|gzip|7z|rar)")


def check_vrt(path: str) -> None:
    """Raise `ImageryError` if a VRT, or one among its sources, has raw bands.

    GDAL before version 3.12 has no option against them.
    """
    left, seen = [path], {path}
    while left:
        name = left.pop()
        for value in _values(_content(name)):
            if value.lower() == "vrtrawrasterband":
                raise ImageryError(
                    f"{name!r} has raw bands (VRTRawRasterBand), which show the bytes of any file, "
                    "expected a VRT of rasters; convert the raw file first, with gdal_translate"
                )
            source = os.path.join(os.path.dirname(name), value)
            for part in (value, source):
                try:
                    check_regular(part)
                except OSError as exc:
                    raise ImageryError(f"{name!r} has the source {value[:120]!r}: {exc}") from exc
                if os.path.isfile(part):
                    check_content(part)
            nested = source not in seen and _is_vrt(source)
            odd = value.lower().startswith("vrt://") or ODD_SYSTEMS.search(value) is not None
            if odd or (not nested and _opens_others(source)):
                shown = shown_path(value)[:120]
                raise ImageryError(
                    f"{name!r} has the source {shown!r}, which may be a VRT of anything, "
                    "expected rasters; unpack it, and name the file itself"
                )
            if nested and len(seen) < _MOST_FILES:
                seen.add(source)
                left.append(source)


def _content(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            content = file.read(_MOST + 1)
    except OSError:  # opening it says why
        return b""
    if len(content) > _MOST:
        raise ImageryError(f"{name!r} is a VRT of more than {_MOST:,} bytes; split it")
    return content


def _values(content: bytes | str) -> Iterator[str]:
    """Yield all texts and attributes of XML, and of XML within them."""
    try:
        root = ElementTree.fromstring(content)  # noqa: S314  # expat limits what entities expand to
    except (ElementTree.ParseError, ValueError) as exc:  # GDAL reads more than is XML
        raise ImageryError(
            f"a VRT is not valid XML ({exc}), so that its sources cannot be checked; expected one "
            "such as gdalbuildvrt writes"
        ) from exc
    for element in root.iter():
        for value in (*element.attrib.values(), (element.text or "").strip()):
            if value.startswith("<"):
                yield from _values(value)
            elif value:
                yield value


def _opens_others(source: str) -> bool:
    """Return whether a source is of a format that may show other files."""
    import rasterio
    from rasterio.errors import RasterioIOError
    from rasterio.io import DatasetReader

    if not os.path.isfile(source) and _ARCHIVED.match(source) is None:
        return False
    for drivers in (list(PLAIN), None):
        try:
            with rasterio.Env(), DatasetReader(source, driver=drivers) as dataset:
                check_opened(dataset, source)
                return drivers is None
        except RasterioIOError:
            continue
    return _ARCHIVED.match(source) is not None


def _is_vrt(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return b"<VRTDataset" in file.read(_HEAD)
