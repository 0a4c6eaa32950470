"""When a file was acquired: what its metadata say, else its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

# Tags with the time of acquisition: GDAL's domain IMAGERY, and what tools and products write.
_ACQUIRED_TAGS = (
    "ACQUISITIONDATETIME", "datetime", "DATETIME", "SENSING_TIME", "PRODUCT_START_TIME",
    "DATATAKE_1_DATATAKE_SENSING_START",
)  # fmt: skip
# When the file was written, by TIFF 6.0, section 8; cameras and some tools write the acquisition.
_WRITTEN_TAG = "TIFFTAG_DATETIME"
# Products of ESA before December 2016: names begin with when they were made.
_SENSING = re.compile(r"_V(\d{8}T\d{6})(?:_|$|\.)")
_IN_NAME = re.compile(
    r"(?<!\d)(?:(?P<day>(?:19|20)\d{6})(?:[T-](?P<time>\d{6}))?"
    r"|(?P<iso>(?:19|20)\d\d-\d\d-\d\d)"
    r"|(?P<of_year>(?:19|20)\d{5}T\d{6}))(?!\d)"
)


class Dated(NamedTuple):
    """When imagery was acquired, in UTC, and what is doubtful about it."""

    moment: datetime | None
    note: str | None = None


def acquisition_of(tags: Mapping[str, str], name: str, named: datetime | None = None) -> Dated:
    """Return when a file was acquired: from its metadata, else the first date in its name.

    ``TIFFTAG_DATETIME`` is when the file was written, and counts only if nothing else is known.

    Parameters
    ----------
    tags : mapping
        Metadata of the file, that of GDAL's domain ``IMAGERY`` included.
    name : str
        Its name, without folders.
    named : datetime, optional
        The date in the name, or in those of folders; that of `moment_in` if not given.
    """
    stated = (moment_of(tags.get(tag, "")) for tag in _ACQUIRED_TAGS)
    in_metadata = next((moment for moment in stated if moment is not None), None)
    named = moment_in(name) if named is None else named
    written = moment_of(tags.get(_WRITTEN_TAG, ""))
    found = in_metadata or named
    if found is None and written is not None:
        return Dated(
            written,
            f"{name!r} has no date but {_WRITTEN_TAG}, which is when the file was written: "
            f"{written.date()} was taken for the date of the imagery",
        )
    others = ((named, "its name"), (written, _WRITTEN_TAG))
    differing = [
        f"{where} says {other.date()}"
        for other, where in others
        if found is not None and other is not None and other.date() != found.date()
    ]
    if found is None or not differing:
        return Dated(found)
    source = "its metadata" if in_metadata else "its name"
    return Dated(
        found,
        f"{name!r} was taken for imagery of {found.date()}, as {source} says; "
        + ", and ".join(differing),
    )


def moment_in(name: str) -> datetime | None:
    """Return the first date in a name, with its time if one follows, in UTC.

    ``20230815``, ``20230815T100559``, ``20230815-100559``, ``2023-08-15``, and with the day of the
    year as in HLS, ``2023227T100559``. In products of ESA, the time after ``_V`` comes first.
    """
    if sensing := _SENSING.search(name):
        return moment_of(sensing[1])
    for match in _IN_NAME.finditer(name):
        if match["of_year"]:
            try:
                return datetime.strptime(match["of_year"], "%Y%jT%H%M%S").replace(tzinfo=UTC)
            except ValueError:
                continue
        text = match["iso"] or f"{match['day']}T{match['time'] or '000000'}"
        moment = moment_of(text)
        if moment is None and match["time"]:  # other six digits
            moment = moment_of(match["day"])
        if moment is not None:
            return moment
    return None


def moment_of(text: str) -> datetime | None:
    """Return a date in the notation of ISO 8601 or TIFF (``2023:08:15 10:00:00``), in UTC."""
    text = re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text.strip())
    try:
        return in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def in_utc(moment: datetime) -> datetime:
    """Return ``moment`` in UTC, which it is in already if it names no zone."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
