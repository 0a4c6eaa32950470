"""Places as people have them: tables, layers, geometries, points, boxes and chips."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rs_embed._optional import require
from rs_embed.addresses import check_beside, path_of
from rs_embed.errors import Note, RsEmbedError, SpecError, UnknownNameError, some
from rs_embed.files.columns import (
    fetches,
    free_name,
    ids_of,
    periods,
    repeated_columns,
    typed,
    typed_text,
)
from rs_embed.files.features import located
from rs_embed.files.imagery import imagery_grid
from rs_embed.files.place_geometries import PLACE_KINDS, Rows, spatials_of_geometries
from rs_embed.files.places import BOX, POINT, NamedPlace, csv_table, spatials_of, text_of
from rs_embed.files.polygons import (
    GEOJSON,
    chosen_layer,
    common_crs,
    features_of,
    features_of_geojson,
    layer_crs,
    refuse_layer,
)
from rs_embed.geo.polygons import require_shapely
from rs_embed.network.stores import Store, is_store
from rs_embed.printable import excerpt
from rs_embed.specs import BBox, FetchSpec, PointBuffer, Spatial, TemporalSpec, check_positive

if TYPE_CHECKING:
    from pyproj import CRS

POLYGONS = ("cover", "box")
_CSV = (".csv", ".tsv", ".txt")
_PARQUET = (".parquet", ".geoparquet", ".pq")
_INDEXES = ("integer", "string")
_CHIPS = (".tif", ".tiff", ".jp2", ".img", ".vrt")
_EXPECTED = (
    "a file (CSV, GeoJSON, GeoPackage, GeoParquet, Shapefile), a GeoDataFrame, a DataFrame with "
    "columns lon and lat, shapely geometries, (lon, lat) pairs, (minlon, minlat, maxlon, maxlat), "
    "BBox or PointBuffer objects, a folder or list of images"
)


@dataclass(frozen=True, eq=False, repr=False)
class Places:
    """Rows of a table, each with the place it stands for; `places_of` makes and checks them.

    Attributes
    ----------
    table : pandas.DataFrame
        The attributes, with their types, in the order of the input.
    ids : list of int or list of str
        Unique.
    id_column : str or None
        The column of ``table`` that they come from; None if they are row numbers or an index.
    spatials : list of BBox or PointBuffer
        What is embedded; None only for a chip that cannot be read or has no box in degrees.
    shapes : list of shapely geometry, or None
        What is pooled over, in longitude and latitude; None where that is all of the place.
    temporals : list of TemporalSpec, or None
        The period of each row; None in the list where it states none.
    fetches : list of FetchSpec, or None
        The ``scale_m`` of each row; None in the list where it states none.
    imageries : list of str, or None
        Paths of chips.
    notes : list of Note
        Warnings to give.
    """

    table: Any
    ids: list[int] | list[str]
    id_column: str | None
    spatials: list[Spatial]
    shapes: list[Any] | None = None
    temporals: list[TemporalSpec | None] | None = None
    fetches: list[FetchSpec | None] | None = None
    imageries: list[str] | None = None
    notes: tuple[Note, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        kinds = Counter("image" if p is None else type(p).__name__ for p in self.spatials)
        lines = [
            f"Places: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}",
            f"ids {some([excerpt(str(name), 40) for name in self.ids])}",
            f"columns {some(list(map(str, self.table.columns)), 16)}",
            *(note.message for note in self.notes),
        ]
        return "\n  ".join(lines)

    @cached_property
    def frame(self) -> Any:
        """The rows as a `geopandas.GeoDataFrame`, geometry in the CRS of the input."""
        geopandas = _required("geopandas")
        if isinstance(self.table, geopandas.GeoDataFrame):
            return self.table
        shapely = require_shapely()
        shapes = np.full(len(self), None)
        for kind, (draw, corners) in {
            PointBuffer: (shapely.points, attrgetter("lon", "lat")),
            BBox: (shapely.box, attrgetter("minlon", "minlat", "maxlon", "maxlat")),
        }.items():
            rows = [n for n, place in enumerate(self.spatials) if isinstance(place, kind)]
            if rows:
                shapes[rows] = draw(*np.array([corners(self.spatials[n]) for n in rows]).T)
        name = free_name("geometry", self.table.columns)
        table = self.table.assign(**{name: shapes})
        return geopandas.GeoDataFrame(table, geometry=name, crs="EPSG:4326")


def places_of(
    places: Any,
    *,
    buffer_m: float | None = None,
    id_column: str | None = None,
    layer: str | None = None,
    polygons: Literal["cover", "box"] = "cover",
) -> Places:
    """Return places, of whatever kind people have them, one for each row of the input.

    Parameters
    ----------
    places : object
        A CSV (`read_places` has its columns), GeoJSON, GeoPackage, GeoParquet or Shapefile (also
        zipped), on this disk or, if it is one file, an object store (``s3://...``);
        a GeoDataFrame or GeoSeries in any CRS, a DataFrame with columns ``lon`` and ``lat``;
        shapely geometries or (lon, lat) pairs; BBox, PointBuffer or NamedPlace objects; what has
        ``__geo_interface__``; or a folder or a list of paths of georeferenced images.
        Columns ``buffer_m``, ``scale_m``, ``start`` and ``end`` (half-open) or ``date`` (that day)
        are of each row.
    buffer_m : float, optional
        Half the side of the square around points that state none, ground metres.
    id_column : str, optional
        Column of the ids; ``id`` if there is one, else the row numbers from 0.
    layer : str, optional
        Layer of a file that has several.
    polygons : {"cover", "box"}
        Whether a polygon stands for what it covers, or for its bounding box.

    Raises
    ------
    SpecError
        If it cannot be read, or a row is not a place; the message names the row and a fix.
    GridError
        If a CRS is unknown, or neither geographic nor projected.
    MissingDependencyError
        If geopandas, pyogrio or shapely is needed and not installed (extra ``tables``).

    Examples
    --------
    >>> from rs_embed.files.place_tables import places_of
    >>> places_of([(13.7, 46.9), (13.8, 46.9)], buffer_m=640).spatials[0]
    PointBuffer(lon=13.7, lat=46.9, buffer_m=640)
    """
    if polygons not in POLYGONS:
        raise UnknownNameError.among("polygons", polygons, POLYGONS)
    if buffer_m is not None:
        check_positive("buffer_m", buffer_m, "ground metres")
    if isinstance(places, Places):
        return places
    given = _read(places, layer)
    spatials, shapes = given.spatials, None
    notes: list[Note] = []
    with located(given.name):
        if not len(given.table):
            raise SpecError("holds no places, expected at least one")
        repeated_columns(given.table)
        if given.header is not None:
            spatials, notes = spatials_of(given.header, given.rows, given.where, buffer_m)
    if given.spatials is not None and buffer_m is not None:
        raise SpecError(
            f"{given.name}: got buffer_m={buffer_m!r} with places that have a size of their own; "
            "leave it out"
        )
    if spatials is None:
        spatials, shapes, notes = spatials_of_geometries(given, buffer_m)
        shapes = shapes if polygons == "cover" and any(s is not None for s in shapes) else None
    if buffer_m is not None and not any(isinstance(place, PointBuffer) for place in spatials):
        raise SpecError(
            f"{given.name}: got buffer_m={buffer_m:g}, but every place is a box or polygon, which "
            "has its own size; leave buffer_m out"
        )
    table = given.table
    with located(given.name):
        ids, column, of_ids = ids_of(table, id_column, given.own, given.name, given.where)
        temporals, of_dates = periods(table, given.name, given.where)
        scales = fetches(table, given.where)
    notes = [*notes, *of_ids, *of_dates]
    return Places(
        table, ids, column, spatials, shapes, temporals, scales, given.imageries, tuple(notes)
    )


def _required(module: str) -> Any:
    return require(module, extra="tables", purpose="a table of places")


def _is_geo(table: Any) -> bool:
    return hasattr(table, "set_crs")


def _read(places: Any, layer: str | None) -> Rows:
    """Return the rows of whatever was given."""
    import pandas as pd

    if is_store(places):
        return _of_store(places, layer)
    if isinstance(places, str | os.PathLike):
        return _of_path(path_of(places), layer)
    name = f"the {type(places).__name__}"
    refuse_layer(layer, name)
    if isinstance(places, BBox | PointBuffer):
        places = [places]
    if isinstance(places, pd.DataFrame | pd.Series):
        return _of_frame(places, name)
    if isinstance(places, Mapping) or hasattr(places, "__geo_interface__"):
        return _of_features(name, *features_of(places, name, PLACE_KINDS))
    if isinstance(places, bytes) or not isinstance(places, Iterable):
        raise SpecError(f"got {name} as places, expected {_EXPECTED}")
    return _of_list(places.tolist() if isinstance(places, np.ndarray) else list(places))


def _of_list(entries: list[Any]) -> Rows:
    """Return the rows of a list, all of whose entries are of one kind."""
    import pandas as pd

    name, table = "the list", pd.DataFrame(index=range(len(entries)))

    def all_are(*kinds: type) -> bool:
        return all(isinstance(entry, kinds) for entry in entries)

    if all_are(NamedPlace):
        table = pd.DataFrame({"id": [entry.id for entry in entries]})
        return Rows(name, table, spatials=[entry.spatial for entry in entries])
    if all_are(BBox, PointBuffer):
        return Rows(name, table, spatials=entries)
    if all_are(str, os.PathLike):
        return _of_chips(name, [os.fspath(entry) for entry in entries])
    if all_are(tuple, list):
        layout = next((names for names in (POINT, BOX) if len(names) == len(entries[0])), POINT)
        for number, entry in enumerate(entries):
            if len(entry) != len(layout):
                raise SpecError(
                    f"{name}: row {number}: got {entry!r:.60}, expected ({', '.join(layout)})"
                )
        return Rows(name, table, header=layout, rows=entries)
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping) and not hasattr(entry, "__geo_interface__"):
            raise SpecError(
                f"{name}: row {number}: got {entry!r:.60} ({type(entry).__name__}) among the "
                f"places, expected all of one kind: {_EXPECTED}"
            )
    return _of_features(name, *features_of(entries, name, PLACE_KINDS))


def _of_path(path: Path, layer: str | None) -> Rows:
    name, suffix = str(path), path.suffix.lower()
    if not path.exists():
        raise SpecError(f"{path}: cannot be read (no such file), expected {_EXPECTED}")
    try:
        check_beside(path)
    except OSError as exc:
        raise SpecError(f"{path}: cannot be read ({exc})") from exc
    if suffix in GEOJSON:
        return _of_features(name, *features_of_geojson(path, layer, PLACE_KINDS))
    if suffix in (*_CSV, *_PARQUET):
        refuse_layer(layer, name)
        return _of_csv(path) if suffix in _CSV else _of_parquet(path)
    if path.is_dir() and suffix != ".gdb":
        chips = sorted(file for file in path.rglob("*") if file.suffix.lower() in _CHIPS)
        if not chips:
            raise SpecError(f"{path}: holds no images ({', '.join(_CHIPS)})")
        return _of_chips(name, [str(chip) for chip in chips], path)
    return _of_layer(path, layer)


def _of_store(url: str, layer: str | None) -> Rows:
    """Return the rows of a file on an object store; errors name its URL."""
    store = Store.of(url, SpecError)
    with tempfile.TemporaryDirectory(prefix="rs_embed-") as folder:
        path = Path(folder) / store.root.rpartition("/")[2]
        with store.errors("read"):
            if store.kind() != "file":
                raise SpecError(
                    f"{url}: cannot be read (no such file), expected one file with all places, "
                    "such as a CSV, GeoJSON, GeoPackage, GeoParquet or zipped Shapefile"
                )
            store.files.get_file(store.root, str(path))
        try:
            return replace(_of_path(path, layer), name=url)
        except RsEmbedError as exc:
            raise exc.restated(str(exc).replace(str(path), url)) from exc


def _of_csv(path: Path) -> Rows:
    import pandas as pd

    with located(str(path)):
        header, lines, rows = csv_table(text_of(path))
    cells = list(zip(*rows, strict=True)) or [()] * len(header)
    table = pd.concat(map(typed_text, cells), axis=1, keys=range(len(header)))
    table.columns = header
    return Rows(str(path), table, lambda n: f"line {lines[n]}", header=header, rows=rows)


def _of_frame(frame: Any, name: str) -> Rows:
    """Return the rows of a DataFrame, GeoDataFrame or GeoSeries."""
    import pandas as pd

    if isinstance(frame, pd.Series):
        if not _is_geo(frame):
            raise SpecError(f"got {name} as places, expected {_EXPECTED}")
        frame = frame.to_frame("geometry")
    own = None
    numbered = frame.index.equals(pd.RangeIndex(len(frame)))
    if not numbered and frame.index.inferred_type in _INDEXES:
        own = list(frame.index)
    if _is_geo(frame):
        return Rows(name, frame, own=own)
    with located(name):
        repeated_columns(frame)
    header = [str(column) for column in frame.columns]
    columns = [frame[column].astype(object) for column in frame.columns]
    return Rows(name, frame, own=own, header=header, rows=zip(*columns, strict=True))


def _of_parquet(path: Path) -> Rows:
    import pandas as pd

    geopandas, _ = _required("geopandas"), _required("pyarrow")
    options = {"to_pandas_kwargs": {"integer_object_nulls": True}}
    try:
        try:
            frame = geopandas.read_parquet(path, **options)
        except ValueError as exc:
            if "geo metadata" not in str(exc):
                raise
            frame = pd.read_parquet(path, engine="pyarrow", **options)
    except (ValueError, OSError) as exc:
        raise SpecError(f"{path}: cannot be read as Parquet ({exc})") from exc
    return _of_frame(_with_types(frame), str(path))


def _of_layer(path: Path, layer: str | None) -> Rows:
    """Return the rows of a layer that GDAL reads."""
    geopandas, pyogrio, errors, shapely = map(
        _required, ("geopandas", "pyogrio", "pyogrio.errors", "shapely.errors")
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Measured \(M\) geometry types")  # left out, as Z is
        try:
            frame = geopandas.read_file(
                path,
                layer=chosen_layer(path, layer, pyogrio),
                engine="pyogrio",
                fid_as_index=True,
                use_arrow=True,
                arrow_to_pandas_kwargs={"integer_object_nulls": True},
            )
        except (errors.DataSourceError, errors.DataLayerError, shapely.GEOSException) as exc:
            raise SpecError(f"{path}: cannot be read ({exc}), expected {_EXPECTED}") from exc
    if _is_geo(frame):
        layer_crs(path, frame.crs)
    return _of_frame(_with_types(frame), str(path))


def _with_types(frame: Any) -> Any:
    """Return a frame with whole numbers beside missing ones as such."""
    objects = [name for name in frame.columns if frame[name].dtype.kind == "O"]
    return frame.assign(
        **{name: typed(frame[name]) for name in objects if name != frame.geometry.name}
    )


def _of_features(name: str, stated: CRS | None, features: list[Any]) -> Rows:
    if not features:
        raise SpecError(f"{name}: holds no places, expected at least one")
    geopandas, pd = _required("geopandas"), _required("pandas")
    names = dict.fromkeys(key for feature in features for key in feature.properties)
    columns = {key: typed([f.properties.get(key) for f in features]) for key in names}
    shapes = [feature.geometry for feature in features]
    geometry = free_name("geometry", columns)
    table = pd.DataFrame({**columns, geometry: shapes}, index=range(len(features)))
    frame = geopandas.GeoDataFrame(table, geometry=geometry, crs=common_crs(name, stated, features))
    own = [feature.own for feature in features]
    return Rows(name, frame, lambda number: features[number].label, own=own)


def _of_chips(name: str, paths: list[str], folder: Path | None = None) -> Rows:
    import pandas as pd

    with ThreadPoolExecutor(8) as pool:
        boxes: list[Any] = list(pool.map(_chip_box, paths))
    own = paths if folder is None else [Path(path).relative_to(folder).as_posix() for path in paths]
    table = pd.DataFrame(index=range(len(paths)))
    return Rows(name, table, own=own, spatials=boxes, imageries=paths)


def _chip_box(path: str) -> BBox | None:
    """Return the box of a chip; None if it cannot be read, which embedding it will name."""
    try:
        return BBox(*imagery_grid(path).geographic_bounds())
    except RsEmbedError:
        return None
