"""Maps of classes: one number for each cell, a colour and a name for each number."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np

from rs_embed.errors import ExportError
from rs_embed.files.formats import Format, Formats
from rs_embed.files.writing import written
from rs_embed.maps.sampling import PlacedMap, valid_cells

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

CLASS_NODATA = 255
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
CLASS_MAPS = Formats(
    "a map of classes", Format(name="GeoTIFF", suffixes=(".tif", ".tiff"), media_type=_COG)
)
# Nine colours that people with any colour vision tell apart: "muted" of Paul Tol, Colour Schemes,
# SRON/EPS/TN/09-002, issue 3.2 (2021), https://personal.sron.nl/~pault/
MUTED = (
    "#332288", "#ddcc77", "#117733", "#cc6677", "#88ccee", "#882255", "#44aa99", "#999933",
    "#aa4499",
)  # fmt: skip
_GOLDEN = 0.618034  # hues that are such steps apart differ, however many they are


def class_map(
    placed: PlacedMap,
    predict: Callable[[NDArray[Any]], tuple[NDArray[np.uint8], NDArray[np.bool_]]],
    *,
    mask_outside: bool,
) -> tuple[xr.DataArray, float]:
    """Return the classes of a map, and the share of its tokens that are outside the domain."""
    codes = np.full(placed.grid.shape, CLASS_NODATA, np.uint8)
    seen, beyond = 0, 0
    for cells, tokens in valid_cells(placed):
        if len(tokens):
            found, outside = predict(tokens)
            codes[cells] = np.where(outside, CLASS_NODATA, found) if mask_outside else found
            seen, beyond = seen + len(tokens), beyond + int(outside.sum())
    return as_classes(placed, codes), beyond / max(seen, 1)


def as_classes(placed: PlacedMap, codes: NDArray[np.uint8]) -> xr.DataArray:
    """Return codes ``(y, x)`` in the place of a map; 255 stands for no class."""
    array: xr.DataArray = placed.array.isel(d=0, drop=True).copy(data=codes).rename("class")
    array.attrs, array.encoding = {}, {}
    stated: xr.DataArray = array.rio.write_nodata(CLASS_NODATA)
    return stated


def described(classes: Sequence[Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a map of classes: their names as in CF, and how it was made."""
    return {
        "long_name": "class",
        "flag_values": np.arange(len(classes), dtype=np.uint8),
        "flag_meanings": " ".join("_".join(str(name).split()) for name in classes),
        "classes": json.dumps(classes),
        "meta": json.dumps(meta),
    }


def _colours(count: int) -> list[tuple[int, ...]]:
    """Return a colour for each class: red, green, blue."""
    if count <= len(MUTED):
        return [tuple(bytes.fromhex(text[1:])) for text in MUTED[:count]]
    hues = (number * _GOLDEN % 1 for number in range(count))
    return [tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.65, 0.75)) for hue in hues]


def write_class_map(path: Path, array: xr.DataArray) -> None:
    """Write a map of classes as a cloud-optimised GeoTIFF with a colour table.

    GeoTIFF has no place for names of classes: GDAL and QGIS read them from ``<path>.aux.xml``.
    """
    import rasterio
    from rasterio import shutil
    from rasterio.errors import RasterioError

    classes = json.loads(array.attrs["classes"])
    colours = dict(enumerate(_colours(len(classes))))
    names = path.with_name(f"{path.name}.aux.xml")
    names.unlink(missing_ok=True)  # those of an older map
    height, width = array.shape
    try:
        with rasterio.MemoryFile() as memory, written(path) as partial:
            with memory.open(
                driver="GTiff", dtype="uint8", count=1, height=height, width=width,
                nodata=CLASS_NODATA, crs=array.rio.crs, transform=array.rio.transform(),
            ) as file:  # fmt: skip
                file.write(array.values, 1)
                file.write_colormap(1, colours)
                file.set_band_description(1, "class")
                file.update_tags(1, classes=array.attrs["classes"])
                file.update_tags(RS_EMBED_CLASSIFICATION=array.attrs["meta"])
            with memory.open() as file:
                shutil.copy(file, partial, driver="COG", compress="DEFLATE", resampling="mode")
    except RasterioError as exc:
        raise ExportError(f"cannot write {path}: {exc}; is the disk full?") from exc
    categories = "".join(f"<Category>{escape(str(name))}</Category>" for name in classes)
    band = f'<PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames></PAMRasterBand>'
    with written(names) as partial:
        partial.write_text(f"<PAMDataset>{band}</PAMDataset>\n", encoding="utf-8")
