"""Pixels with their bands, validity and georeference."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from rs_embed.errors import ImageryError
from rs_embed.geo.grid import Grid, known_crs

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Raster:
    """An image: values, valid pixels, band names and grid.

    Parameters
    ----------
    data : numpy.ndarray
        ``(bands, height, width)``, any integer or floating dtype, raw values of the source.
    valid : numpy.ndarray
        ``(height, width)`` bool, True where all bands are usable.
    bands : tuple of str
        Name of each band.
    grid : Grid
        Georeference of the pixels; its shape is ``(height, width)``.
    reflectance : tuple of float or None
        (scale, offset) declared by the source, None if it declares none.
    source : mapping
        Provenance of the pixels, as JSON values for ``Embedding.meta``.
    notes : tuple of str
        Assumptions and omissions in reading the pixels; each becomes an `ImageryWarning`.

    Raises
    ------
    ImageryError
        If the array is empty or not a real-valued ``(bands, height, width)``, or shapes differ.
    """

    data: NDArray[Any]
    valid: NDArray[np.bool_]
    bands: tuple[str, ...]
    grid: Grid
    reflectance: tuple[float, float] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", check_pixels(self.data, len(self.bands)))
        object.__setattr__(self, "valid", np.asarray(self.valid))
        if self.valid.shape != self.data.shape[1:] or self.valid.dtype != np.bool_:
            raise ImageryError(
                f"got valid of shape {self.valid.shape} and dtype {self.valid.dtype}, expected "
                f"bool of shape {self.data.shape[1:]}"
            )
        if tuple(self.grid.shape) != self.data.shape[1:]:
            raise ImageryError(
                f"got a grid of shape {tuple(self.grid.shape)}, expected {self.data.shape[1:]}"
            )
        if self.data.dtype.kind == "f" and not np.isfinite(self.data[:, self.valid]).all():
            raise ImageryError(
                "got NaN or infinite pixels that are marked valid; build the raster with "
                "Raster.from_array, or exclude them from valid"
            )
        scale, offset = self.reflectance or (1, 0)
        if not (np.isfinite([scale, offset]).all() and scale > 0):
            raise ImageryError(
                f"the imagery declares scale {scale} and offset {offset}, expected a scale above 0 "
                "and finite numbers; correct it, e.g. gdal_edit -scale 0.0001 -offset 0"
            )
        try:
            json.dumps(dict(self.source))
        except TypeError as exc:
            raise ImageryError(f"got source={self.source!r}, expected JSON values: {exc}") from exc

    @classmethod
    def from_array(
        cls,
        data: Any,
        *,
        bands: Sequence[str],
        crs: Any = None,
        transform: Affine | None = None,
        nodata: float | None = 0,
        source: Mapping[str, Any] | None = None,
    ) -> Raster:
        """Return a raster from an array.

        Parameters
        ----------
        data : array-like
            ``(bands, height, width)``, any integer or floating dtype. Pixels that a masked array
            masks in any band are invalid.
        bands : sequence of str
            Name of each band.
        crs, transform : optional
            Georeference of the pixels, both or neither: anything that PROJ accepts as a CRS (text,
            EPSG number, pyproj or rasterio object), and an `affine.Affine`.
        nodata : float or None
            Value that marks nodata, see :func:`valid_mask`. NaN and infinity are always nodata.
        source : mapping, optional
            Provenance for ``Embedding.meta``.

        Raises
        ------
        ImageryError
            As for the class; also if only one of ``crs`` and ``transform`` is given, or the
            transform or nodata has the wrong type.
        GridError
            If the CRS is unknown or the transform degenerate.
        """
        is_sequence = isinstance(bands, Sequence) and not isinstance(bands, str)
        if not is_sequence or not all(isinstance(band, str) for band in bands):
            raise ImageryError(f"got bands={bands!r}, expected names such as ('B4', 'B3', 'B2')")
        pixels = check_pixels(data, len(bands))
        if (crs is None) != (transform is None):
            raise ImageryError("got only one of crs and transform, expected both or neither")
        if transform is not None and not isinstance(transform, Affine):
            raise ImageryError(
                f"got transform={transform!r}, expected an affine.Affine; for GDAL's six numbers "
                "use Affine.from_gdal(*numbers)"
            )
        grid = Grid(
            None if crs is None else known_crs(crs),
            transform or Affine.identity(),
            (pixels.shape[1], pixels.shape[2]),
        )
        valid = valid_mask(pixels, nodata)
        if isinstance(data, np.ma.MaskedArray):
            valid &= ~np.ma.getmaskarray(data).any(axis=0)
        return cls(pixels, valid, tuple(bands), grid, source=source or {})

    def north_up(self) -> Raster:
        """Return the same pixels with row 0 at the northern edge."""
        transform = self.grid.transform
        if self.grid.crs is None or transform.e <= 0:
            return self
        top = transform @ Affine.translation(0, self.grid.shape[0]) @ Affine.scale(1, -1)
        grid = Grid(self.grid.crs, top, self.grid.shape)
        return replace(self, data=self.data[:, ::-1], valid=self.valid[::-1], grid=grid)


def check_pixels(data: Any, band_count: int) -> NDArray[Any]:
    """Return ``data`` as an array of ``(band_count, height, width)`` real numbers.

    Raises
    ------
    ImageryError
        If it has a different number of axes or bands, is empty, or contains anything other than
        integers or floating-point numbers.
    """
    try:
        pixels = np.asarray(data)
    except (ValueError, TypeError, RuntimeError) as exc:
        raise ImageryError(
            f"got pixels of type {type(data).__name__}, which is not an array ({exc}); expected "
            f"numbers of shape (bands, height, width) in main memory"
        ) from exc
    if pixels.dtype.kind not in "iuf":
        raise ImageryError(
            f"got pixels of dtype {pixels.dtype}, expected integers or floating-point numbers"
        )
    if pixels.ndim != 3:
        raise ImageryError(
            f"got pixels of shape {pixels.shape}, expected (bands, height, width) with "
            f"{band_count} bands"
        )
    if pixels.size == 0:
        raise ImageryError(f"got no pixels (shape {pixels.shape}), expected at least one")
    if pixels.shape[0] != band_count:
        last = pixels.shape[-1] == band_count
        hint = "; it looks like (height, width, bands): array.transpose(2, 0, 1)" if last else ""
        raise ImageryError(
            f"got {pixels.shape[0]} bands (shape {pixels.shape}), expected {band_count} as "
            f"(bands, height, width){hint}"
        )
    return pixels


def valid_mask(pixels: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Return which pixels are usable: finite in every band and not nodata.

    A pixel is nodata if any of its bands has the nodata value. If that value is zero, all of its
    bands must be zero, because dark water can have a true reflectance of 0 in one of them.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(bands, height, width)``.
    nodata : float or None
        The value; None if there is none.

    Returns
    -------
    numpy.ndarray
        ``(height, width)`` bool.
    """
    valid: NDArray[np.bool_]
    if pixels.dtype.kind == "f":
        valid = np.isfinite(pixels).all(axis=0)
    else:
        valid = np.ones(pixels.shape[1:], dtype=bool)
    if nodata is not None and (isinstance(nodata, bool) or not isinstance(nodata, Real)):
        raise ImageryError(f"got nodata={nodata!r}, expected a number or None")
    if nodata is not None and not np.isnan(nodata):
        marked = pixels == nodata
        valid &= ~(marked.all(axis=0) if nodata == 0 else marked.any(axis=0))
    return valid
