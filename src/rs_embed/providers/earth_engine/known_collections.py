"""Collections of Earth Engine whose bands, units and pixels are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rs_embed.errors import ProviderError
from rs_embed.geo.bands import canonical_band
from rs_embed.specs import CloudMask

# Sides of Sentinel-2's pixels whose edges are multiples of the side in their UTM zone. Pixels of
# 60 m are shifted in the south, since the false northing is not a multiple of 60.
_LATTICE_M = (10, 20)


@dataclass(frozen=True)
class Collection:
    """What is known about one collection."""

    id: str
    bands: Mapping[str, int]  # name of each reflectance band -> side of its pixels, metres
    reflectance: tuple[float, float]  # (scale, offset): reflectance = value * scale + offset
    clouds: str  # property that holds the cloud cover of an image, percent
    others: tuple[str, ...] = ()  # bands that are not reflectance
    tile: str | None = None  # property that holds the MGRS tile
    baseline: str | None = None  # property that holds the processing baseline
    masks: tuple[CloudMask, ...] = ()  # cloud masks that are available for it
    note: str = ""  # what a user should know about its values; may be empty
    _spelled: Mapping[str, str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_spelled", {self._spell(band): band for band in self.bands})

    def names(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Return its own names for the ``wanted`` bands: ``B4`` for ``B04`` and ``red``.

        Raises
        ------
        ProviderError
            If it lacks one of them, or that one is not reflectance.
        """
        missing = [band for band in wanted if self._spell(band) not in self._spelled]
        if missing:
            known = {name.upper() for name in self.others}
            kind = (
                f"{self.id} has no reflectance in {', '.join(missing)}"
                if {name.upper() for name in missing} <= known
                else f"{self.id} has no band {', '.join(missing)}"
            )
            raise ProviderError(
                f"{kind}, expected some of {', '.join(self.bands)}; name the bands with "
                "sensor=SensorSpec(collection=..., bands=(red, green, blue))"
            )
        names = tuple(self._spelled[self._spell(band)] for band in wanted)
        if len(set(names)) < len(names):
            raise ProviderError(
                f"got the bands {', '.join(wanted)}, two of which are the same band of {self.id}; "
                "name each once"
            )
        return names

    def pixel_m(self, names: Sequence[str]) -> float:
        """Return the side of the finest pixels of these bands, metres."""
        return min(self.bands[name] for name in names)

    def lattice_m(self, names: Sequence[str]) -> int | None:
        """Return the side of their pixels if its multiples are the edges, in the tile's zone."""
        sides = {self.bands[name] for name in names}
        one = next(iter(sides))
        return one if self.tile and len(sides) == 1 and one in _LATTICE_M else None

    def _spell(self, band: str) -> str:
        return canonical_band(band) if self.tile else band.strip().upper()


_S2_BANDS = {
    "B1": 60, "B2": 10, "B3": 10, "B4": 10, "B5": 20, "B6": 20, "B7": 20, "B8": 10, "B8A": 20,
    "B9": 60, "B11": 20, "B12": 20,
}  # fmt: skip
_L2A_OTHERS = (
    "AOT", "WVP", "SCL", "TCI_R", "TCI_G", "TCI_B", "MSK_CLDPRB", "MSK_SNWPRB", "QA10", "QA20",
    "QA60", "MSK_CLASSI_OPAQUE", "MSK_CLASSI_CIRRUS", "MSK_CLASSI_SNOW_ICE",
)  # fmt: skip
_L1C_OTHERS = (
    "QA10", "QA20", "QA60", "MSK_CLASSI_OPAQUE", "MSK_CLASSI_CIRRUS", "MSK_CLASSI_SNOW_ICE",
)  # fmt: skip
_LANDSAT_UNITS = (2.75e-5, -0.2)
_OLI = tuple(f"SR_B{number}" for number in range(1, 8))
_TM = tuple(f"SR_B{number}" for number in (1, 2, 3, 4, 5, 7))


def _landsat(satellite: str, bands: tuple[str, ...]) -> Collection:
    return Collection(
        f"LANDSAT/{satellite}/C02/T1_L2",
        dict.fromkeys(bands, 30),
        _LANDSAT_UNITS,
        "CLOUD_COVER",
        others=("QA_PIXEL", "QA_RADSAT", "ST_B6" if bands is _TM else "ST_B10"),
    )


_ALL = (
    Collection(
        "COPERNICUS/S2_SR_HARMONIZED",
        _S2_BANDS,
        (1e-4, 0.0),
        "CLOUDY_PIXEL_PERCENTAGE",
        others=_L2A_OTHERS,
        tile="MGRS_TILE",
        baseline="PROCESSING_BASELINE",
        masks=("scl", "cloud_score_plus"),
    ),
    Collection(
        "COPERNICUS/S2_HARMONIZED",
        {**_S2_BANDS, "B10": 60},
        (1e-4, 0.0),
        "CLOUDY_PIXEL_PERCENTAGE",
        others=_L1C_OTHERS,
        tile="MGRS_TILE",
        baseline="PROCESSING_BASELINE",
        masks=("cloud_score_plus",),
        note="COPERNICUS/S2_HARMONIZED holds reflectance at the top of the atmosphere, not of the "
        "surface",
    ),
    _landsat("LC09", _OLI),
    _landsat("LC08", _OLI),
    _landsat("LE07", _TM),
    _landsat("LT05", _TM),
)
COLLECTIONS: Mapping[str, Collection] = {one.id: one for one in _ALL}
# Their values have an offset of 1000 from processing baseline 04.00 (January 2022) on.
UNHARMONISED: Mapping[str, str] = {
    "COPERNICUS/S2_SR": "COPERNICUS/S2_SR_HARMONIZED",
    "COPERNICUS/S2": "COPERNICUS/S2_HARMONIZED",
}
