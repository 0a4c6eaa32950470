"""What a model would see of a place, without running it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rs_embed.addresses import path_of
from rs_embed.embedding import notebook, quicklook
from rs_embed.embedding.arguments import fetch_of
from rs_embed.embedding.kept import KeptModel
from rs_embed.embedding.place_arguments import one_place
from rs_embed.embedding.source import Source
from rs_embed.embedding.task import MIN_VALID, Sight, settle
from rs_embed.errors import UnknownNameError, give_warnings
from rs_embed.files.formats import PICTURES
from rs_embed.files.writing import written
from rs_embed.geo.raster import Raster
from rs_embed.printable import excerpt
from rs_embed.settings import Settings
from rs_embed.specs import FetchSpec, InputPrepSpec, SensorSpec, Spatial, TemporalSpec

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from rs_embed.models.base import Preparation
    from rs_embed.providers.base import Provider

_BINS = 32


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a model would see of a place.

    Attributes
    ----------
    meta : dict
        Plain JSON: the keys of ``Embedding.meta`` that are known before the model runs.
    raw : dict
        Band name -> ``min``, ``p2``, ``median``, ``p98``, ``max``, ``mean`` of its valid raw
        values.
    histogram : dict
        ``edges`` (33 values, 0..256) and, for ``red``, ``green``, ``blue``, the number of pixels of
        ``image`` between them.
    """

    meta: dict[str, Any]
    raw: dict[str, dict[str, float]]
    histogram: dict[str, list[int]]
    _sight: Sight = field(repr=False)
    _preparation: Preparation = field(repr=False)

    def __repr__(self) -> str:
        return "\n".join(excerpt(line) for line in ["Inspection", *self._captions()][:10])

    def _repr_html_(self) -> str:
        picture = quicklook.brightened(self.image, notebook.SIDE_PX)
        return notebook.as_html("Inspection: what the model would see", self.meta, picture)

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """``(height, width, 3)`` uint8: picture of the whole that the model would see."""
        return self._sight.seen.picture(self._preparation)

    @property
    def tiles(self) -> list[tuple[int, int, int, int]]:
        """Row, column, height, width of what goes through the model at once, pixels of `image`."""
        return [tile.window for tile in self._sight.seen.tiles]

    @property
    def token_valid(self) -> NDArray[np.float64]:
        """``(rows, columns)`` in 0..1: valid share of each token's footprint."""
        return self._sight.seen.token_valid

    def tensor(self, tile: int = 0) -> NDArray[np.float32]:
        """Return ``(channels, height, width)`` float32: the input of the network for one tile."""
        seen = self._sight.seen
        if not -len(seen.tiles) <= tile < len(seen.tiles):
            raise UnknownNameError.among("tile", tile, [f"0..{len(seen.tiles) - 1}"])
        return self._preparation.tensor(seen.cut(seen.tiles[tile]))

    def to_json(self) -> dict[str, Any]:
        """Return everything but the pixels as JSON values."""
        return {
            "meta": self.meta,
            "tiles": [list(window) for window in self.tiles],
            "raw": self.raw,
            "histogram": self.histogram,
        }

    def save_png(self, path: str | os.PathLike[str]) -> Path:
        """Draw the input, its tiles and its histogram into a ``.png``; return the path.

        Raises
        ------
        UnknownNameError
            If ``path`` is not a ``.png``.
        ExportError
            If it cannot be written.
        """
        target = path_of(path)
        PICTURES.check(target)
        picture = quicklook.render_input(
            self.image, self.tiles, self._sight.seen.valid_tokens, self._captions()
        )
        with written(target) as partial:
            picture.save(partial, format="PNG")
        return target

    def _captions(self) -> list[str]:
        meta = self.meta
        height, width = meta["input_grid"]["shape"]
        return [
            f"{meta['input_prep']}: {height} x {width} px, {len(self.tiles)} through the model; "
            f"GSD {meta['used_scale_m']:g} m in the source, {meta['input_res']:g} in the model; "
            f"coverage {meta['coverage']:.1%}, valid {meta['valid_fraction']:.1%}",
            *(f"warning: {text}" for text in meta["warnings"]),
        ]


def inspect_input(
    model: str | KeptModel,
    *,
    spatial: Spatial | Any = None,
    buffer_m: float | None = None,
    temporal: TemporalSpec | Any = None,
    sensor: SensorSpec | None = None,
    fetch: FetchSpec | Mapping[str, Any] | None = None,
    scale_m: float | None = None,
    backend: str | os.PathLike[str] | Provider = "auto",
    input_chw: Any = None,
    imagery: str | os.PathLike[str] | xr.DataArray | xr.Dataset | Raster | Any = None,
    cache: str | os.PathLike[str] | None = None,
    input_prep: InputPrepSpec | Literal["resize", "tile", "auto"] = "resize",
    min_valid: float = MIN_VALID,
    **options: Any,
) -> Inspection:
    """Return what the model would see of one place: pixels, GSD, validity, source.

    The model is neither loaded nor run, and no weights are downloaded; the default sizes of the
    model are used for weights that are not on disk yet.

    Parameters
    ----------
    model, spatial, buffer_m, temporal, sensor, fetch, scale_m, backend, input_chw, imagery, \
    cache, input_prep, min_valid
        As for ``get_embedding``.
    **options
        The model's own options.

    Raises
    ------
    RsEmbedError
        Whatever ``get_embedding`` raises before it loads the model.

    Warns
    -----
    GsdWarning, CoverageWarning, TemporalWarning, ImageryWarning
        As ``get_embedding``.

    Examples
    --------
    >>> from rs_embed import PointBuffer, inspect_input
    >>> seen = inspect_input(
    ...     "scalemae",
    ...     spatial=PointBuffer(lon=-75.6156, lat=37.6942, buffer_m=2000),
    ...     backend="sample",
    ...     input_prep="tile",
    ...     variant="tiny",
    ... )
    >>> seen.image.shape, len(seen.tiles), seen.tensor(0).shape, seen.meta["input_res_m"]
    ((400, 400, 3), 4, (3, 256, 256), 10.0)
    """
    settings = Settings.from_environ()
    task = settle(
        model,
        output=None,
        input_prep=input_prep,
        min_valid=min_valid,
        device="auto",
        options=options,
        settings=settings,
        arguments=inspect.signature(inspect_input).parameters,
    )
    place, shape = one_place(spatial, buffer_m)
    source = Source(
        spatial=place,
        shape=shape,
        temporal=temporal,
        sensor=sensor,
        fetch=fetch_of(fetch, scale_m),
        backend=backend,
        input_chw=input_chw,
        imagery=imagery,
        cache=cache,
    ).resolved(settings)
    sizes = task.sizes()
    acquired = task.acquire(source, sizes)
    sight = task.look(acquired, sizes, shape)
    preparation = task.plan.preparation
    inspection = Inspection(
        meta={**sight.meta, "warnings": [note.message for note in sight.notes]},
        raw=_raw_statistics(acquired.raster),
        histogram=_histogram(sight.seen.picture(preparation)),
        _sight=sight,
        _preparation=preparation,
    )
    give_warnings(sight.notes)
    return inspection


def _raw_statistics(raster: Raster) -> dict[str, dict[str, float]]:
    """Return the spread of each band's valid values."""
    statistics: dict[str, dict[str, float]] = {}
    names = ("min", "p2", "median", "p98", "max")
    for band, values in zip(raster.bands, raster.data, strict=True):
        known = values[raster.valid].astype(np.float64)
        spread: Mapping[str, float] = dict(
            zip(names, np.percentile(known, [0, 2, 50, 98, 100]).tolist(), strict=True)
        )
        statistics[band] = {**spread, "mean": float(known.mean())}
    return statistics


def _histogram(image: NDArray[np.uint8]) -> dict[str, list[int]]:
    edges = np.linspace(0, 256, _BINS + 1)
    counts = {
        colour: np.histogram(image[..., band], edges)[0].tolist()
        for band, colour in enumerate(("red", "green", "blue"))
    }
    return {"edges": edges.astype(int).tolist(), **counts}
