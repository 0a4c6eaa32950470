"""Everyday values, as people write them, to what they mean; those with two meanings are refused."""

from __future__ import annotations

import calendar
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, timedelta
from numbers import Integral
from typing import Any

from rs_embed.errors import SpecError, UnknownNameError, some
from rs_embed.files.dates import in_utc
from rs_embed.providers.scenes.joined import JoinedFiles
from rs_embed.specs import OUTPUT_MODES, POOLINGS, FetchSpec, OutputSpec, TemporalSpec, as_day

_PERIODS = (
    "a year (2022), a month ('2022-06'), a day ('2022-06-01'), or first day and the day after the "
    "last ('2022-06-01/2022-09-01', a pair, a slice or a TemporalSpec)"
)
_YEAR = re.compile(r"\d{4}", re.ASCII)
_MONTH = re.compile(r"(\d{4})-(\d{2})", re.ASCII)


def period_of(value: Any) -> TemporalSpec | None:
    """Return the period that a value states; None for None.

    Parameters
    ----------
    value : TemporalSpec, int, str, date, datetime, numpy.datetime64, slice, tuple or list
        A year, a month, a day; or a first day and the day after the last: as text with ``/``
        between them, a pair, or a slice. Times must be midnight, in UTC or without a zone.

    Raises
    ------
    SpecError
        If it is not a period of whole days, or may mean two.
    """
    if value is None or isinstance(value, TemporalSpec):
        return value
    if type(value).__name__ == "datetime64":  # of NumPy; "2022" and "2022-06" are all of them
        value = str(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return TemporalSpec.year(int(value))
    if isinstance(value, str) and value.count("/") == 1:
        value = tuple(part.strip() for part in value.split("/"))
    if isinstance(value, slice) and value.step is None:
        value = (value.start, value.stop)
    if isinstance(value, tuple | list) and len(value) == 2:
        zones = {day.tzinfo is None for day in value if isinstance(day, datetime)}
        if len(zones) == 2:
            raise SpecError(
                f"got temporal={value!r}, one time with and one without a time zone; the second "
                "may be local time or UTC: state both as days, 'YYYY-MM-DD'"
            )
        return TemporalSpec(*value)
    if isinstance(value, str) and _YEAR.fullmatch(value):
        return TemporalSpec.year(int(value))
    days, text = 1, value
    if isinstance(value, str) and (month := _MONTH.fullmatch(value)):
        year, number = int(month[1]), int(month[2])
        text = f"{value}-01"
        days = calendar.monthrange(year, number)[1] if 1 <= number <= 12 and year else 0
    if isinstance(text, str | date) and days:
        first = as_day("temporal", text)
        with suppress(OverflowError):  # after the year 9999
            return TemporalSpec(first, first + timedelta(days=days))
    raise SpecError(f"got temporal={value!r} ({type(value).__name__}), expected {_PERIODS}")


def is_day(value: object) -> bool:
    """Return whether a value is a day, which can begin or end a period."""
    is_text = isinstance(value, str) and "/" not in value and not _MONTH.fullmatch(value)
    named = type(value).__name__ == "datetime64"
    return named or isinstance(value, date) or (is_text and not _YEAR.fullmatch(str(value)))


def time_stated(name: str, value: Any) -> datetime:
    """Return the time that a text in ISO 8601, a date or a datetime states, in UTC."""
    try:
        text = value.isoformat() if isinstance(value, date) else str(value)
        return in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as exc:  # years 0 and 10000 in UTC
        raise SpecError(
            f"got {name}={value!r}, expected a day such as '2021-06-17', or a time in ISO 8601"
        ) from exc


def fetch_of(fetch: Any, scale_m: float | None = None) -> Any:
    """Return what ``fetch`` and the shorthand ``scale_m`` state together.

    Parameters
    ----------
    fetch : FetchSpec, mapping of its fields, iterable of both, or None
        An iterable, for each place of a batch, is returned as it is.
    scale_m : float, optional
        Ground metres per pixel, for ``fetch`` without.

    Raises
    ------
    SpecError
        If a field is unknown, or both state a pixel size.
    """
    if isinstance(fetch, Mapping):
        fetch = FetchSpec(**{str(name): value for name, value in fetch.items()})
    if scale_m is None:
        return fetch
    if fetch is not None and not isinstance(fetch, FetchSpec):
        raise SpecError(
            f"got scale_m={scale_m!r} with fetch={fetch!r:.60}, expected one of them; state "
            "scale_m in each FetchSpec"
        )
    if fetch is not None and fetch.scale_m is not None:
        raise SpecError(
            f"got scale_m={scale_m!r} and fetch with scale_m={fetch.scale_m!r}, expected one of "
            "the two"
        )
    return replace(fetch or FetchSpec(), scale_m=scale_m)


def output_of(value: Any) -> OutputSpec:
    """Return the output that a value states: ``"grid"``, ``"pooled"`` or the name of a pooling.

    Raises
    ------
    SpecError
        If it is none of them; `UnknownNameError` for names.
    """
    if value is None or isinstance(value, OutputSpec):
        return value or OutputSpec.pooled()
    if not isinstance(value, str):
        names = ", ".join(map(repr, (*OUTPUT_MODES, *POOLINGS)))
        raise SpecError(
            f"got output={value!r} ({type(value).__name__}), expected an OutputSpec or one of "
            f"{names}"
        )
    if value in POOLINGS:
        return OutputSpec.pooled(value)
    if value not in OUTPUT_MODES:
        if re.search(r"\.\w+$", value):
            raise SpecError(
                f"got output={value!r}, expected the kind of result: {', '.join(OUTPUT_MODES)} or "
                "a pooling; write the file with Embedding.save(path)"
            )
        raise UnknownNameError.among("output", value, (*OUTPUT_MODES, *POOLINGS))
    return OutputSpec(value)


def imagery_of(value: Any) -> Any:
    """Return imagery as `rs_embed.files.imagery.read_imagery` reads it.

    A dataset that rasterio has open for reading stands for its file, a list of files for their
    bands or their mosaic.

    Raises
    ------
    SpecError
        If such a dataset is closed, or is not the whole content of a file; or a list is empty, or
        holds anything but files.
    """
    if isinstance(value, list | tuple):
        files = [imagery_of(file) for file in value]
        other = [type(f).__name__ for f in files if not isinstance(f, str | os.PathLike)]
        if other or not files:
            raise SpecError(
                f"got imagery as a list of {some(other) or 'nothing'}, expected paths of files: "
                "bands of one scene or neighbouring scenes; join arrays with xarray.concat or "
                "rioxarray.merge.merge_arrays, or embed each: get_embeddings_batch(imageries=[...])"
            )
        return JoinedFiles(tuple(map(os.fspath, files))) if len(files) > 1 else files[0]
    if type(value).__module__.partition(".")[0] != "rasterio":
        return value
    is_file = type(value).__name__ == "DatasetReader" and not value.options
    # What is in memory may be gone when it is read by its name.
    if not is_file or value.closed or value.name.startswith("/vsimem/"):
        state = "closed" if getattr(value, "closed", False) else "not all of a file"
        raise SpecError(
            f"got imagery of rasterio.{type(value).__name__} ({state}), expected a dataset open "
            "for reading, or its path; of others make an array: "
            "imagery=rioxarray.open_rasterio(dataset)"
        )
    return value.name
