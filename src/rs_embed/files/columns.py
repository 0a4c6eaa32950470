"""What the columns of a table of places state: types, ids, periods, pixel sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from rs_embed.errors import Note, RsEmbedWarning, SpecError, UnknownNameError, some
from rs_embed.files.dates import in_utc, moment_of
from rs_embed.files.features import id_column, located, own_id, unused_dates
from rs_embed.specs import FetchSpec, TemporalSpec

if TYPE_CHECKING:
    import pandas as pd

Where = Callable[[int], str]

_PERIODS: tuple[tuple[str, ...], ...] = (
    *(("start", "end"), ("start_date", "end_date"), ("start_datetime", "end_datetime")),
    ("start_date", "end_dateti"),  # what a Shapefile leaves of start_datetime and end_datetime
    *(("date",), ("datetime",)),
)
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)?(\.\d+)?([eE][+-]?\d+)?")
# By pandas' name of what a column holds: its type, without and with missing values.
_TYPES = {
    "integer": ("int64", "Int64"),
    "boolean": ("bool", "boolean"),
    "floating": ("float64", "float64"),
    "mixed-integer-float": ("float64", "float64"),
}


def typed(values: Sequence[Any] | pd.Series[Any]) -> pd.Series[Any]:
    """Return objects as a column of their type: whole numbers stay whole beside missing ones."""
    import pandas as pd

    column = pd.Series(values, dtype=object)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind not in _TYPES:
        return column
    try:
        return column.astype(_TYPES[kind][bool(column.isna().any())])
    except OverflowError:  # integers of more than 64 bits
        return column


def typed_text(cells: Sequence[str]) -> pd.Series[Any]:
    """Return the cells of a CSV: numbers only where no digit is lost, as in ``007``."""
    for pattern, number in ((_WHOLE, int), (_DECIMAL, float)):
        stated = [cell for cell in cells if cell]
        if stated and all(pattern.fullmatch(cell) for cell in stated):
            return typed([number(cell) if cell else None for cell in cells])
    return typed(list(cells))


def ids_of(
    table: pd.DataFrame, column: str | None, own: Sequence[Any] | None, name: str, where: Where
) -> tuple[list[int] | list[str], str | None, list[Note]]:
    """Return unique ids, the column that they come from, and what was used instead.

    Parameters
    ----------
    table : pandas.DataFrame
        The rows.
    column : str or None
        Column of the ids; None is ``id``, if there is one.
    own : sequence or None
        Ids beside the columns.
    name : str
        Source of the table.
    where : callable
        Returns what a row is called in messages.
    """
    if column is not None and column not in table.columns:
        raise UnknownNameError.among("id column", column, map(str, table.columns))
    column = id_column(table.columns) if column is None else column
    numbers = list(range(len(table)))
    values = own
    if column is not None:
        values = [None if is_missing(v) else v for v in table[column].astype(object)]
    if values is None:
        return numbers, None, []
    ids: list[Any] = []
    for number, value in enumerate(values):
        try:
            ids.append(own_id(value))
        except SpecError as exc:
            raise SpecError(f"{where(number)}: {exc}") from exc
    if all(value is None for value in ids):
        return numbers, None, []
    first: dict[str, int] = {}
    repeated = [n for n, value in enumerate(ids) if first.setdefault(str(value), n) != n]
    missing = [n for n, value in enumerate(ids) if value is None]
    if missing or repeated:
        what = "no id" if missing else f"the id of an earlier one ({ids[repeated[0]]!r})"
        rows = some([where(number) for number in missing or repeated])
        message = (
            f"{name}: {rows} {'has' if len(missing or repeated) == 1 else 'have'} {what}, so the "
            "rows are numbered from 0 instead; choose a column of unique ids with id_column= "
            "(--id-column)"
        )
        return numbers, None, [Note(message, RsEmbedWarning)]
    if any(isinstance(value, str) for value in ids):
        ids = [str(value) for value in ids]
    if not any(isinstance(value, float) for value in values):
        return ids, column, []
    used = some([*map(repr, ids)])
    message = f"{name}: ids are decimal numbers, {values[0]!r}, ..., and are used as {used}"
    return ids, column, [Note(message, RsEmbedWarning)]


def free_name(name: str, taken: Collection[object]) -> str:
    """Return the name of a column that is added to others: with ``emb_`` where it is taken."""
    return name if name not in taken else free_name(f"emb_{name}", taken)


def repeated_columns(table: pd.DataFrame) -> None:
    """Raise `SpecError` if two columns have the same name."""
    twice = [str(name) for name in table.columns[table.columns.duplicated()]]
    if twice:
        raise SpecError(f"got several columns {some(twice)}, expected each name once; rename one")


def periods(
    table: pd.DataFrame, name: str, where: Where
) -> tuple[list[TemporalSpec | None] | None, list[Note]]:
    """Return the period of each row, None where it states none, and a warning of unused dates.

    ``start`` and ``end`` (or ``start_date``, ...), half-open, else the day ``date``.
    """
    columns = _by_name(table)
    stated = {key for key, column in columns.items() if _has_value(table[column])}
    used = next((names for names in _PERIODS if stated >= set(names)), None)
    if used is None:
        return None, unused_dates((columns[key] for key in columns if key in stated), name)
    known: dict[str, TemporalSpec | None] = {}
    found: list[TemporalSpec | None] = []
    texts = [table[columns[key]].astype(object) for key in used]
    for number, cells in enumerate(zip(*texts, strict=True)):
        key = repr(cells)
        if key not in known:
            with located(f"{where(number)}, {' and '.join(used)}"):
                known[key] = _period(cells)
        found.append(known[key])
    return found, []


def fetches(table: pd.DataFrame, where: Where) -> list[FetchSpec | None] | None:
    """Return the ``scale_m`` of each row, None where it states none; None without such a column."""
    column = _by_name(table).get("scale_m")
    if column is None or not _has_value(table[column]):
        return None
    known: dict[str, FetchSpec | None] = {}
    found: list[FetchSpec | None] = []
    for number, value in enumerate(table[column].astype(object)):
        key = repr(value)
        if key not in known:
            with located(where(number)):
                known[key] = None if is_missing(value) else FetchSpec(scale_m=value)
        found.append(known[key])
    return found


def numbers_of(table: pd.DataFrame, key: str) -> list[Any] | None:
    """Return a column, None where a row states nothing; None without such a column."""
    column = _by_name(table).get(key)
    if column is None:
        return None
    return [None if is_missing(value) else value for value in table[column].astype(object)]


def is_missing(value: Any) -> bool:
    """Return whether a cell is empty: None, NaN, NaT, NA or empty text."""
    import pandas as pd

    if isinstance(value, str):
        return not value.strip()
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _by_name(table: pd.DataFrame) -> Mapping[str, Any]:
    return {str(name).strip().casefold(): name for name in reversed(table.columns)}


def _has_value(column: pd.Series[Any]) -> bool:
    return bool((column.notna() & (column.astype(object) != "")).any())


def _period(cells: tuple[Any, ...]) -> TemporalSpec | None:
    missing = [is_missing(cell) for cell in cells]
    if all(missing):
        return None
    if any(missing):
        raise SpecError("got one of the two, expected both or neither")
    moments = [_moment(cell) for cell in cells]
    start = moments[0].date()
    if len(moments) == 1:
        return TemporalSpec(start, start + timedelta(days=1))
    # The end is not part of the period: a time of day on it includes that day.
    day, hour = moments[1].date(), moments[1].time()
    return TemporalSpec(start, day + timedelta(days=hour > time(0)))


def _moment(cell: Any) -> datetime:
    moment: datetime | None = None
    if isinstance(cell, datetime):  # a Timestamp of pandas too
        moment = in_utc(cell)
    elif isinstance(cell, date):
        moment = datetime.combine(cell, time(0), UTC)
    elif isinstance(cell, str):
        moment = moment_of(cell)
    if moment is None:
        raise SpecError(
            f"got {cell!r}, expected a day as YYYY-MM-DD or a time; if the column is not the "
            "period of the imagery, rename it or leave it out"
        )
    return moment
