"""Which pixels of a raster file its masks and alpha bands hide, besides nodata values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.geo.bands import is_spectral

if TYPE_CHECKING:
    from numpy.typing import NDArray


def has_mask(dataset: Any, indexes: Sequence[int]) -> bool:
    """Return whether masks or alpha bands hide pixels of these bands (positions from 1)."""
    return bool(_alpha_bands(dataset, indexes) or _masked_bands(dataset, indexes))


def shown_pixels(dataset: Any, indexes: Sequence[int], **read: Any) -> NDArray[np.bool_]:
    """Return which pixels neither a mask nor an alpha band hides.

    All that a file has counts, whichever GDAL would choose: the mask within it or in a ``.msk``
    beside it, those of single bands, and alpha bands in any position.

    Parameters
    ----------
    dataset : rasterio.DatasetReader
        The file; see `has_mask`.
    indexes : sequence of int
        Positions of the bands, from 1.
    **read
        ``window`` or ``out_shape`` of rasterio.

    Returns
    -------
    numpy.ndarray
        ``(height, width)`` bool.
    """
    planes = [dataset.read(index, **read) for index in _alpha_bands(dataset, indexes)]
    planes += [dataset.read_masks(index, **read) for index in _masked_bands(dataset, indexes)]
    shown: NDArray[np.bool_] = np.logical_and.reduce([plane > 0 for plane in planes])
    return shown


def _alpha_bands(dataset: Any, indexes: Sequence[int]) -> list[int]:
    """Return the positions of alpha bands.

    GDAL takes the fourth band of 8-bit images for one unless told otherwise; one that is described
    as a spectral band is none.
    """
    from rasterio.enums import ColorInterp

    described = enumerate(zip(dataset.colorinterp, dataset.descriptions, strict=True), 1)
    return [
        index
        for index, (colour, name) in described
        if colour is ColorInterp.alpha and index not in indexes and not is_spectral(name)
    ]


def _masked_bands(dataset: Any, indexes: Sequence[int]) -> list[int]:
    """Return the bands with a mask that is neither an alpha band nor their own nodata value."""
    from rasterio.enums import MaskFlags

    masked = []
    for index in indexes:
        flags = dataset.mask_flag_enums[index - 1]
        if flags == [MaskFlags.nodata] or {MaskFlags.all_valid, MaskFlags.alpha} & set(flags):
            continue
        masked.append(index)
        if MaskFlags.per_dataset in flags:
            break
    return masked
