"""Band names: their spellings, and the positions of the bands that a caller wants."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from rs_embed.errors import ImageryError, some

# STAC common names of the Sentinel-2 bands that ScaleMAE uses (STAC eo extension).
_COMMON_NAMES = {"RED": "B4", "GREEN": "B3", "BLUE": "B2", "R": "B4", "G": "B3", "B": "B2"}
# Beginnings of the common names of Sentinel-2's bands.
_COMMON_OF = {
    "B1": "COASTAL", "B2": "BLUE", "B3": "GREEN", "B4": "RED", "B5": "REDEDGE", "B6": "REDEDGE",
    "B7": "REDEDGE", "B8": "NIR", "B8A": "NIR", "B9": "NIR", "B10": "CIRRUS", "B11": "SWIR16",
    "B12": "SWIR22",
}  # fmt: skip
# Other common names of STAC, and numbers of bands.
_SPECTRAL = re.compile(
    r"B\d+A?|(?:RED|GREEN|BLUE)|COASTAL|YELLOW|PAN|REDEDGE\d*|NIR\d*|SWIR\d*|LWIR\d*|CIRRUS"
)
# Least and greatest wavelength of each band of Sentinel-2A in nm: centre and width in ESA's
# Sentinel-2 User Handbook, table 1 of the spectral bands.
_PASSBANDS = {
    name: (centre - width / 2, centre + width / 2)
    for name, centre, width in (
        ("B1", 442.7, 21), ("B2", 492.4, 66), ("B3", 559.8, 36), ("B4", 664.6, 31),
        ("B5", 704.1, 15), ("B6", 740.5, 15), ("B7", 782.8, 20), ("B8", 832.8, 106),
        ("B8A", 864.7, 21), ("B9", 945.1, 20), ("B10", 1373.5, 31), ("B11", 1613.7, 91),
        ("B12", 2202.4, 175),
    )
}  # fmt: skip


def band_indexes(names: Sequence[str | None], wanted: Sequence[str], source: str) -> list[int]:
    """Return the 1-based positions of the ``wanted`` bands."""
    if not any(names):
        if len(names) != len(wanted):
            raise ImageryError(
                f"{source!r} has {len(names)} bands without names, expected the {len(wanted)} "
                f"bands {', '.join(wanted)} in this order; set band descriptions, or extract these "
                "bands first"
            )
        return list(range(1, len(names) + 1))
    canonical = [canonical_band(name) if name else "" for name in names]
    ambiguous = [band for band in wanted if canonical.count(canonical_band(band)) > 1]
    if ambiguous:
        raise ImageryError(
            f"{source!r} has several bands named {', '.join(ambiguous)}, expected one of each; "
            "rename them, or extract the right ones first"
        )
    positions = {name: i for i, name in enumerate(canonical, 1)}
    missing = [band for band in wanted if canonical_band(band) not in positions]
    if missing:
        if re.fullmatch(r"(?:dimension|component) \d+", names[0] or ""):
            raise ImageryError(
                f"{source!r} has {len(names)} bands named {names[0]!r} and so on: it is a grid or "
                "map of tokens, expected imagery; open it with Embedding.load or open_map"
            )
        raise ImageryError(
            f"{source!r} has the bands {some(list(map(str, names)), 12)}, expected "
            f"{', '.join(wanted)}: {', '.join(missing)} not found; name its red, green and blue "
            "bands with sensor=SensorSpec(collection=..., bands=(red, green, blue))"
        )
    return [positions[canonical_band(band)] for band in wanted]


def canonical_band(band: str) -> str:
    """Return ``B4`` for ``B04``, ``b4`` and ``red``, and other names in upper case.

    What follows a comma is a comment, as in GDAL's ``B4, central wavelength 665 nm``.
    """
    name = band.partition(",")[0].strip().upper()
    if name[:1] == "B" and name[1:].isdecimal():
        return f"B{int(name[1:])}"
    return _COMMON_NAMES.get(name, name)


def is_spectral(name: str | None) -> bool:
    """Return whether the name of a band is one of a spectral band, such as ``B8`` or ``nir``."""
    return bool(name and _SPECTRAL.fullmatch(canonical_band(name)))


def agrees(name: str, common: str) -> bool:
    """Return whether the name of a band, read as one of Sentinel-2, may have a common name.

    ``B4`` is red, and so contradicts ``nir08``, as Landsat 5 calls its band 4. Names of other
    kinds contradict nothing.
    """
    known = _COMMON_OF.get(canonical_band(name))
    other = canonical_band(common)
    return known is None or other == canonical_band(name) or other.startswith(known)


def doubtful_bands(names: Iterable[str | None]) -> str | None:
    """Return a note if the bands are B1 to B4: B4 may be red or near infrared."""
    if {canonical_band(name) for name in names if name} != {"B1", "B2", "B3", "B4"}:
        return None
    return (
        "the bands B1, B2, B3 and B4 were taken for those of Sentinel-2, where B4 is red; if they "
        "are blue, green, red and near infrared, as those of PlanetScope, name them so"
    )


def bands_of_wavelengths(wavelengths_nm: Sequence[float], wanted: Sequence[str]) -> list[int]:
    """Return the 1-based positions of the ``wanted`` bands among wavelengths.

    A wavelength is that of a band if it lies in the passband of the Sentinel-2 band of that name.

    Raises
    ------
    ImageryError
        If a band of another name is wanted, or not exactly one wavelength is that of a band.
    """
    shown = ", ".join(f"{nm:.9g}" for nm in wavelengths_nm[:20]) + ", ..." * (
        len(wavelengths_nm) > 20
    )
    found = []
    for band in wanted:
        limits = _PASSBANDS.get(canonical_band(band))
        low, high = limits or (math.nan, math.nan)
        within = [at for at, nm in enumerate(wavelengths_nm, 1) if low <= nm <= high]
        if len(within) != 1:
            expected = (
                f"at {low:.0f} to {high:.0f} nm" if limits else "by name: it has no wavelength"
            )
            raise ImageryError(
                f"got {len(within)} bands for {band} among those at {shown} nm, expected one "
                f"{expected}; select the bands that you mean, and name them: "
                "array.assign_coords(band=['B4', 'B3', 'B2'])"
            )
        found += within
    return found
