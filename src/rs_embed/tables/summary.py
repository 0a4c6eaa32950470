"""What a table of embeddings says of itself: its metadata, model card and STAC Item."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rs_embed._version import __version__
from rs_embed.addresses import read_document
from rs_embed.embedding.provenance import (
    ITEM_KEY,
    imagery_times,
    model_address,
    model_description,
)
from rs_embed.embedding.stac import (
    EXTENSIONS,
    band_fields,
    has_time,
    item_path,
    links_of,
    mlm_fields,
    time_fields,
    weights_asset,
    write_item_file,
)
from rs_embed.errors import ExportError
from rs_embed.files.formats import UNREADABLE, unreadable
from rs_embed.files.writing import check_place, written
from rs_embed.tables.columns import RESULT_COLUMNS, PlaceColumns, column_names, common_meta

# Key of the metadata, in Parquet files and in the front matter of model cards.
EMB_KEY = "emb"
WRITER = "embeddings of rs-embed batch"
_FRONT = f"---\n{EMB_KEY}: "


def summary(
    columns: PlaceColumns,
    metas: Iterable[Mapping[str, Any]],
    request: Mapping[str, Any],
    *,
    failed: int,
    width: int,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what a file says of itself, as JSON values.

    ``metas`` are those of its vectors, of length ``width``; ``request`` is what determines it,
    with ``dtype`` and ``order`` in its ``table``; ``warnings`` are those about the places.
    """
    ends: list[datetime] = []

    def with_times() -> Iterator[Mapping[str, Any]]:
        for meta in metas:
            times = [*ends, *imagery_times(meta)]
            ends[:] = [min(times), max(times)] if times else []
            yield meta

    common = {"model": request["model"], **common_meta(with_times())}
    common |= {"place_warnings": list(warnings)} if warnings else {}
    weights = model_description(common).get("weights", ())
    licences = (one["licence"] for one in weights if one["id"] == common.get("weights"))
    dtype = request["table"]["dtype"]
    names = column_names(columns.table.column_names)
    if dtype != "int8":
        del names["embedding_scale"]
    return {
        "model": common["model"],
        "rs_embed_version": __version__,
        "dimensions": width,
        "dtype": dtype,
        "places": len(columns.rows),
        "failed": failed,
        "id_column": columns.id_column,
        "columns": names,
        "crs": columns.crs,
        "acquired": [moment.isoformat() for moment in ends] or None,
        "licence": {
            "weights": next(licences, None),
            "imagery": common.get("source", {}).get("licence"),
        },
        "fingerprint": hashlib.sha256(json.dumps(request).encode()).hexdigest(),
        "request": request,
        "meta": common,
    }


def card_path(path: Path) -> Path:
    """Return the path of the model card of a table: its name with ``.md``."""
    return path.with_name(f"{path.name}.md")


def check_card(path: Path) -> None:
    """Raise `ExportError` if the model card of a table cannot be written."""
    card = card_path(path)
    check_place(card)
    if card.exists() and not card.read_bytes().startswith(_FRONT.encode()):
        raise ExportError(
            f"cannot write {card}, the model card of the table: there is another file of this "
            "name; choose another name for the table"
        )


def read_card(path: Path) -> dict[str, Any]:
    """Return the metadata in the model card of a table; `ExportError` if there are none."""
    card = card_path(path)
    if path.exists() and not card.exists():
        raise ExportError(
            f"got {path} without {card.name} beside it, expected a table of {WRITER} with its "
            "model card; embed places with: rs-embed batch "
            f"{shlex.quote(str(path))} -o vectors.parquet"
        )
    try:
        front, _, _ = read_document(card).decode().partition("\n---\n")
        return dict(json.loads(front.removeprefix(_FRONT)))
    except (OSError, *UNREADABLE) as exc:
        raise unreadable(card, exc, WRITER) from exc


def write_card(path: Path, emb: Mapping[str, Any]) -> None:
    """Write the model card of a table beside it: Markdown, with ``emb`` as its front matter."""
    meta, licence = emb["meta"], emb["licence"]
    stated = {
        "model": f"{emb['model']}, [weights]({model_address(meta)})",
        "SHA-256 of the weights": meta.get("weights_sha256"),
        "licence of the weights": licence["weights"],
        "licence of the imagery": licence["imagery"],
        "vectors": f"{emb['dimensions']} x {emb['dtype']}, {meta.get('pooling')}",
        "places": f"{emb['places']}, {emb['failed']} failed",
        "made with": f"rs-embed {emb['rs_embed_version']}",
        "fingerprint of the request": emb["fingerprint"],
    }
    lines = [
        f"{_FRONT}{json.dumps(emb)}",
        f"---\n# Embeddings of {emb['places']} places\n",
        *(f"- {name}: {'not stated' if text is None else text}" for name, text in stated.items()),
        "\n| column | content |\n| --- | --- |",
        *(f"| `{stored}` | {RESULT_COLUMNS[name]} |" for name, stored in emb["columns"].items()),
        "\nAll other columns are those of the places.\n",
    ]
    with written(card_path(path), alone=True) as partial:
        partial.write_text("\n".join(lines), encoding="utf-8")


def write_table_item(
    path: Path, media_type: str, emb: Mapping[str, Any], bbox: Sequence[float]
) -> None:
    """Write the STAC Item of a table beside it; none, and no older one, if its time is unknown."""
    source = {**emb["meta"].get("source", {}), "acquired": emb["acquired"]}
    period = None if emb["acquired"] else emb["meta"].get("temporal")  # as in its rows
    meta = {**emb["meta"], "source": source, "temporal": period}
    if not has_time(meta):
        item_path(path).unlink(missing_ok=True)
        return
    west, south, east, north = bbox
    # Cut at the antimeridian (RFC 7946, section 3.1.9).
    sides = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    rings = [[[[w, south], [e, south], [e, north], [w, north], [w, south]]] for w, e in sides]
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": rings[0]}
    if len(rings) > 1:
        geometry = {"type": "MultiPolygon", "coordinates": rings}
    method = {"float16": "cast", "int8": "linear"}.get(emb["dtype"])
    quantization = {
        "method": method, "original_dtype": "float32", "quantized_dtype": emb["dtype"],
    }  # fmt: skip
    embeddings = {
        "href": f"./{quote(path.name)}",
        "type": media_type,
        "title": f"Embeddings, {emb['dimensions']} dimensions",
        "roles": ["data", "embeddings"],
    }
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(EXTENSIONS),
        "id": path.stem,
        "geometry": geometry,
        "bbox": list(bbox),
        "properties": {
            **time_fields(meta, None),
            "title": f"{emb['model']} embeddings of {emb['places']} places",
            "data_type": emb["dtype"],
            ITEM_KEY: {key: value for key, value in emb.items() if key != "request"},
            **({"emb:quantization": quantization} if method else {}),
            **mlm_fields(meta, emb["dimensions"], "embedding"),
            **band_fields(meta),
        },
        "links": links_of(meta),
        "assets": {"embeddings": embeddings, "model": weights_asset(meta)},
    }
    write_item_file(path, item)
