"""Write a page to look at embeddings in a browser, and show it."""

from __future__ import annotations

import atexit
import html
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePath
from typing import Any

from rs_embed._version import __version__
from rs_embed.addresses import path_of
from rs_embed.embedding.result import Embedding
from rs_embed.errors import SpecError, UnknownNameError, give_warnings
from rs_embed.explorer.crs import browser_crs
from rs_embed.explorer.imagery import save_images, seen_again, seen_of
from rs_embed.explorer.layers import layers_of
from rs_embed.explorer.places import PlaceLayer
from rs_embed.explorer.serving import Server, check_port
from rs_embed.explorer.site import check_site, write_about, written_site
from rs_embed.explorer.vectors import Basis, basis_of
from rs_embed.files.grids import GRIDS
from rs_embed.maps.formats.table import MAPS
from rs_embed.maps.report import MapReport
from rs_embed.tables.export import load_export
from rs_embed.tables.formats import TABLES

_FRAME_PX = 640
_WHAT = "a map, grid or table of embeddings"


@dataclass(frozen=True, eq=False)
class Explorer:
    """A page to look at embeddings; in a notebook it shows itself.

    Attributes
    ----------
    path : pathlib.Path
        The folder: any web server can serve it.
    about : dict
        What ``explore.json`` in it says: layers, dimensions, model, CRS.
    port : int or None
        Port of 127.0.0.1 to serve at; None is a free one.
    """

    path: Path
    about: dict[str, Any]
    port: int | None = None
    _servers: list[Server] = field(default_factory=list, repr=False)

    def __repr__(self) -> str:
        counts = " and ".join(str(layer["count"]) for layer in self.about["layers"])
        kind = "places" if self.about["kind"] == "table" else "cells"
        return f"<Explorer of {counts} {kind}, {self.about['dimensions']} dimensions: {self.path}>"

    def serve(self) -> str:
        """Serve the page to this machine until the process ends or `close`, and return its URL.

        Raises
        ------
        SpecError
            If the port is in use.
        """
        if not self._servers:
            self._servers.append(Server(self.path, self.port))
        return self._servers[0].url

    def close(self) -> None:
        """Stop serving; the folder stays."""
        while self._servers:
            self._servers.pop().close()

    def _repr_html_(self) -> str:
        url = self.serve()
        where = html.escape(str(self.path))
        return (
            f'<iframe src="{url}" width="100%" height="{_FRAME_PX}" style="border:0"></iframe>'
            f'<p><a href="{url}" target="_blank">{url}</a>, from the folder {where}. The browser '
            "must be on the machine of the kernel, or its port be forwarded.</p>"
        )


def explore(
    source: str | os.PathLike[str] | Any,
    second: str | os.PathLike[str] | Any = None,
    *,
    output: str | os.PathLike[str] | None = None,
    title: str | None = None,
    imagery: Any = None,
    pca: int | None = None,
    base_map: str | None = None,
    attribution: str | None = None,
    port: int | None = None,
    overwrite: bool = False,
) -> Explorer:
    """Write a page on which people look at a map or a table of embeddings in their browser.

    It needs no server but one for its files: all computing is in the browser. Vectors are seen
    from their mean, as `nearest` and `similarity_map` do, and rounded to 8 bits, each with its own
    scale. Two maps share one mean.

    Parameters
    ----------
    source : path, xarray.DataArray, Embedding, EmbeddingTable or MapReport
        A map, a grid, or a table with geometry.
    second : path, xarray.DataArray, Embedding or MapReport, optional
        A map of another date, with the same cells, made with the same weights and options.
    output : path, optional
        Folder to write; by default one that is removed when the process ends.
    title : str, optional
        Title of the page; by default the name of the file.
    imagery : path, xarray object, or a list of one for each map, optional
        What to show as the image that the model saw, also of the places of a table; by default
        the imagery that these name, if it is on this machine and has not changed.
    pca : int, optional
        Keep this many principal components instead of all dimensions, for a smaller page.
    base_map, attribution : str, optional
        Address of map tiles with ``{z}``, ``{x}`` and ``{y}``, and whom to name for them. By
        default nothing is loaded from elsewhere.
    port : int, optional
        Port of 127.0.0.1 that ``serve()`` takes; a free one by default.
    overwrite : bool
        Whether to replace a finished page.

    Returns
    -------
    Explorer
        The page; ``serve()`` shows it.

    Raises
    ------
    SpecError
        If it is not a map, grid or table of embeddings, has no CRS, or is too large for a browser;
        if the second map differs in more than its imagery; if an option is invalid.
    ExportError
        If a file cannot be read, or the folder cannot be written or holds other files.
    MissingDependencyError
        If an extra that reads such a file is not installed.

    Warns
    -----
    ImageryWarning
        If the page does not show what the model saw.
    CoverageWarning
        If places have no embedding.
    """
    tiles = _tiles(base_map, attribution)
    check_port(port)
    target = _temporary() if output is None else path_of(output)
    check_site(target, overwrite=overwrite)
    sources = [_opened(one) for one in (source, second) if one is not None]
    tables = [hasattr(one, "embeddings") for one in sources]
    if any(tables) and len(sources) > 1:
        raise SpecError("got a table beside other sources, expected one table, or one or two maps")
    page = _of_table(sources[0], imagery, pca) if any(tables) else _of_maps(sources, imagery, pca)
    shown = title or " and ".join(map(_name, (source, second)[: len(sources)]))
    with written_site(target, overwrite=overwrite) as folder:
        about = {**_ALWAYS, "title": shown, "base_map": tiles, **page(folder)}
        write_about(folder, about)
    return Explorer(target, about, port)


_ALWAYS: dict[str, Any] = {
    "format": 1,
    "made_with": f"rs-embed {__version__}",
    "pca_variance": None,
    "places": None,
    "pca_colours": None,
    "thumbnails": None,
}


def _of_table(table: Any, imagery: Any, pca: int | None) -> Callable[[Path], dict[str, Any]]:
    """Return what writes a table to a folder, and returns what the page reads of it."""
    places = PlaceLayer.of(table)
    basis = basis_of(places.blocks, pca)
    meta = places.meta()
    given = imagery if isinstance(imagery, list | tuple) else [imagery]
    if len(given) != 1:
        raise SpecError(f"got {len(given)} images for a table, expected at most one")
    thumbnails, notes = places.thumbnails(given[0])
    give_warnings([*places.notes(), *notes])
    return lambda folder: {
        "kind": "table", "output": "vectors", "crs": "EPSG:4326",
        "proj4": "+proj=longlat +datum=WGS84 +no_defs",
        **_made([meta], basis), **places.write(folder, basis, thumbnails),
    }  # fmt: skip


def _of_maps(
    sources: Sequence[Any], imagery: Any, pca: int | None
) -> Callable[[Path], dict[str, Any]]:
    """Return what writes maps to a folder, and returns what the page reads of them."""
    images = imagery if isinstance(imagery, list | tuple) else [imagery] * (len(sources) == 1)
    if imagery is not None and len(images) != len(sources):
        raise SpecError(
            f"got imagery={imagery!r} for {len(sources)} maps, expected a list of one for each"
        )
    layers = layers_of(sources)
    seen, given = [], images or [None] * len(sources)
    for one, layer, stated in zip(sources, layers, given, strict=True):
        held = seen_of(one) if isinstance(one, Embedding) and stated is None else None
        found, notes = (held, []) if held else seen_again(layer.date.meta, layer.grid, stated)
        give_warnings(notes)
        seen.append(found)
    basis = basis_of(lambda: chain.from_iterable(layer.blocks() for layer in layers), pca)

    def write(folder: Path) -> dict[str, Any]:
        shown = save_images(seen, folder)
        written = [
            {**layer.write(folder, number, basis), "image": shown[number]}
            for number, layer in enumerate(layers)
        ]
        made = _made([layer.date.meta for layer in layers], basis)
        crs = browser_crs(layers[0].grid)
        return {"kind": "map", "output": "tokens", **crs, **made, "layers": written}

    return write


def _made(metas: Sequence[Mapping[str, Any]], basis: Basis) -> dict[str, Any]:
    """Return how the vectors of one or two layers were made; they are checked to be alike."""
    meta = metas[0]
    stated = (one.get("rs_embed_version") for one in metas)
    versions = dict.fromkeys(str(version) for version in stated if version)
    kept = (meta.get("encoding") or {}).get("explained_variance")
    shares = [share for share in (kept, basis.kept) if share is not None]
    gsds = [meta[key] for key in ("gsd_m", "input_res_m") if key in meta]
    return {
        **{key: str(meta.get(key) or "unknown") for key in ("model", "weights")},
        "embedded_with": f"rs-embed {' and '.join(versions)}" if versions else None,
        "gsd_m": gsds[0] if gsds else None,
        "dimensions": basis.dimensions,
        "pca_variance": math.prod(shares) if shares else None,
    }


def _opened(source: Any) -> Any:
    """Return a table, or what `layers_of` takes."""
    if isinstance(source, MapReport):
        source = source.path
    if not isinstance(source, str | os.PathLike):
        return source
    suffix = PurePath(source).suffix.lower()
    maps = {*GRIDS.suffixes, *MAPS.suffixes, *(name for row in MAPS.rows for name in row.opens)}
    if suffix in maps:
        return source
    if suffix not in (*TABLES.suffixes, ".partial"):
        raise UnknownNameError.among("file type", suffix, {*maps, *TABLES.suffixes}, of=_WHAT)
    return load_export(source)


def _name(source: Any) -> str:
    source = source.path if isinstance(source, MapReport) else source
    return PurePath(source).name if isinstance(source, str | os.PathLike) else "Embeddings"


def _tiles(url: str | None, attribution: str | None) -> dict[str, str] | None:
    """Return the map below; `SpecError` unless its address and source are stated."""
    if url is None and attribution is None:
        return None
    if not url or not attribution:
        raise SpecError(
            "got only one of base_map and attribution, expected both: providers of map tiles want "
            "to be named, e.g. base_map='https://tile.openstreetmap.org/{z}/{x}/{y}.png', "
            "attribution='(C) OpenStreetMap contributors'"
        )
    if not url.startswith(("http://", "https://")) or not all(f"{{{x}}}" in url for x in "zxy"):
        raise SpecError(
            f"got base_map={url!r}, expected an address of tiles with {{z}}, {{x}} and {{y}}, such "
            "as https://tile.openstreetmap.org/{z}/{x}/{y}.png"
        )
    return {"url": url, "attribution": attribution}


def _temporary() -> Path:
    """Return a folder that is removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="rs_embed-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / "site"
