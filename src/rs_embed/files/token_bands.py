"""Read GeoTIFFs of tokens as their headers describe them: nodata, scales and names of bands."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import GridError, SpecError
from rs_embed.files.vrt import check_vrt

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

_NAME = re.compile(r"(?:dimension|component) (\d+)")


@dataclass(frozen=True, eq=False)
class TokenBands:
    """The bands of a GeoTIFF, without alpha: a token is ``stored * scale + offset``.

    ``stored`` is ``(d, y, x)``, read when it is used, NaN where nodata or a mask says so, and has
    the coordinate ``d`` if all bands are named after a dimension. ``masked`` is whether there is
    nodata or a mask.
    """

    stored: xr.DataArray
    scales: NDArray[np.float64]
    offsets: NDArray[np.float64]
    dtype: np.dtype[Any]
    masked: bool
    tags: dict[str, str]

    @property
    def scaled(self) -> bool:
        """Whether a scale or an offset changes a value."""
        return bool((self.scales != 1).any() or self.offsets.any())

    def tokens(self, **chunks: int) -> xr.DataArray:
        """Return ``(d, y, x)`` float32, scaled; read by dask if there are ``chunks``."""
        import xarray as xr

        array = self.stored.chunk(chunks) if chunks else self.stored.load()
        if self.scaled:
            scale, offset = (xr.DataArray(of, dims="d") for of in (self.scales, self.offsets))
            array = array.astype(np.float64) * scale + offset
        return array.astype(np.float32)

    def check_type(self) -> None:
        """Raise `SpecError` if these are whole numbers without a scale."""
        if self.dtype.kind != "f" and not self.scaled:
            raise SpecError(
                f"got {self.dtype} values without a scale, expected tokens: other software "
                "rounded them; convert the original file without changing its type"
            )


def band_names(count: int, kind: str = "dimension") -> list[str]:
    """Return the names of the bands of a file that holds all dimensions."""
    return [f"{kind} {number}" for number in range(count)]


def open_bands(path: str | os.PathLike[str], **chunks: int) -> TokenBands:
    """Return the bands of a file, whose alpha dask applies in ``chunks``, if any.

    Raises `RasterioError` if GDAL cannot open it, and `GridError` if it is rotated.
    """
    import rasterio
    import rioxarray
    from rasterio.enums import ColorInterp, MaskFlags
    from rasterio.errors import NotGeoreferencedWarning

    if os.path.splitext(path)[1].lower() == ".vrt":
        check_vrt(os.fspath(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.filterwarnings("ignore", message="(Scales|Offsets) differ across bands")
        with rasterio.open(path) as file:
            is_alpha = np.array(file.colorinterp) == ColorInterp.alpha
            kept, alpha = (np.flatnonzero(of).tolist() for of in (~is_alpha, is_alpha))
            texts, masks = file.descriptions, file.mask_flag_enums  # of all bands, each time
            names = [_NAME.fullmatch(texts[i] or "") for i in kept]
            scales, offsets = np.array([file.scales, file.offsets], np.float64)[:, kept]
            unmasked = any(MaskFlags.all_valid in masks[i] for i in kept)
            dtype, tags, transform = np.dtype(file.dtypes[0]), file.tags(), file.transform
            unplaced = transform.is_identity and file.crs is not None
        if unplaced or transform.b or transform.d:
            fix = "convert the original file again" if unplaced else "warp the file with gdalwarp"
            raise GridError(
                f"got the transform {tuple(transform)[:6]}, expected one that is stated and not "
                f"rotated; {fix}"
            )
        opened: Any = rioxarray.open_rasterio(path, masked=True)
    array = opened.drop_vars("band").rename(band="d")
    if alpha:  # GDAL heeds it in bytes only
        array = array.chunk(chunks) if chunks else array
        array = array.isel(d=kept).where(array.isel(d=alpha[0]) > 0)
    if all(names):
        array = array.assign_coords(d=[int(name[1]) for name in names if name])
    return TokenBands(array, scales, offsets, dtype, bool(alpha) or not unmasked, tags)
