"""What features and tables state about themselves: ids, dates, and their kind of JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from rs_embed.errors import Note, SpecError, TemporalWarning

# From here on, neighbouring integers are the same decimal number.
_EXACT = 2**53
_DATES = {
    *("date", "datetime", "start", "end"),
    *("start_date", "end_date", "start_datetime", "end_datetime", "end_dateti"),
}
_ESRI = {"rings", "attributes", "geometryType", "spatialReference"}


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put the file, line or feature in front of the message of a `SpecError`."""
    try:
        yield
    except SpecError as exc:
        raise exc.restated(f"{where}: {exc}") from exc


def own_id(value: Any) -> int | str | None:
    """Return an id with its digits as the source has them; None if there is none.

    Whole decimal numbers are integers: pandas and GDAL make them of integers beside NULL.

    Raises
    ------
    SpecError
        If it is not text or a number, or its last digits may be lost.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SpecError(f"got id={value!r}, expected text or a number")
    if isinstance(value, float) and value.is_integer():
        if abs(value) >= _EXACT:
            raise SpecError(
                f"got id={value!r}, a decimal number that may have lost its last digits, expected "
                "text or an integer; read it anew as text or integers (pandas: 'Int64'), or pass "
                "the file itself"
            )
        value = int(value)
    name = str(value)
    if not name or not name.isprintable():
        raise SpecError(f"got id={name!r}, expected printable text; or leave ids out everywhere")
    return value if isinstance(value, int) else name


def id_column(names: Iterable[str]) -> str | None:
    """Return the column that holds the ids: ``id``, else the same in capitals; None if neither."""
    return min(
        (n for n in names if str(n).casefold() == "id"), key=lambda n: n != "id", default=None
    )


def feature_id(feature: Mapping[str, Any]) -> int | str | None:
    """Return the id of a GeoJSON feature: its property, as in every table, else its member."""
    properties = feature.get("properties")
    fields = properties if isinstance(properties, Mapping) else {}
    column = id_column(fields)
    return own_id(feature.get("id") if column is None else fields[column])


def property_names(features: Iterable[Any]) -> list[str]:
    """Return the names of the properties that have a value in any GeoJSON feature, each once."""
    every = (f.get("properties") for f in features if isinstance(f, Mapping))
    stated = (one.items() for one in every if isinstance(one, Mapping))
    return list(dict.fromkeys(name for one in stated for name, value in one if value is not None))


def unused_dates(names: Iterable[str], source: str) -> list[Note]:
    """Return a warning if a table has columns of dates; ``source`` is its name."""
    found = [repr(name) for name in names if str(name).casefold() in _DATES]
    message = (
        f"{source} has the columns of dates {', '.join(found)}, which are not used: no place has a "
        "period of its own; split the table by them, and make a call for each period"
    )
    return [Note(message, TemporalWarning)] if found else []


def check_geojson(content: Mapping[str, Any]) -> None:
    """Raise `SpecError` if an object is TopoJSON or Esri JSON."""
    kind, option = "Esri JSON", "-t_srs"
    if content.get("type") == "Topology":
        kind, option = "TopoJSON (type 'Topology')", "-a_srs"
    elif "type" in content or not _ESRI & content.keys():
        return
    raise SpecError(
        f"got {kind}, expected GeoJSON; convert it: ogr2ogr {option} EPSG:4326 out.geojson in.json"
    )
