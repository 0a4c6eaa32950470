"""How far the tokens of one place have moved between two dates, beside a noise floor.

Cosine distance of embeddings as a measure of change follows Růžička et al. 2022, "RaVÆn:
unsupervised change detection of extreme events using ML on-board satellites", Scientific Reports
12:16939, https://doi.org/10.1038/s41598-022-19437-5. The floor is the same distance between two
dates on which the ground did not change.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._version import __version__
from rs_embed.addresses import path_of
from rs_embed.embedding.result import Embedding
from rs_embed.embedding.similarity import cosine_distances
from rs_embed.errors import Note, RsEmbedWarning, SpecError, give_warnings
from rs_embed.files.formats import PICTURES, Format, Formats
from rs_embed.files.writing import written
from rs_embed.maps.dates import Date, check_alike, date_of, of_one_basis
from rs_embed.maps.sampling import blocks

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray
    from PIL import Image

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
CHANGES = Formats("a change", Format(name="GeoTIFF", suffixes=(".tif", ".tiff"), media_type=_COG))
# A cosine distance that rounding of equal tokens stays below.
_SAME = 1e-6
_NAMES = ("first date", "second date", "reference")
# Distances of the storage of tokens are noticed from this share of the median distance.
_STORAGE = 0.1
# Share of tokens above the floor from which the scene as a whole differs.
_THROUGHOUT = 0.95


@dataclass(frozen=True, eq=False)
class Change:
    """How far each token has moved between two dates.

    Attributes
    ----------
    distance : xarray.DataArray
        ``(y, x)`` float32 with CRS: cosine distance, 0 to 2; NaN where a date has no token.
    floor : xarray.DataArray or None
        ``(y, x)`` float32: the distance up to which change cannot be told from noise; NaN where
        the first date or the reference has no token. None without a reference.
    meta : dict
        Plain JSON: model, weights, days, imagery and fingerprint of each date, ``level`` (the
        least value of the floor), numbers of tokens, warnings.
    images : tuple of numpy.ndarray
        What the model saw on both dates, if these are embeddings that hold it.
    """

    distance: xr.DataArray
    floor: xr.DataArray | None
    meta: dict[str, Any]
    images: tuple[NDArray[np.uint8], ...] = field(default=(), repr=False)

    @property
    def ratio(self) -> xr.DataArray:
        """``(y, x)`` float32: distance over floor, above 1 where change exceeds the noise."""
        if self.floor is None:
            raise SpecError(
                "got a change without a noise floor; state a third date on which the ground was as "
                "on the first: change(a, b, reference=c)"
            )
        ratio: xr.DataArray = (self.distance / self.floor).rename("ratio").rio.write_nodata(np.nan)
        return ratio

    @property
    def above(self) -> xr.DataArray:
        """``(y, x)`` bool: where the distance is above the floor; False where that is unknown."""
        above: xr.DataArray = (self.ratio > 1).rename("above")
        return above

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.distance, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        height, width = self.distance.shape
        meta = self.meta
        days = " and ".join(meta[name]["days"] or "an unknown day" for name in ("first", "second"))
        text = f"<Change {height} x {width}: median cosine distance {meta['median']:.4g} of {days}"
        if self.floor is not None:
            text += f", {meta['above']} of {meta['with_floor']} tokens above the noise floor"
        return f"{text}>"

    def _repr_html_(self) -> str:
        from rs_embed.embedding import notebook

        about = {**self.meta, "grid": {"crs": self.distance.rio.crs.to_string()}}
        return notebook.as_html(repr(self)[1:-1], about, self.quicklook(side_px=notebook.SIDE_PX))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a cloud-optimised GeoTIFF with the meta as a tag, and return its path.

        Its bands are the distance and, with a reference, the floor and the ratio.

        Raises
        ------
        UnknownNameError
            If ``path`` is not a ``.tif``.
        ExportError
            If the file cannot be written.
        """
        import xarray as xr

        target = path_of(path)
        CHANGES.check(target)
        layers = [self.distance, *([] if self.floor is None else [self.floor, self.ratio])]
        bands = xr.concat(
            [layer.drop_attrs(deep=False) for layer in layers], "band", coords="minimal"
        )
        bands = bands.assign_attrs(long_name=[str(layer.name) for layer in layers])
        bands = bands.rio.write_nodata(np.nan)
        tags = {"RS_EMBED_CHANGE": json.dumps(self.meta)}
        with written(target) as partial:
            bands.rio.to_raster(partial, driver="COG", compress="DEFLATE", tags=tags)
        return target

    def quicklook(
        self, path: str | os.PathLike[str] | None = None, *, side_px: int = 512
    ) -> Image.Image:
        """Return a picture, and write it as PNG if a path is given.

        It shows the distance in colours and, with a reference, what is above the floor; in front
        of them ``images``, both with one stretch.

        Raises
        ------
        UnknownNameError
            If ``path`` is not a ``.png``.
        ExportError
            If the file cannot be written.
        """
        from rs_embed.maps import change_picture

        target = None if path is None else path_of(path)
        if target is not None:
            PICTURES.check(target)
        picture = change_picture.render(self, side_px=side_px)
        if target is not None:
            with written(target) as partial:
                picture.save(partial, format="PNG")
        return picture


def change(
    first: str | os.PathLike[str] | xr.DataArray | Embedding,
    second: str | os.PathLike[str] | xr.DataArray | Embedding,
    *,
    reference: str | os.PathLike[str] | xr.DataArray | Embedding | None = None,
    quantile: float = 0.95,
    centred: bool = False,
) -> Change:
    """Return how far each token of a place has moved between two dates.

    Parameters
    ----------
    first, second : Embedding, path or xarray.DataArray
        Grids (``output="grid"``) or maps (`embed_area`) of one place, with the same cells, made
        with the same weights and options; also a time of `stack`. Maps are read block by block.
    reference : Embedding, path or xarray.DataArray, optional
        A third date, on which the ground was as on the first. The distance of these two is noise:
        atmosphere, illumination, season, position of the pixels. It should be about as far from
        the first date in season and haze as the second one is.
    quantile : float
        Share of the tokens whose noise is below ``level``, 0 to 1.
    centred : bool
        Whether the mean token of each date is subtracted first, over the tokens that both dates
        have: what all tokens of a date share (haze, season) is then no distance. A change of the
        whole area is not seen then.

    Returns
    -------
    Change
        Distance, floor and ratio with georeference; it can be saved and drawn.

    Raises
    ------
    SpecError
        If one of them is not a grid or map, does not state how it was made, or was made otherwise
        than the first; if they have other cells, no token in common, or too few for the quantile;
        if the reference is one of the two dates.
    ExportError
        If a file cannot be read.

    Warns
    -----
    RsEmbedWarning
        If the reference is nearer to the second date than to the first, if the storage of the
        tokens (int8, PCA) accounts for a part of the distance, or if weights may differ.

    Notes
    -----
    With tokens ``a``, ``b`` and ``c`` of a cell at the first date, the second date and the
    reference, ``d(a, b) = 1 - a.b / (|a| |b|)`` and ``level = quantile over cells of d(a, c)``::

        distance = d(a, b)
        floor = max(level, d(a, c))
        ratio = distance / floor
    """
    if not (isinstance(quantile, int | float) and 0 < quantile < 1):
        raise SpecError(f"got quantile={quantile!r}, expected a share such as 0.95")
    given = [first, second] if reference is None else [first, second, reference]
    dates = [date_of(one, name) for one, name in zip(given, _NAMES, strict=False)]
    notes = [note for date in dates[1:] for note in check_alike(date, dates[0])]
    dates = of_one_basis(dates)
    distance = _distances(dates[0], dates[1], centred=centred)
    compared = int(np.isfinite(distance).sum())
    if not compared:
        raise SpecError(
            "got two dates without a single cell in which both have a token; choose dates with "
            "fewer clouds"
        )
    median = float(np.nanmedian(distance))
    notes += _of_storage(dates, median)
    floor, level = None, None
    if reference is not None:
        noise = _distances(dates[0], dates[2], centred=centred)
        level = _level(noise, quantile)
        notes += _of_reference(noise, _distances(dates[1], dates[2], centred=centred))
        floor = np.maximum(noise, level)  # NaN stays
        notes += _of_all(distance, floor, "" if centred else "centred=True (--centred) or ")
    meta = {
        **{key: dates[0].meta.get(key) for key in ("model", "weights", "weights_sha256")},
        "rs_embed_version": __version__,
        "measure": "cosine distance",
        "centred": centred,
        **{n: d.summary() for n, d in zip(("first", "second", "reference"), dates, strict=False)},
        "compared": compared,
        "median": median,
        "quantile": None if level is None else quantile,
        "level": level,
        "with_floor": None if floor is None else int(np.isfinite(distance + floor).sum()),
        "above": None if floor is None else int((distance > floor).sum()),
        "warnings": [note.message for note in notes],
    }
    give_warnings(notes)
    of_grids = [one for one in given[:2] if isinstance(one, Embedding)]
    images = [one.image for one in of_grids if one.image is not None]
    return Change(
        dates[0].placed_as(distance, "cosine distance"),
        None if floor is None else dates[0].placed_as(floor, "noise floor"),
        meta,
        tuple(images) if len(images) == 2 else (),
    )


def _distances(one: Date, other: Date, *, centred: bool) -> NDArray[np.float64]:
    """Return ``(y, x)`` cosine distances of two dates, NaN where one has no token."""
    distances = np.full(one.placed.grid.shape, np.nan)
    means = _means(one, other) if centred else [np.zeros(1, np.float32)] * 2
    for at, pair in _pairs(one, other):
        distances[at] = cosine_distances(*(t - m for t, m in zip(pair, means, strict=True)))
    return distances


def _means(one: Date, other: Date) -> list[NDArray[np.float32]]:
    """Return the mean token of each of two dates, over the cells in which both have one."""
    sums, count = np.zeros((2, one.placed.array.sizes["d"])), 0
    for _, (mine, theirs) in _pairs(one, other):
        known = np.isfinite(mine[..., 0] + theirs[..., 0])
        sums += [tokens[known].sum(axis=0, dtype=np.float64) for tokens in (mine, theirs)]
        count += int(known.sum())
    return list((sums / max(count, 1)).astype(np.float32))


def _pairs(one: Date, other: Date) -> Iterator[tuple[Any, list[NDArray[np.float32]]]]:
    """Yield the cells of each block, and the tokens of both dates."""
    for at in blocks(one.placed):
        yield at, [date.tokens(*at) for date in (one, other)]


def _level(noise: NDArray[np.float64], quantile: float) -> float:
    known, least = int(np.isfinite(noise).sum()), math.ceil(round(1 / (1 - quantile), 6))
    if known < least:
        raise SpecError(
            f"got a reference with {known} tokens in the cells of the first date, expected at "
            f"least {least} for quantile={quantile:g}; choose a clearer date, or a lower quantile"
        )
    return float(np.nanquantile(noise, quantile))


def _of_reference(noise: NDArray[np.float64], other: NDArray[np.float64]) -> list[Note]:
    """Return a warning if the reference is nearer to the second date; refuse one of both dates."""
    for date, distances in (("first", noise), ("second", other)):
        known = distances[np.isfinite(distances)]
        if known.size and known.max() < _SAME:
            raise SpecError(
                f"got a reference with the tokens of the {date} date, expected a third date on "
                "which the ground was as on the first; without one leave it out"
            )
    both = np.isfinite(noise) & np.isfinite(other)
    if not both.any() or np.median(noise[both]) <= np.median(other[both]):
        return []
    message = (
        "the reference is nearer to the second date (median distance "
        f"{np.median(other[both]):.3g}) than to the first ({np.median(noise[both]):.3g}), so the "
        "floor may hold change; if the ground was as on the second date, swap the two dates"
    )
    return [Note(message, RsEmbedWarning)]


def _of_all(distance: NDArray[np.float64], floor: NDArray[np.float64], way: str) -> list[Note]:
    """Return a warning if nearly all tokens are above the floor."""
    known = np.isfinite(distance + floor)
    share = float((distance > floor)[known].mean()) if known.any() else 0.0
    if share < _THROUGHOUT:
        return []
    message = (
        f"{share:.0%} of the tokens are above the noise floor: the second date differs from the "
        "first throughout, as by haze, season, or clouds and change elsewhere in the same window; "
        f"state {way}a reference that is as far from the first date in these"
    )
    return [Note(message, RsEmbedWarning)]


def _of_storage(dates: list[Date], median: float) -> list[Note]:
    """Return a warning if rounded tokens may account for a part of the distance."""
    errors = [((d.meta.get("encoding") or {}).get("error") or {}) for d in dates[:2]]
    moved = sum(error.get("cosine_distance_mean") or 0.0 for error in errors)
    if moved <= _STORAGE * median:
        return []
    message = (
        f"how the tokens are stored (int8, float16, PCA) moves them by a cosine distance of "
        f"{moved:.3g} on average, beside a median of {median:.3g} between the dates; store "
        "float32 without a PCA to see smaller change"
    )
    return [Note(message, RsEmbedWarning)]
