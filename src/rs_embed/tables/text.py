"""Small tables of embeddings in CSV, a column for each dimension."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import ExportError
from rs_embed.files.formats import UNREADABLE, unreadable
from rs_embed.files.writing import written
from rs_embed.tables.columns import TableContent, covering, require, stored_vectors
from rs_embed.tables.summary import WRITER, read_card

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray


def write_csv(path: Path, content: TableContent) -> None:
    """Write a table in the order of the places: geometry as WKT, lists as JSON.

    Raises
    ------
    ExportError
        If the file cannot be written.
    """
    pandas, shapely, emb = require("pandas"), require("shapely"), content.emb or {}
    (table,) = content.tables(len(content.ids))
    frame = table.drop_columns([emb["columns"]["embedding"], *covering(table, emb)]).to_pandas()
    for name in emb["crs"]:
        shapes = shapely.from_wkb(frame[name].to_numpy())
        frame[name] = shapely.to_wkt(shapes, rounding_precision=-1)
    items = table[emb["columns"]["item_ids"]].to_pylist()
    frame[emb["columns"]["item_ids"]] = [None if one is None else json.dumps(one) for one in items]
    vectors = pandas.DataFrame(stored_vectors(table, emb), columns=_names(emb))
    with written(path, alone=True) as partial:
        frame.join(vectors).to_csv(partial, index=False, lineterminator="\n")


def read_csv(path: Path) -> tuple[NDArray[np.float32], GeoDataFrame, dict[str, Any]]:
    """Return vectors, the other columns, and what the model card says of the file."""
    csv, pandas, geopandas = map(require, ("pyarrow.csv", "pandas", "geopandas"))
    emb = read_card(path)
    try:
        kinds = {"string": "string", "large_string": "string", "float": "float32"}
        places = emb["request"]["table"]["columns"]
        types = {name: kinds[kind] for name, kind in places.items() if kind in kinds}
        times = [emb["columns"][name] for name in ("start", "end", "datetime")]
        texts = [emb["columns"][name] for name in ("item_ids", "fingerprint", "meta", "error")]
        types |= dict.fromkeys([*times, *texts], "string") | dict.fromkeys(_names(emb), "float32")
        frame = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=types,
                null_values=[""],  # "NA" is a text like any other
                strings_can_be_null=True,
            ),
        ).to_pandas()
        vectors = frame[_names(emb)].to_numpy(np.float32)
        frame = frame.drop(columns=_names(emb))
        for name in times:
            frame[name] = pandas.to_datetime(frame[name], utc=True, format="ISO8601")
        for name, crs in emb["crs"].items():
            frame[name] = geopandas.GeoSeries.from_wkt(frame[name], crs=crs)
        return vectors, geopandas.GeoDataFrame(frame, geometry=next(iter(emb["crs"]))), emb
    except (OSError, *UNREADABLE) as exc:
        raise unreadable(path, exc, WRITER) from exc


def describe_csv(path: Path) -> dict[str, Any]:
    """Return what the model card says of a CSV; `ExportError` unless all of the CSV is there."""
    vectors, _, emb = read_csv(path)
    if len(vectors) != emb["places"]:
        raise ExportError(f"it has {len(vectors)} of {emb['places']} places")
    return emb


def _names(emb: Mapping[str, Any]) -> list[str]:
    return [f"{emb['columns']['embedding']}_{number}" for number in range(emb["dimensions"])]
