"""Products of Sentinel-2, from names and items, and which reprocess the same pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

# Product names of ESA (Planetary Computer omits the baseline), then ids of Earth Search.
_PRODUCT = re.compile(
    r"(S2[A-D])_MSI(L\w\w)_(\d{8}T\d{6})_(?:N(\d{4})_)?(R\d{3})_(T\w{5})_(\d{8}T\d{6})(?:\.SAFE)?"
)
_EARTH_SEARCH_ID = re.compile(r"(S2[A-D])_(\d{1,2}\w{3})_(\d{8})_(\d+)_(L\w\w)")
_STRIP_START = re.compile(r"_S(\d{8}T\d{6})(?:_|$)")
# Whatever is stated from this one on is no baseline of ESA.
_NO_BASELINE = 90.0
_BASELINES = (r"N?(\d{1,2})\.(\d{1,2})", r"N?(\d\d)(\d\d)", r"N?(\d{1,2})()")
# Sen2Cor's nodata, saturated, cloud shadow, cloud of medium and high probability, cirrus.
MASKED_CLASSES = (0, 1, 3, 8, 9, 10)
# Greatest difference of the times that two processings state for one acquisition.
SAME_TIME_S = 5


@dataclass(frozen=True)
class Product:
    """What is known about the Sentinel-2 product of a scene."""

    # Mission, level, time, orbit and tile, which processings of one acquisition share, and also the
    # parts of a tile that is split between datastrips; empty if nothing is known.
    key: tuple[str, ...] = ()
    # Processing baseline, e.g. 5.09.
    baseline: float | None = None
    # Whether a baseline is stated that says nothing, as 99.99 of processing by users.
    odd_baseline: bool = False
    processed: str = ""  # when it was processed, digits that sort by time; empty if unknown
    sequence: int = 0  # number of the item among those of one day and tile at Earth Search
    strip: str | None = None  # start or id of its datastrip
    take: str | None = None  # id of its datatake, without the baseline

    @property
    def version(self) -> tuple[float, str, int]:
        """Greatest for the newest processing."""
        return self.baseline or 0.0, self.processed, self.sequence

    def may_reprocess(self, other: Product) -> bool:
        """Return whether both may be the same acquisition, processed twice."""
        return (
            bool(self.key)
            and self.key == other.key
            and (None in (self.take, other.take) or self.take == other.take)
            and _same_start(self.strip, other.strip)
        )


def product_of_name(name: str) -> Product:
    """Return the product that an ESA name or an id of Earth Search describes."""
    if match := _PRODUCT.fullmatch(name):
        mission, level, sensed, baseline, orbit, tile, processed = match.groups()
        number = None if baseline is None else baseline_number(baseline)
        odd = number is not None and number >= _NO_BASELINE
        key = (mission, level, sensed, orbit, tile)
        return Product(key, None if odd else number, odd, _digits(processed))
    if match := _EARTH_SEARCH_ID.fullmatch(name):
        mission, tile, day, sequence, level = match.groups()
        return Product((mission, level, day, tile), sequence=int(sequence))
    return Product()


def product_of_item(name: str, properties: Mapping[str, Any]) -> Product:
    """Return the product that the id and the properties of a STAC item describe.

    Raises
    ------
    ValueError
        If its processing baseline is invalid.
    """

    def stated(name: str) -> Any:
        """Return a property by its name today, or in version 0 of Earth Search."""
        return properties.get(f"s2:{name}", properties.get(f"sentinel:{name}"))

    names = (stated("product_uri"), stated("product_id"), name)
    found = [product_of_name(str(n)) for n in names if n]
    product = next((p for p in found if p.key), Product())
    named = next((p.baseline for p in found if p.baseline is not None), None)
    baseline = stated("processing_baseline")
    if baseline is None and _is_sentinel_2(product, properties):
        version = str(properties.get("processing:version", ""))  # of any software, by its extension
        baseline = version if re.fullmatch(r"\d\d\.\d\d", version) else None
    number = named if baseline is None else baseline_number(baseline)
    processed = stated("generation_time") or properties.get("created")
    strip, take = stated("datastrip_id"), stated("datatake_id")
    start = _STRIP_START.search(str(strip))
    odd = product.odd_baseline if number is None else number >= _NO_BASELINE
    return replace(
        product,
        baseline=None if odd else number,
        odd_baseline=odd,
        processed=_digits(str(processed)) if processed else product.processed,
        sequence=product_of_name(name).sequence,
        strip=None if strip is None else start[1] if start else str(strip),
        take=None if take is None else re.sub(r"_N[\d.]+$", "", str(take)),
    )


def _is_sentinel_2(product: Product, properties: Mapping[str, Any]) -> bool:
    about = f"{properties.get('platform')} {properties.get('constellation')}".lower()
    return bool(product.key) or "sentinel-2" in about


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
            "remove it if the values have no offset"
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
