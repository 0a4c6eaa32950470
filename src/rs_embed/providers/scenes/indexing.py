"""The imagery under a folder, in a file, or in a static STAC catalogue."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rs_embed.addresses import (
    STAC_BYTES,
    check_regular,
    linked_path,
    read_document,
    shown_path,
)
from rs_embed.errors import GridError, ImageryError, ProviderError
from rs_embed.files.dates import acquisition_of
from rs_embed.files.rasters import Header, read_header
from rs_embed.geo.bands import canonical_band, doubtful_bands
from rs_embed.providers.scenes.band_files import is_packed, is_picture, joined_scenes
from rs_embed.providers.scenes.items import parsed_items, usable_scenes
from rs_embed.providers.scenes.products import product_of_name
from rs_embed.providers.scenes.scene import BandAt, Scene, grid_boxes, name_beside
from rs_embed.providers.scenes.selection import distinct_scenes

if TYPE_CHECKING:
    from pystac import Item

_RASTERS = {".tif", ".tiff", ".vrt", ".jp2", ".img"}
_ARCHIVES = (".zip", ".tar")
_TOPS = ("catalog.json", "collection.json")
_OPENED_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Index:
    """The scenes under a root, and what was left out with the reason."""

    root: Path
    scenes: tuple[Scene, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)  # path or id -> reason
    described: frozenset[str] = frozenset()  # paths of the STAC files that were read
    walked: bool = False  # whether the root is a folder that was searched

    @property
    def dated(self) -> bool:
        """Whether any scene has a date."""
        return any(scene.acquired is not None for scene in self.scenes)

    def fingerprint(self) -> str:
        """Return a SHA-256 that changes when a file is added, removed or replaced.

        Sizes and times are the current ones; no file is opened.
        """
        paths = set(self.described)
        for scene in self.scenes:
            paths.update(band.path for band in scene.bands.values())
            paths.update([] if scene.scl is None else [scene.scl.path])
        if self.walked:
            paths.update(str(path) for path in _files_below(self.root))
        return fingerprint_of(paths)


def fingerprint_of(paths: Iterable[str]) -> str:
    """Return a SHA-256 of the names of files, and of their current sizes and times."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        try:
            status = os.stat(path)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "not on this disk"
        digest.update(f"{path}\0{state}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def index_root(root: Path) -> Index:
    """Return the scenes under ``root``: a raster file, a STAC ``.json``, or a folder.

    A folder with ``catalog.json`` or ``collection.json`` is that catalogue; otherwise it is
    searched for STAC items, and for rasters that no item refers to.

    Raises
    ------
    ProviderError
        If ``root`` does not exist, is not a raster or STAC, or has no scene.
    """
    if not root.exists():
        raise ProviderError(
            f"no imagery at {str(root)!r}, which does not exist; correct RS_EMBED_LOCAL or "
            "LocalProvider(root)"
        )
    try:
        check_regular(root)
    except OSError as exc:
        raise ProviderError(f"no imagery at {str(root)!r}: {exc}") from exc
    left_out: dict[str, str] = {}
    linked: set[str] = set()
    base = root.parent if root.is_file() else root
    top = next((path for path in (root, *(root / n for n in _TOPS)) if path.is_file()), None)
    items: list[Item] = []
    files: list[Path] = []
    if top is None:
        items, files = _walk(root, left_out)
    elif top.suffix.lower() == ".json":
        items = _items_in_json(top, left_out, linked)
    else:
        files = [top]
    scenes = distinct_scenes(usable_scenes(items, left_out))
    scenes += _file_scenes(files, base, left_out)
    below = f"{base}{os.sep}"
    left_out = {name.removeprefix(below): reason for name, reason in left_out.items()}
    if not scenes:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:3])
        raise ProviderError(
            f"no imagery in {str(root)!r}: it has no STAC item and no georeferenced raster "
            f"({', '.join(sorted(_RASTERS))}; pictures, masks and angles of products are none)"
            f"{'; left out: ' + reasons if reasons else ''}"
        )
    described = linked.union(item.get_self_href() or "" for item in items) - {""}
    return Index(root, tuple(scenes), left_out, frozenset(described), top is None)


def _walk(root: Path, left_out: dict[str, str]) -> tuple[list[Item], list[Path]]:
    """Return the STAC items below ``root``, and the rasters to which none of them refers."""
    items: list[Item] = []
    rasters: list[Path] = []
    claimed: set[str] = set()
    for path in _files_below(root):
        if path.suffix.lower() == ".json":
            content, kind = _json_in(path, left_out)
            if kind == "FeatureCollection" and "stac_version" in json.dumps(content):
                left_out[str(path)] = "has several STAC items; use it as the root to read them"
            elif kind == "Feature" and "stac_version" in content:
                items += parsed_items([content], str(path), left_out)
                claimed.update(_claimed_files(content, path))
        elif path.suffix.lower() in _ARCHIVES:
            if is_packed(path):
                left_out[str(path)] = "is the archive of a product; unpack it"
        elif not is_picture(path):
            rasters.append(path)
    return items, [path for path in rasters if os.path.realpath(path) not in claimed]


def _claimed_files(feature: dict[str, Any], path: Path) -> Iterator[str]:
    """Yield the files that an item names, valid or not: they are not scenes of their own."""
    assets = feature.get("assets")
    for asset in assets.values() if isinstance(assets, dict) else ():
        href = asset.get("href") if isinstance(asset, dict) else None
        if isinstance(href, str):
            # What cannot be a path is told of with the item.
            with suppress(ValueError, OSError):
                beside = name_beside(str(path), href)
                yield os.path.realpath(beside or linked_path(href, str(path)))


def _files_below(root: Path) -> Iterator[Path]:
    """Yield rasters, JSON files and archives, sorted within each folder."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for path in (Path(folder, name) for name in sorted(names)):
            if path.suffix.lower() in {".json", *_RASTERS, *_ARCHIVES}:
                yield path


def _json_in(path: Path, left_out: dict[str, str]) -> tuple[Any, Any]:
    """Return what is in a file, and its member ``type``."""
    try:
        content = json.loads(read_document(path, STAC_BYTES))
    except (OSError, ValueError, RecursionError) as exc:
        left_out[str(path)] = f"cannot be read as JSON ({exc})"
        return None, None
    return content, content.get("type") if isinstance(content, dict) else None


def _items_in_json(path: Path, left_out: dict[str, str], linked: set[str]) -> list[Item]:
    """Return the items of a STAC Item, ItemCollection, Collection or Catalog.

    The paths of the files that were read are added to ``linked``.
    """
    linked.add(str(path))
    content, kind = _json_in(path, left_out)
    if kind in ("Feature", "FeatureCollection"):
        items = [content] if kind == "Feature" else content.get("features", ())
        return list(parsed_items(items, str(path), left_out))
    if kind in ("Catalog", "Collection"):
        return list(_items_linked(str(path), left_out, linked))
    raise ProviderError(
        f"{str(path)!r} is not a STAC Item, ItemCollection, Collection or Catalog "
        f"({left_out.get(str(path), f'its type is {kind!r}')})"
    )


def _items_linked(path: str, left_out: dict[str, str], seen: set[str]) -> Iterator[Item]:
    """Yield the items that a catalogue on disk and its children link to, in their order."""
    content, kind = _json_in(Path(path), left_out)
    if kind in ("Feature", "FeatureCollection"):
        features = [content] if kind == "Feature" else content.get("features") or ()
        yield from parsed_items(features, path, left_out)
        return
    if kind not in ("Catalog", "Collection"):
        left_out.setdefault(path, f"is not STAC (type {kind!r})")
        return
    links = content.get("links") or []
    if not isinstance(links, list):
        left_out[path] = f"has {type(links).__name__} as links, expected a list"
        return
    for link in links:
        if not isinstance(link, dict) or link.get("rel") not in ("item", "child"):
            continue
        try:
            href = linked_path(str(link.get("href")), path)
        except ValueError as exc:
            left_out[f"{path}, a link"] = str(exc)
            continue
        if href in seen:
            continue
        seen.add(href)
        if "://" in href:
            left_out[shown_path(href)] = "is on the web; read the catalogue with backend='stac'"
        else:
            yield from _items_linked(href, left_out, seen)


def _file_scenes(paths: Sequence[Path], base: Path, left_out: dict[str, str]) -> list[Scene]:
    """Return the scenes of raster files: bands of products joined, and each other file."""

    def look(path: Path) -> Header | str:
        try:
            return read_header(str(path))
        except (ImageryError, GridError) as exc:
            return str(exc)

    with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
        found = dict(zip(paths, pool.map(look, paths), strict=True))
    left_out.update({str(p): reason for p, reason in found.items() if isinstance(reason, str)})
    headers = {path: header for path, header in found.items() if isinstance(header, Header)}
    joined, others = joined_scenes(headers, base, left_out)
    return [*joined, *(scene_of_file(path, headers[path], base) for path in others)]


def scene_of_file(path: Path, header: Header, base: Path) -> Scene:
    """Return the scene of a raster file; its id is the path below ``base``."""
    places = [BandAt(str(path), i) for i in range(1, len(header.names) + 1)]
    named = any(header.names)
    bands = _by_name(header.names, places) if named else {str(p.index): p for p in places}
    product = product_of_name(path.stem)
    if {*header.scales, *header.offsets} != {1, 0}:
        product = replace(product, baseline=None)  # the file declares its units
    dated = acquisition_of(header.tags, path.name)
    notes = (dated.note, doubtful_bands(header.names))
    return Scene(
        id=path.relative_to(base).as_posix(),
        acquired=dated.moment,
        cloud_pct=None,
        bands=bands,
        footprint=grid_boxes(header.grid),
        named=named,
        nodata=header.nodatavals[0],
        product=product,
        is_file=True,
        notes=tuple(note for note in notes if note is not None),
    )


def _by_name(names: Sequence[str | None], places: Sequence[BandAt]) -> dict[str, BandAt]:
    """Return the bands by `canonical_band`; a name that two bands share is ignored."""
    keys = [canonical_band(name) if name else "" for name in names]
    return {
        key: place for key, place in zip(keys, places, strict=True) if key and keys.count(key) == 1
    }
