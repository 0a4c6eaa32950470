"""Metadata of results for other software: addresses of model and imagery, and the layout."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rs_embed.errors import UnknownNameError
from rs_embed.registry import describe_model

if TYPE_CHECKING:
    from rs_embed.geo.grid import Grid

_ARTIFACT_TYPES = {
    ".safetensors": "safetensors.torch.save_file",
    **dict.fromkeys((".pth", ".pt", ".bin", ".ckpt"), "torch.save"),
}
ITEM_KEY = "emb:runtime_parameters"
# Name in GDAL of a part of a file: NETCDF:"file.nc":variable. One letter is a Windows drive.
_PART_OF_A_FILE = re.compile(r"[A-Z][A-Z0-9_]+:")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_EARTH_ENGINE_NAME = re.compile(r"[A-Z0-9_]+(/[A-Z0-9_]+)+")


def model_address(meta: Mapping[str, Any]) -> str:
    """Return a URI of the weights: their page on the hub, their address, or their SHA-256.

    Notes
    -----
    A checksum is written as in RFC 6920, section 7 (``nih:``); without one, the address is the
    name of the model.
    """
    weights, checksum = meta.get("weights"), meta.get("weights_sha256")
    if isinstance(weights, str) and is_uri(weights):
        return weights
    is_file = str(weights).endswith(tuple(_ARTIFACT_TYPES)) or Path(str(weights)).exists()
    if isinstance(weights, str) and not is_file:
        name, _, revision = weights.partition("@")
        if _HUB_NAME.fullmatch(name):
            return f"https://huggingface.co/{name}" + (f"/tree/{revision}" if revision else "")
    if isinstance(checksum, str):
        return f"nih:sha-256;{checksum}"
    return f"urn:rs-embed:model:{quote(str(meta['model']), safe='')}"


def source_addresses(meta: Mapping[str, Any]) -> list[str]:
    """Return URIs of the imagery, as the source reports it; at least one, each once.

    The addresses of its items or of their files; else of the file, folder or catalogue that was
    read. The requested collection is used only if the meta does not describe the source, since
    other imagery may have replaced it.
    """
    source = _source(meta)
    backend = meta.get("backend")
    known: list[str] = []
    if backend == "gee" and isinstance(source.get("collection"), str):
        known.append(_collection_address(source["collection"]))
    for item in source_items(meta):
        known += _item_addresses(item, source)
    if not known:
        read = (source.get(key) for key in ("path", "root", "catalogue"))
        for place in [place for place in read if isinstance(place, str)][:1]:
            # The packaged scene is named by its path in the package, not on a machine.
            packaged = f"urn:rs-embed:imagery:{quote(place, safe='')}"
            known = [packaged if backend == "sample" else _file_address(place)]
    sensor = meta.get("sensor")
    collection = sensor.get("collection") if isinstance(sensor, Mapping) else sensor
    if not known and backend in (None, "gee") and isinstance(collection, str):
        known = [_collection_address(collection)]
    return list(dict.fromkeys(known)) or ["urn:rs-embed:imagery:unstated"]


def source_title(meta: Mapping[str, Any]) -> str | None:
    """Return how the source names its imagery; None if it does not."""
    names = [_source(meta).get(key) for key in ("product", "scene")]
    return "; ".join(text for text in names if isinstance(text, str)) or None


def source_items(meta: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the source items in the meta of a map, or of one place."""
    listed = meta.get("source_items") or _source(meta).get("items") or []
    return [item for item in listed if isinstance(item, Mapping)]


def imagery_times(meta: Mapping[str, Any]) -> list[datetime]:
    """Return when the imagery was acquired, as the source states, in order; UTC if without zone."""
    known = _source(meta).get("acquired")
    stated = [item.get("acquired", item.get("datetime")) for item in source_items(meta)]
    stated += known if isinstance(known, list) else []
    return sorted({moment_of(text) for text in stated if isinstance(text, str)})


def time_span(meta: Mapping[str, Any]) -> tuple[datetime, datetime] | tuple[None, None]:
    """Return the first and last time of the imagery, else of the requested period, else None.

    The time that was stated for a map of own imagery counts as that of the imagery.
    """
    if times := imagery_times(meta):
        return times[0], times[-1]
    if acquired := (meta.get("request") or {}).get("acquired"):
        return moment_of(acquired), moment_of(acquired)
    period = meta.get("temporal")
    return (moment_of(period["start"]), moment_of(period["end"])) if period else (None, None)


def moment_of(text: str) -> datetime:
    """Return a time in ISO 8601, in UTC if it has no time zone."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def is_uri(text: object) -> bool:
    """Return whether this is an address with a scheme, not a local path."""
    return isinstance(text, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:\S+$", text) is not None


def chip_layout(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the layout of tokens on the imagery: patches side by side; 1 px if unknown."""
    size = meta.get("used_patch_size")
    pixels = size if isinstance(size, int) and size > 0 else 1
    return {"layout_type": "regular_grid", "chip_size": [pixels] * 2, "stride": [pixels] * 2}


def input_bands(meta: Mapping[str, Any]) -> list[str]:
    """Return the names of the bands that the model saw, in its order; empty if none are known.

    The sensor states them; if it does not, they are the model's own.
    """
    sensor = meta.get("sensor")
    if isinstance(sensor, Mapping) and sensor.get("bands"):
        return [str(band) for band in sensor["bands"]]
    return list(model_description(meta).get("inputs", {}).get("bands", ()))


def model_description(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `describe_model` returns; empty for models that are not installed."""
    try:
        return describe_model(str(meta["model"]))
    except UnknownNameError:
        return {}


def proj_fields(grid: Grid) -> dict[str, Any]:
    """Return ``proj:code`` where an authority has one for the CRS, and ``proj:wkt2``."""
    if grid.crs is None:
        return {}
    authority = grid.crs.to_authority(min_confidence=100)
    code = {} if authority is None else {"proj:code": ":".join(authority)}
    return {**code, "proj:wkt2": grid.crs.to_wkt()}


def artifact_type(meta: Mapping[str, Any]) -> str:
    """Return how the file of weights was written, in the terms of the MLM extension 1.5.

    Notes
    -----
    The extension names it after the function that writes such a file, and requires it;
    ``unstated`` is used for weights without a file, and for other kinds of files.
    """
    name = str(meta.get("weights_file") or meta.get("weights"))
    return _ARTIFACT_TYPES.get(PurePath(name).suffix, "unstated")


def _source(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    source = meta.get("source")
    return source if isinstance(source, Mapping) else {}


def _item_addresses(item: Mapping[str, Any], source: Mapping[str, Any]) -> list[str]:
    """Return the address of an item, else of its files, else its name as a URN."""
    if is_uri(item.get("href")):
        return [str(item["href"])]
    root = source.get("root")
    if isinstance(root, str) and item.get("files"):
        folder = root if os.path.isdir(root) else os.path.dirname(root)
        files = [str(name) for name in item["files"]]
        return [_file_address(f if is_uri(f) else os.path.join(folder, f)) for f in files]
    return [f"urn:rs-embed:item:{quote(str(item.get('id')), safe='')}"]


def _file_address(path: str) -> str:
    """Return the URI of a file: its URL, a ``file:`` URL, or a URN of its name in GDAL."""
    for prefix in ("/vsicurl/", ""):
        address = path.removeprefix(prefix)
        if path.startswith(prefix) and "://" in address and is_uri(address):
            return address
    if path.startswith("/vsi") or _PART_OF_A_FILE.match(path):
        return f"urn:rs-embed:imagery:{quote(path, safe='')}"
    return Path(path).absolute().as_uri()


def _collection_address(collection: str) -> str:
    if is_uri(collection):
        return collection
    if _EARTH_ENGINE_NAME.fullmatch(collection):
        page = collection.replace("/", "_")
        return f"https://developers.google.com/earth-engine/datasets/catalog/{page}"
    return f"urn:rs-embed:collection:{quote(collection, safe='')}"
