"""One image of a set, from a file or its bytes: 8-bit red, green, blue, and its ground metres."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rs_embed.addresses import check_regular
from rs_embed.embedding.checks import check_values, without_odd
from rs_embed.embedding.source import DEFAULT_REFLECTANCE
from rs_embed.errors import DatasetError, GridError, ImageryError
from rs_embed.files.imagery import read_imagery
from rs_embed.files.rasters import is_georeferenced, read_header
from rs_embed.geo.nearest import filled, nearest_valid
from rs_embed.geo.raster import Raster
from rs_embed.models.scalemae.preparation import to_uint8

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Below this share of valid pixels an image shows mostly what was filled in.
MIN_VALID = 0.5
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BANDS = ("B4", "B3", "B2")
_TO_8_BIT = "convert it to 8-bit red, green, blue, or make it georeferenced reflectance"


class TooLittleValid(DatasetError):  # noqa: N818  # callers may leave such an image out
    """Less than half of an image is valid."""


def read_picture(
    content: Path | bytes, name: str, gsd_m: float | None
) -> tuple[NDArray[np.uint8], float]:
    """Return an image as it is displayed, and its ground metres per pixel.

    The image is ``(height, width, 3)`` uint8: red, green, blue. Grey becomes three equal bands;
    where alpha or nodata marks a pixel as missing, it gets the colour of the nearest valid one.
    Georeferenced TIFFs are measured on the ground; 8-bit ones stay as they are, others are
    reflectance (digital numbers 0..10000 unless they declare a scale), of which 0..0.3 becomes
    0..255.

    Parameters
    ----------
    content : Path or bytes
        The file, or its content.
    name : str
        Its name in messages.
    gsd_m : float or None
        Ground metres per pixel; None if only the georeference may state them.

    Raises
    ------
    DatasetError
        If it cannot be read, has no definite red, green and blue, is less than half valid, or
        its metres are unknown or contradict ``gsd_m``.
    """
    with _named(name):
        if isinstance(content, Path):
            check_regular(content)
        if _is_tiff(content):
            with _on_disk(content) as path:
                if is_georeferenced(path):
                    return _georeferenced(path, name, gsd_m)
        image = _displayed(content, name)
    if gsd_m is None:
        raise DatasetError(
            f"{name!r} has no georeference, so its ground metres per pixel are unknown; pass "
            "them as gsd_m"
        )
    return image, float(gsd_m)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn failures of one image into ours, with its name."""
    try:
        yield
    except (GridError, ImageryError) as exc:
        raise DatasetError(f"{name!r}: {exc}") from exc
    except UnidentifiedImageError as exc:
        raise DatasetError(
            f"{name!r} is not an image that can be read; replace it or remove it from the set"
        ) from exc
    except Image.DecompressionBombError as exc:
        raise DatasetError(f"{name!r} is too large to be opened ({exc}); cut it first") from exc
    except DatasetError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as exc:  # of Pillow, for broken files
        raise DatasetError(
            f"{name!r} cannot be read ({exc}); it may be truncated: copy it again or remove "
            "it from the set"
        ) from exc


def _is_tiff(content: Path | bytes) -> bool:
    if isinstance(content, bytes):
        return content.startswith(_TIFF)
    with content.open("rb") as file:
        return file.read(4) in _TIFF


@contextmanager
def _on_disk(content: Path | bytes) -> Iterator[str]:
    """Yield a path that GDAL can open."""
    if isinstance(content, Path):
        yield os.fspath(content)
        return
    from rasterio import MemoryFile

    with MemoryFile(content, ext=".tif") as file:
        yield file.name


def _georeferenced(path: str, name: str, stated: float | None) -> tuple[NDArray[np.uint8], float]:
    from rs_embed.geo.grid import gsd_m

    header = read_header(path)
    eight_bit = set(header.dtypes) == {"uint8"}
    # An 8-bit image may have true black, so that only what it declares is nodata.
    fill_value = math.nan if eight_bit and set(header.nodatavals) == {None} else None
    raster = read_imagery(path, bands=_BANDS, spatial=None, fill_value=fill_value)
    measured = gsd_m(raster.grid)
    if stated is not None and abs(stated / measured - 1) > 0.01:
        raise DatasetError(
            f"got gsd_m={stated:g}, but a pixel of {name!r} covers {measured:.6g} m on the ground; "
            "leave gsd_m out, or correct the georeference"
        )
    _check_valid(raster.valid, name)
    if eight_bit:
        return _filled(raster.data.transpose(1, 2, 0), raster.valid), measured
    return _reflectance(raster), measured


def _reflectance(raster: Raster) -> NDArray[np.uint8]:
    units = raster.reflectance or DEFAULT_REFLECTANCE
    vouched = raster.reflectance is not None
    check_values(raster, reflectance=units, min_valid=MIN_VALID, vouched=vouched)
    usable, _ = without_odd(raster, units)
    return to_uint8(filled(usable.data, usable.valid), units, "visual")


def _displayed(content: Path | bytes, name: str) -> NDArray[np.uint8]:
    """Return the red, green and blue of a picture without georeference."""
    source: Any = io.BytesIO(content) if isinstance(content, bytes) else content
    with Image.open(source) as opened:
        frames = getattr(opened, "n_frames", 1)
        if frames > 1 and opened.format in ("PNG", "TIFF", "WEBP"):
            raise DatasetError(
                f"{name!r} contains {frames} images, expected one; save the one to use"
            )
        _check_depth(opened, name)
        image = ImageOps.exif_transpose(opened)
    if "transparency" in image.info:  # a colour that stands for nothing, in a palette or not
        image = image.convert("RGBA")
    if image.mode == "P":
        image = image.convert("RGB")
    if image.mode in ("LA", "RGBA"):
        return _without_alpha(np.asarray(image.convert("RGBA")), name)
    if image.mode not in ("1", "L", "RGB"):
        raise DatasetError(
            f"{name!r} has the mode {image.mode!r} of Pillow, expected red, green, blue or grey of "
            f"8 bits; {_TO_8_BIT}"
        )
    return np.array(image.convert("RGB"))


def _check_depth(image: Image.Image, name: str) -> None:
    """Raise for more than 8 bits a band, of which Pillow would silently keep the upper eight."""
    for *_, arguments in getattr(image, "tile", ()):
        raw_mode = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
        if "16" in str(raw_mode):
            raise DatasetError(
                f"{name!r} has 16 bits a band, and nothing says which value is white; {_TO_8_BIT}"
            )


def _without_alpha(pixels: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    alpha = pixels[..., 3]
    if not np.isin(alpha, (0, 255)).all():
        raise DatasetError(
            f"{name!r} is partly transparent, so its colours depend on what is behind it; save it "
            "without alpha"
        )
    _check_valid(alpha == 255, name)
    return _filled(pixels[..., :3], alpha == 255)


def _check_valid(valid: NDArray[np.bool_], name: str) -> None:
    share = float(valid.mean())
    if share < MIN_VALID:
        raise TooLittleValid(
            f"{share:.0%} of {name!r} is valid, expected at least {MIN_VALID:.0%}; remove it "
            "from the set"
        )


def _filled(image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image if valid.all() else image[nearest_valid(valid)])
