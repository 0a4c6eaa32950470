"""Band names: the ways to write one, and where the wanted ones stand."""

from __future__ import annotations

from collections.abc import Sequence

from rs_embed.errors import ImageryError

# STAC common names of the Sentinel-2 bands that ScaleMAE takes (STAC eo extension).
_COMMON_NAMES = {"RED": "B4", "GREEN": "B3", "BLUE": "B2", "R": "B4", "G": "B3", "B": "B2"}


def band_indexes(names: Sequence[str | None], wanted: Sequence[str], source: str) -> list[int]:
    """Return the 1-based positions of the ``wanted`` bands."""
    if not any(names):
        if len(names) != len(wanted):
            raise ImageryError(
                f"{source!r} has {len(names)} bands without names, expected the {len(wanted)} "
                f"bands {', '.join(wanted)} in this order; name them (band descriptions) or "
                "extract them first"
            )
        return list(range(1, len(names) + 1))
    canonical = [canonical_band(name) if name else "" for name in names]
    doubled = [band for band in wanted if canonical.count(canonical_band(band)) > 1]
    if doubled:
        raise ImageryError(
            f"{source!r} has several bands named {', '.join(doubled)}; rename or extract the right "
            "ones first"
        )
    places = {name: i for i, name in enumerate(canonical, 1)}
    missing = [band for band in wanted if canonical_band(band) not in places]
    if missing:
        raise ImageryError(
            f"{source!r} has the bands {', '.join(str(n) for n in names)}, expected "
            f"{', '.join(wanted)}: {', '.join(missing)} not found; name its red, green and blue "
            "bands with sensor=SensorSpec(collection=..., bands=(red, green, blue))"
        )
    return [places[canonical_band(band)] for band in wanted]


def canonical_band(band: str) -> str:
    """Return ``B4`` for ``B04``, ``b4`` and ``red``; other names in capitals."""
    name = band.strip().upper()
    if name[:1] == "B" and name[1:].isdigit():
        return f"B{int(name[1:])}"
    return _COMMON_NAMES.get(name, name)
