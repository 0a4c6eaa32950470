"""Band names: their spellings, and the positions of the bands that a caller wants."""

from __future__ import annotations

from collections.abc import Sequence

from rs_embed.errors import ImageryError

# STAC common names of the Sentinel-2 bands that ScaleMAE uses (STAC eo extension).
_COMMON_NAMES = {"RED": "B4", "GREEN": "B3", "BLUE": "B2", "R": "B4", "G": "B3", "B": "B2"}


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
        raise ImageryError(
            f"{source!r} has the bands {', '.join(str(n) for n in names)}, expected "
            f"{', '.join(wanted)}: {', '.join(missing)} not found; name its red, green and blue "
            "bands with sensor=SensorSpec(collection=..., bands=(red, green, blue))"
        )
    return [positions[canonical_band(band)] for band in wanted]


def canonical_band(band: str) -> str:
    """Return ``B4`` for ``B04``, ``b4`` and ``red``, and other names in upper case."""
    name = band.strip().upper()
    if name[:1] == "B" and name[1:].isdigit():
        return f"B{int(name[1:])}"
    return _COMMON_NAMES.get(name, name)
