"""What comes back: a vector or a georeferenced token grid, and how it was made."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.addresses import path_of
from rs_embed.embedding.provenance import imagery_times
from rs_embed.errors import ImageryWarning, Note, SpecError, give_warnings
from rs_embed.files.formats import PICTURES, Formats
from rs_embed.files.grids import GRIDS, georeferenced
from rs_embed.files.vectors import ONE_VECTOR
from rs_embed.files.writing import written
from rs_embed.printable import excerpt

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray
    from PIL import Image

    from rs_embed.geo.grid import Grid


@dataclass(frozen=True, eq=False)
class Embedding:
    """An embedding and its provenance; an array wherever NumPy or PyTorch expects one.

    Attributes
    ----------
    data : numpy.ndarray or xarray.DataArray
        Pooled: float32 ``(D,)``. Grid: float32 ``(d, y, x)``, row 0 north, NaN where too little is
        valid, with x and y at token centres and CRS and transform of the token grid
        (``data.rio.crs``, ``data.rio.transform()``).
    meta : dict
        Plain JSON: model, weights and their SHA-256, source, grids, GSD, coverage, validity,
        library version, and a ``fingerprint`` of everything that determines the numbers.
    image : numpy.ndarray or None
        ``(height, width, 3)`` uint8: the image that the model saw; None when read from a file.
    """

    data: Any  # which of the two follows from the request, not from a type
    meta: dict[str, Any]
    image: NDArray[np.uint8] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.data.shape))
        meta, place = self.meta, dict(self.meta.get("spatial") or {})
        stated = [str(meta[key]) for key in ("model", "weights") if meta.get(key) is not None]
        if place:
            kind = place.pop("type", "place")
            stated.append(f"{kind}({', '.join(f'{value:.9g}' for value in place.values())})")
        if days := list(dict.fromkeys(str(time.date()) for time in imagery_times(meta))):
            stated.append(" to ".join(days if len(days) < 2 else (days[0], days[-1])))
        elif period := meta.get("temporal"):
            stated.append(f"{period['start']} to {period['end']}")
        if meta.get("input_res") is not None:
            stated.append(f"input_res {meta['input_res']:.4g}")
        if warned := len(meta.get("warnings") or ()):
            stated.append(f"{warned} warning{'s' * (warned > 1)}")
        return excerpt(f"<Embedding {shape} {self.data.dtype}: {', '.join(stated)}>", 300)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.data, dtype=dtype, copy=copy)

    def __dlpack__(self, **how: Any) -> Any:  # what torch.as_tensor looks for
        return np.asarray(self).__dlpack__(**how)

    def __dlpack_device__(self) -> Any:
        return np.asarray(self).__dlpack_device__()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Any) -> Any:
        return self.data[key]

    def __matmul__(self, other: Any) -> Any:
        return np.asarray(self) @ np.asarray(other)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(D,)`` of a vector, ``(d, y, x)`` of a grid."""
        return tuple(self.data.shape)

    def _repr_html_(self) -> str:
        from rs_embed.embedding import notebook, quicklook

        title = f"Embedding, {' x '.join(map(str, self.shape))} float32"
        picture = None
        if not isinstance(self.data, np.ndarray):
            shown = quicklook.Shown(self.data, self.meta, self.image)
            picture, _ = quicklook.render([shown], side_px=notebook.SIDE_PX, stretch=True)
        elif self.image is not None:
            picture = quicklook.brightened(self.image, notebook.SIDE_PX)
        return notebook.as_html(title, self.meta, picture)

    @property
    def is_grid(self) -> bool:
        """Whether ``data`` is a token grid."""
        return not isinstance(self.data, np.ndarray)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the embedding with its meta, and return the path.

        Parameters
        ----------
        path : path
            ``.npz`` for a vector; ``.tif`` (GeoTIFF) or ``.nc`` (netCDF, extra ``netcdf``) for a
            grid. An existing file is replaced, never left half written.

        Raises
        ------
        UnknownNameError
            If no format of such data has the suffix.
        ExportError
            If the file cannot be written.
        MissingDependencyError
            If the extra of the format is not installed.
        """
        target = _as_path(path)
        formats = GRIDS if self.is_grid else ONE_VECTOR
        formats.of(target).write(target, self.data, self.meta)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embedding:
        """Return the embedding that :meth:`save` wrote, with the same data and meta.

        Raises
        ------
        UnknownNameError
            If no format of an embedding has the suffix.
        ExportError
            If the file cannot be read or was not written by `save`.
        MissingDependencyError
            If the extra of the format is not installed.
        """
        source = _as_path(path)
        formats = Formats("an embedding", *ONE_VECTOR.rows, *GRIDS.rows)
        return cls(*formats.of(source).read(source))

    def quicklook(
        self,
        *others: Embedding | str | os.PathLike[str],
        side_px: int = 512,
        stretch: bool = True,
    ) -> Image.Image:
        """Return a picture of a grid, and write it as PNG if a path is given.

        It shows the first three principal components of the tokens as red, green and blue, beside
        the image that the model saw (left out if the embedding was read from a file), with place,
        date, GSD, model, scale bar and the variance that the components explain. Where there is no
        token it is hatched.

        Parameters
        ----------
        *others : Embedding or path
            Further grids, drawn below with the same components, so that equal colours mean equal
            tokens; and at most one ``.png`` file.
        side_px : int
            Height of each panel, pixels.
        stretch : bool
            Whether to stretch the contrast of the image for display; the model saw ``image``.

        Raises
        ------
        SpecError
            If one is a vector, or grids differ in their dimensions, model or weights.
        UnknownNameError
            If the path is not a ``.png``.
        ExportError
            If the file cannot be written.

        Warns
        -----
        ImageryWarning
            If the colours are noise: neighbouring tokens differ as much as any two.
        """
        from rs_embed.embedding import quicklook

        grids = [self, *(other for other in others if isinstance(other, Embedding))]
        paths = [_as_path(other) for other in others if not isinstance(other, Embedding)]
        if len(paths) > 1:
            raise SpecError(f"got {len(paths)} paths, expected at most one, of a .png")
        for path in paths:
            PICTURES.check(path)
        _check_alike(grids)
        shown = [quicklook.Shown(grid.data, grid.meta, grid.image) for grid in grids]
        picture, noise = quicklook.render(shown, side_px=side_px, stretch=stretch)
        if noise:
            give_warnings([Note(quicklook.NOISE, ImageryWarning)])
        for path in paths:
            with written(path) as partial:
                picture.save(partial, format="PNG", optimize=True)
        return picture


def _check_alike(grids: Sequence[Embedding]) -> None:
    """Raise `SpecError` unless all are grids whose tokens can be compared."""
    from rs_embed.embedding.comparing import check_made_alike

    if not all(grid.is_grid for grid in grids):
        raise SpecError("got a pooled vector, expected a grid: use output='grid'")
    for number, grid in enumerate(grids[1:], 2):
        names = (f"grid {number}", "first grid")
        give_warnings(check_made_alike(grid.meta, grids[0].meta, names=names))
        if grid.shape[0] != grids[0].shape[0]:
            raise SpecError(
                f"got grids of {grids[0].shape[0]} and {grid.shape[0]} dimensions, expected one "
                "model for all; draw them apart"
            )


def _as_path(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise SpecError(f"got {path!r} ({type(path).__name__}), expected a path")
    return path_of(path)


def token_grid(values: NDArray[np.float32], grid: Grid) -> xr.DataArray:
    """Return patch tokens in their place.

    Parameters
    ----------
    values : numpy.ndarray
        ``(d, h, w)`` float32, NaN where there is no token.
    grid : Grid
        Grid of the tokens.

    Returns
    -------
    xarray.DataArray
        ``(d, y, x)`` as `Embedding.data` says.
    """
    from rasterio.crs import CRS

    crs = None if grid.crs is None else CRS.from_user_input(grid.crs.to_wkt())
    return georeferenced(values, crs, grid.transform)
