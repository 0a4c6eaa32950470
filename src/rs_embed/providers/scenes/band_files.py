"""Products on disk whose bands are files of their own: which belong together, and as what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from rs_embed.addresses import read_document
from rs_embed.files.dates import acquisition_of, moment_in, moment_of
from rs_embed.files.rasters import Header
from rs_embed.geo.bands import canonical_band, doubtful_bands
from rs_embed.providers.scenes.aligning import window_within
from rs_embed.providers.scenes.products import Product, baseline_number, product_of_name
from rs_embed.providers.scenes.scene import BandAt, Scene, grid_boxes

_ETM = {"B1": "blue", "B2": "green", "B3": "red", "B4": "nir08", "B5": "swir16", "B7": "swir22"}
_OLI = {
    "B1": "coastal", "B2": "blue", "B3": "green", "B4": "red", "B5": "nir08", "B6": "swir16",
    "B7": "swir22",
}  # fmt: skip
_PLANET = {"B1": "blue", "B2": "green", "B3": "red", "B4": "nir"}


@dataclass(frozen=True)
class _Naming:
    """How a family of products names the files of its bands, and what their values are."""

    pattern: str  # of a whole name without suffix; groups: of (the acquisition), band
    bands: Mapping[str, str] = field(default_factory=dict)  # common names; others as they are
    units: tuple[float, float] | None = None  # if the files declare none
    refused: str | None = None  # why its files are no imagery


_S2_BAND = r"(?P<band>B\d\d|B8A|SCL)(?:_\d\dm)?"
_ANY = _Naming(r"(?:(?P<of>.+)[_.-])?(?P<band>B\d\d?A?|SCL|red|green|blue|nir)(?:_\d\dm)?")
_NAMINGS = (
    # HLS User Guide 2.0: names and scale of surface reflectance.
    _Naming(r"(?P<of>HLS\.L30\..+)\.(?P<band>B\d\d)", _OLI, (1e-4, 0.0)),
    _Naming(r"(?P<of>HLS\.S30\..+)\.(?P<band>B\d\d|B8A)", units=(1e-4, 0.0)),
    # Landsat Collection 2 Level-2 Science Product Guides: surface reflectance.
    _Naming(r"(?P<of>LC0[89]_L2S[PR]_.+)_SR_(?P<band>B\d)", _OLI, (2.75e-5, -0.2)),
    _Naming(r"(?P<of>L[TE]0[457]_L2S[PR]_.+)_SR_(?P<band>B\d)", _ETM, (2.75e-5, -0.2)),
    _Naming(
        r"(?P<of>L[COTEM]0\d_L1\w\w_.+)_(?P<band>B\d\d?)",
        refused="is of a Level-1 product of Landsat, whose values are no reflectance; download the "
        "Level-2 product (L2SP)",
    ),
    # Sentinel-2: in a SAFE, new and old, and in mirrors that keep its names.
    _Naming(rf"(?P<of>(?:L2A_)?T\d\d[A-Z]{{3}}_\d{{8}}T\d{{6}})_{_S2_BAND}"),
    _Naming(rf"(?P<of>S2[A-D]_OPER_MSI_.+)_{_S2_BAND}"),
    _ANY,
)
# Pictures for display, masks, angles, and classes other than the SCL.
_NO_DATA = re.compile(
    r"(?:.*[_.-])?(?:TCI|PVI|AOT|WVP|CLDPRB|SNWPRB|QA_PIXEL|QA_RADSAT|SR_QA_AEROSOL|SR_CLOUD_QA"
    r"|SR_ATMOS_OPACITY|ST_[A-Z0-9]+|Fmask|[SV][AZ]A|udm2?|preview|thumb(?:nail)?|quicklook|browse"
    r"|ql)(?:_\d\dm|_\d+x\d+)?|MSK_.*",
    re.IGNORECASE,
)
_PACKED = re.compile(r"(?:S2[A-D]_.+|L[COTE]0\d_.+|.+\.SAFE)\.(?:zip|tar)", re.IGNORECASE)
_RESOLUTION_FOLDER = re.compile(r"R?\d\dm", re.IGNORECASE)
_DAY_FOLDERS = re.compile(r"/(\d{4})/(\d{1,2})/(\d{1,2})(?:/|$)")
_OLD_BASELINE = re.compile(r"_N(\d\d\.\d\d)(?:\W|$)")
_STATED_BASELINE = re.compile(rb"<PROCESSING_BASELINE>\s*([\d.]+)\s*<")


def is_picture(path: Path) -> bool:
    """Return whether a file is a picture, a mask or angles of a product, by its name."""
    return _NO_DATA.fullmatch(path.stem) is not None


def is_packed(path: Path) -> bool:
    """Return whether a file is the archive of a product, by its name."""
    return _PACKED.fullmatch(path.name) is not None


@dataclass(frozen=True, eq=False)
class _Band:
    """The file of one band of an acquisition."""

    path: Path
    header: Header
    name: str
    naming: _Naming


def joined_scenes(
    headers: Mapping[Path, Header], base: Path, left_out: dict[str, str]
) -> tuple[list[Scene], list[Path]]:
    """Return scenes of the files that hold one band each of an acquisition, and the other files.

    Files belong together that are in one folder, or in folders of it such as ``R10m``, and whose
    names differ in the band only. Of a band in several resolutions the finest counts.

    Parameters
    ----------
    headers : mapping
        Rasters and their metadata.
    base : path
        Folder to which the ids of scenes are relative.
    left_out : dict
        Receives the files that cannot be joined, with the reason.
    """
    groups: dict[tuple[Path, str], list[_Band]] = {}
    others = []
    for path, header in headers.items():
        found = _named(path) if len(header.names) == 1 else None
        if found is None:
            others.append(path)
            continue
        naming, of, name = found
        if naming.refused is not None:
            left_out[str(path)] = naming.refused
            continue
        groups.setdefault((_product_folder(path), of), []).append(_Band(path, header, name, naming))
    scenes = []
    for (folder, of), bands in groups.items():
        reason = _cannot_be_joined(bands)
        if reason is None:
            scenes.append(_scene(folder, of, _finest(bands), base))
        else:
            left_out.update({str(band.path): reason for band in bands})
    return scenes, others


def _named(path: Path) -> tuple[_Naming, str, str] | None:
    """Return how a file is named, the acquisition, and its band; None if it is not one band's."""
    for naming in _NAMINGS:
        match = re.fullmatch(naming.pattern, path.stem, re.IGNORECASE)
        if match is not None:
            band = canonical_band(match["band"])
            return naming, match["of"] or "", naming.bands.get(band, band)
    return None


def _product_folder(path: Path) -> Path:
    folder = path.parent
    return folder.parent if _RESOLUTION_FOLDER.fullmatch(folder.name) else folder


def _cannot_be_joined(bands: Sequence[_Band]) -> str | None:
    """Return why files are not the bands of one acquisition."""
    first = bands[0].header.grid
    fix = "or join files that belong together: gdalbuildvrt -separate scene.vrt RED GREEN BLUE"
    for band in bands:
        grid = band.header.grid
        pixel = max(abs(first.transform.a), abs(grid.transform.a))
        apart = max(abs(a - b) for a, b in zip(first.bounds, grid.bounds, strict=True))
        if grid.crs != first.crs or apart > pixel:
            problem = f"{band.path.name} covers other ground than {bands[0].path.name}"
            shared = window_within(first, *(band.header.grid for band in bands))
            if shared is not None:
                bounds = " ".join(f"{v:.12g}" for v in shared.bounds)
                fix = f"or cut all bands to the ground they share: gdalwarp -te {bounds} IN OUT"
            break
    else:
        seen: dict[tuple[str, tuple[int, int]], str] = {}
        for band in bands:
            key = (band.name, band.header.grid.shape)
            if key in seen:
                problem = f"{band.path.name} and {seen[key]} are the same band"
                break
            seen[key] = band.path.name
        else:
            return None
    return (
        f"cannot be joined to a scene by its name: {problem}; keep each acquisition in a folder of "
        f"its own, {fix}"
    )


def _finest(bands: Sequence[_Band]) -> dict[str, _Band]:
    """Return each band once, from its file with the smallest pixels."""
    by_size = sorted(bands, key=lambda band: abs(band.header.grid.transform.a), reverse=True)
    return {band.name: band for band in by_size}


def _scene(folder: Path, of: str, bands: dict[str, _Band], base: Path) -> Scene:
    safe = next((p for p in (folder, *folder.parents) if p.suffix.upper() == ".SAFE"), None)
    classes = bands.pop("SCL", None) if len(bands) > 1 else None
    first = next(iter(bands.values()))
    product = _product(folder, of, safe)
    dated = acquisition_of(first.header.tags, of or folder.name, _acquired(folder, of, base))
    notes = [] if dated.note is None else [dated.note]
    if first.naming is _ANY and not product.key and doubtful_bands(bands):
        planet = _planet_metadata(folder)
        if planet is not None:
            bands = {_PLANET.get(name, name): band for name, band in bands.items()}
        else:
            notes.append(f"{folder.name}: {doubtful_bands(bands)}")
    declared = any(_has_units(band.header) for band in bands.values())
    if declared:
        product = replace(product, baseline=None)  # the files declare their units
    return Scene(
        id=_id(folder, of, safe, base),
        acquired=dated.moment,
        cloud_pct=None,
        bands={
            canonical_band(name): BandAt(str(band.path), 1, None if declared else band.naming.units)
            for name, band in bands.items()
        },
        footprint=grid_boxes(first.header.grid),
        scl=None if classes is None else BandAt(str(classes.path), 1),
        nodata=first.header.nodatavals[0],
        product=product,
        is_file=safe is None,
        notes=tuple(notes),
    )


def _has_units(header: Header) -> bool:
    return {*header.scales, *header.offsets} != {1, 0}


def _id(folder: Path, of: str, safe: Path | None, base: Path) -> str:
    """Return the path below ``base`` of the product, or of the folder, and the acquisition."""
    home = safe if safe is not None and safe.is_relative_to(base) else folder
    within = home != base and home.is_relative_to(base)
    below = home.relative_to(base).as_posix() if within else home.name
    return f"{below}/{of}" if of else below


def _product(folder: Path, of: str, safe: Path | None) -> Product:
    """Return the product of Sentinel-2 that names or metadata describe."""
    names = [of, folder.name, *(parent.name for parent in folder.parents)]
    product = next((p for p in map(product_of_name, names) if p.key), Product())
    if product.baseline is not None:
        return product
    in_name = next(filter(None, map(_OLD_BASELINE.search, names)), None)
    stated = in_name[1] if in_name else None if safe is None else _baseline_in(safe)
    return replace(product, baseline=None if stated is None else baseline_number(stated))


def _baseline_in(safe: Path) -> str | None:
    """Return the processing baseline that the metadata of a SAFE state."""
    for path in sorted(safe.glob("*MTD*.xml")):
        if match := _STATED_BASELINE.search(_document(path)):
            return match[1].decode()
    return None


def _document(path: Path) -> bytes:
    """Return the content of a metadata file; empty if it cannot be read."""
    try:
        return read_document(path)
    except OSError:
        return b""


def _planet_metadata(folder: Path) -> Path | None:
    """Return the metadata beside files if they are of PlanetScope."""
    for path in sorted(folder.glob("*metadata*.xml")):
        if b"PlanetScope" in _document(path):
            return path
    return None


def _acquired(folder: Path, of: str, base: Path) -> datetime | None:
    """Return the date in the names of files, else in that of a folder above them."""
    above = [folder, *folder.parents]
    within = [p for p in above if p.is_relative_to(base) or ".SAFE" in p.as_posix().upper()]
    names = [of, *(p.name for p in within)]
    # Files of old products are named by when they were made, their folder by the acquisition.
    first = [name for name in names if "_V20" in name]
    found = next(filter(None, map(moment_in, [*first, *names])), None)
    if found is None and (match := _DAY_FOLDERS.search(folder.as_posix())):
        year, month, day = map(int, match.groups())
        return moment_of(f"{year:04}-{month:02}-{day:02}")
    return found
