"""What a map says of itself to other software: addresses of model and imagery, and its layout."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from rs_embed.maps.content import MapContent
    from rs_embed.maps.encoding import FittedEncoding

_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
META_KEY = "rs_embed_meta"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_EARTH_ENGINE_NAME = re.compile(r"[A-Z0-9_]+(/[A-Z0-9_]+)+")


def map_meta(content: MapContent, encoding: FittedEncoding) -> dict[str, Any]:
    """Return the meta of a map with what its file adds: ``encoding`` and ``grid``."""
    return {**content.meta, "grid": content.grid.to_json(), "encoding": encoding.to_json()}


def meta_text(content: MapContent, encoding: FittedEncoding) -> str:
    """Return `map_meta` as JSON text."""
    return json.dumps(map_meta(content, encoding), ensure_ascii=False)


def model_address(meta: Mapping[str, Any]) -> str:
    """Return a URI of the weights: their page on the hub, their address, or their SHA-256.

    Notes
    -----
    A checksum is written as RFC 6920, section 7, has it (``nih:``). Without one the name of the
    model is all that is known.
    """
    weights, checksum = meta.get("weights"), meta.get("weights_sha256")
    if isinstance(weights, str) and is_uri(weights):
        return weights
    if isinstance(weights, str) and not _is_file(weights):
        name, _, revision = weights.partition("@")
        if _HUB_NAME.fullmatch(name):
            return f"https://huggingface.co/{name}" + (f"/tree/{revision}" if revision else "")
    if isinstance(checksum, str):
        return f"nih:sha-256;{checksum}"
    return f"urn:rs-embed:model:{quote(str(meta['model']), safe='')}"


def source_addresses(meta: Mapping[str, Any]) -> list[str]:
    """Return URIs of the imagery: its items, else its collection; at least one, each once."""
    known: list[str] = []
    for item in source_items(meta):
        href = item.get("href")
        identifier = quote(str(item.get("id")), safe="")
        known.append(str(href) if is_uri(href) else f"urn:rs-embed:item:{identifier}")
    sensor = meta.get("sensor")
    collection = sensor.get("collection") if isinstance(sensor, Mapping) else sensor
    if not known and isinstance(collection, str):
        known = [_collection_address(collection)]
    return list(dict.fromkeys(known)) or ["urn:rs-embed:imagery:unstated"]


def source_items(meta: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what the meta lists as source items."""
    return [item for item in meta.get("source_items") or [] if isinstance(item, Mapping)]


def is_uri(text: object) -> bool:
    """Return whether this is an address with a scheme, and no path of a file on some machine."""
    return isinstance(text, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:\S+$", text) is not None


def chip_layout(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the layout of tokens on the imagery; they adjoin. One pixel where it is unknown."""
    size = meta.get("used_patch_size")
    pixels = size if isinstance(size, int) and size > 0 else 1
    side = [pixels, pixels]
    return {"layout_type": "regular_grid", "chip_size": side, "stride": list(side)}


def _is_file(weights: str) -> bool:
    """Return whether this is a path, which is as much as one name in another."""
    return weights.endswith(_WEIGHT_SUFFIXES) or Path(weights).exists()


def _collection_address(collection: str) -> str:
    if is_uri(collection):
        return collection
    if _EARTH_ENGINE_NAME.fullmatch(collection):
        page = collection.replace("/", "_")
        return f"https://developers.google.com/earth-engine/datasets/catalog/{page}"
    return f"urn:rs-embed:collection:{quote(collection, safe='')}"
