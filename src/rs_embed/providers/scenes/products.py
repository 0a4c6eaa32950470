"""Products of Sentinel-2: what their names and items say, and which reprocess the same pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

# Product names of ESA (Planetary Computer leaves out the baseline), then ids of Earth Search.
_PRODUCT = re.compile(
    r"(S2[A-D])_MSI(L\w\w)_(\d{8}T\d{6})_(?:N(\d{4})_)?(R\d{3})_(T\w{5})_(\d{8}T\d{6})(?:\.SAFE)?"
)
_EARTH_SEARCH_ID = re.compile(r"(S2[A-D])_(\d{1,2}\w{3})_(\d{8})_(\d+)_(L\w\w)")
_STRIP_START = re.compile(r"_S(\d{8}T\d{6})(?:_|$)")
_BASELINES = (r"N?(\d{1,2})\.(\d{1,2})", r"N?(\d\d)(\d\d)", r"N?(\d{1,2})()")
# Sen2Cor's nodata, saturated, cloud shadow, cloud of medium and high probability, cirrus.
MASKED_CLASSES = (0, 1, 3, 8, 9, 10)
# Between the times that two processings state for one acquisition.
SAME_TIME_S = 5


@dataclass(frozen=True)
class Product:
    """What is known of the Sentinel-2 product that a scene comes from.

    Attributes
    ----------
    key : tuple of str
        Mission, level, time, orbit and tile: what processings of one acquisition share, and also
        what parts of a tile share that is split between datastrips; empty if nothing is known.
    baseline : float or None
        Processing baseline, e.g. 5.09.
    made : str
        When it was processed, digits that sort by time; empty if nothing says.
    sequence : int
        Number that Earth Search gives to items of one day and tile, for whatever reason.
    strip : str or None
        Where its datastrip begins, or the id of it.
    take : str or None
        Id of its datatake, without the baseline.
    """

    key: tuple[str, ...] = ()
    baseline: float | None = None
    made: str = ""
    sequence: int = 0
    strip: str | None = None
    take: str | None = None

    @property
    def version(self) -> tuple[float, str, int]:
        """Greatest for the newest processing."""
        return self.baseline or 0.0, self.made, self.sequence

    def may_reprocess(self, other: Product) -> bool:
        """Return whether both may be one acquisition, processed twice."""
        return (
            bool(self.key)
            and self.key == other.key
            and (None in (self.take, other.take) or self.take == other.take)
            and _same_start(self.strip, other.strip)
        )


def product_of_name(name: str) -> Product:
    """Return what the name of a Sentinel-2 product, or an id of Earth Search, says."""
    if match := _PRODUCT.fullmatch(name):
        mission, level, sensed, baseline, orbit, tile, made = match.groups()
        number = None if baseline is None else baseline_number(baseline)
        return Product((mission, level, sensed, orbit, tile), number, _digits(made))
    if match := _EARTH_SEARCH_ID.fullmatch(name):
        mission, tile, day, sequence, level = match.groups()
        return Product((mission, level, day, tile), sequence=int(sequence))
    return Product()


def product_of_item(name: str, said: Mapping[str, Any]) -> Product:
    """Return what the id and the properties of a STAC item say.

    Raises
    ------
    ValueError
        If it states a processing baseline that is none.
    """
    names = (said.get("s2:product_uri"), said.get("s2:product_id"), name)
    found = [product_of_name(str(n)) for n in names if n]
    product = next((p for p in found if p.key), Product())
    stated = said.get("s2:processing_baseline")
    named = next((p.baseline for p in found if p.baseline is not None), None)
    made = said.get("s2:generation_time") or said.get("created")
    strip, take = said.get("s2:datastrip_id"), said.get("s2:datatake_id")
    start = _STRIP_START.search(str(strip))
    return replace(
        product,
        baseline=named if stated is None else baseline_number(stated),
        made=_digits(str(made)) if made else product.made,
        sequence=product_of_name(name).sequence,
        strip=None if strip is None else start[1] if start else str(strip),
        take=None if take is None else re.sub(r"_N[\d.]+$", "", str(take)),
    )


def baseline_number(stated: object) -> float:
    """Return a processing baseline, e.g. 5.09 for ``"05.09"``, ``"5.09"``, ``"N0509"`` or 5.09.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    found = (re.fullmatch(pattern, str(stated).strip()) for pattern in _BASELINES)
    match = next((m for m in found if m is not None), None)
    if match is None:
        raise ValueError(
            f"got s2:processing_baseline={stated!r}, expected one such as '05.09'; correct it, or "
            "take it out if the values have no offset"
        )
    return float(f"{match[1]}.{match[2] or 0}")


def _digits(moment: str) -> str:
    """Return year to second of a moment in any notation of ISO 8601."""
    return re.sub(r"\D", "", moment)[:14]


def _same_start(one: str | None, other: str | None) -> bool:
    if one is None or other is None or one == other:
        return True
    try:
        apart = datetime.fromisoformat(one) - datetime.fromisoformat(other)
    except ValueError:
        return False
    return abs(apart.total_seconds()) <= SAME_TIME_S
