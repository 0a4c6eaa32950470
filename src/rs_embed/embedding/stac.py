"""What STAC Items of maps and of tables have in common, and their files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rs_embed.addresses import read_document
from rs_embed.embedding.provenance import (
    ITEM_KEY,
    artifact_type,
    imagery_times,
    input_bands,
    is_uri,
    model_address,
    model_description,
    moment_of,
    source_addresses,
    source_items,
    source_title,
)
from rs_embed.errors import ExportError, SpecError
from rs_embed.files.writing import check_place, sync, sync_name
from rs_embed.geo.bands import canonical_band

EXTENSIONS = (
    "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json",
    "https://stac-extensions.github.io/mlm/v1.5.0/schema.json",
)
# What the MLM extension calls networks of a family; others go by the name of their family.
_NETWORKS = {
    "ScaleMAE": {"mlm:architecture": "Vision Transformer", "mlm:framework": "PyTorch"},
}
_COLOURS = ["B4", "B3", "B2"]


def item_path(path: Path) -> Path:
    """Return the path of the STAC Item of an output: its name with ``.json``."""
    return path.with_name(f"{path.name}.json")


def json_object(path: Path, name: str) -> dict[str, Any]:
    """Return the member ``name`` of a JSON file, an object; empty if it cannot be read."""
    try:
        content = json.loads(read_document(path))
    except (OSError, ValueError, RecursionError):
        return {}
    inner = content.get(name) if isinstance(content, dict) else None
    return inner if isinstance(inner, dict) else {}


def check_item(path: Path, what: str) -> None:
    """Raise `ExportError` if the STAC Item of an output, a ``what``, cannot be written."""
    item = item_path(path)
    check_place(item)
    if item.exists() and ITEM_KEY not in json_object(item, "properties"):
        raise ExportError(
            f"cannot write {item}, the STAC Item of the {what}: there is another file of this "
            f"name; choose another name for the {what}"
        )


def write_item_file(output: Path, item: Mapping[str, Any]) -> None:
    """Write the STAC Item of an output beside it, to `item_path`; it appears whole or not at all.

    Raises
    ------
    ExportError
        If the file cannot be written.
    """
    path = item_path(output)
    text = json.dumps(item, indent=2, ensure_ascii=False, allow_nan=False)
    # Always the same name, so that the next run replaces what a killed one left.
    partial = path.with_name(f".{path.name}.writing")
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        sync(partial)
        os.replace(partial, path)
        sync_name(path)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise ExportError(f"cannot write {path}: {exc}; choose another place") from exc


def has_time(meta: Mapping[str, Any]) -> bool:
    """Return whether the meta states the time of the imagery."""
    return bool(meta.get("temporal")) or bool(imagery_times(meta))


def time_fields(meta: Mapping[str, Any], when: datetime | None) -> dict[str, Any]:
    """Return the time of an Item: the requested period, else that of its imagery, else ``when``."""
    period = meta.get("temporal")
    if period:
        first, after = moment_of(period["start"]), moment_of(period["end"])
        last = max(first, after - timedelta(seconds=1))
    elif times := imagery_times(meta):
        first, last = times[0], times[-1]
    elif when is not None:
        first = last = when if when.tzinfo else when.replace(tzinfo=UTC)
    else:
        raise SpecError(
            "the meta has neither a period nor times of its imagery, and a STAC Item "
            "needs one; pass the time of the imagery as when=datetime(...)"
        )
    start, end = (
        moment.astimezone(UTC).isoformat().replace("+00:00", "Z") for moment in (first, last)
    )
    if start == end:
        return {"datetime": start}
    return {"datetime": None, "start_datetime": start, "end_datetime": end}


def weights_asset(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the asset of the weights, which the MLM schema requires."""
    return {
        "href": model_address(meta),
        "title": f"Weights of {meta['model']}",
        "roles": ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": artifact_type(meta),
        **band_fields(meta),
    }


def mlm_fields(
    meta: Mapping[str, Any], dimensions: int, result: str, each: str | None = None
) -> dict[str, Any]:
    """Return fields of the MLM extension 1.5; -1 is any size.

    ``result`` is the name of what comes out, ``each`` that of its axis beside those of the batch
    and the dimensions. Of the tasks in its schema, similarity search fits embeddings.
    """
    axes = ["batch", *([] if each is None else [each]), "embedding"]
    description = model_description(meta)
    family = description.get("family", "unknown")
    inputs = description.get("inputs", {})
    bands = inputs.get("bands", [])
    is_rgb = [canonical_band(band) for band in bands] == _COLOURS
    pairs = zip(inputs.get("mean", ()), inputs.get("std", ()), strict=True)
    scaling = [{"type": "z-score", "mean": mean, "stddev": std} for mean, std in pairs]
    tasks = ["similarity-search"]
    side = meta.get("image_size")
    side = side if isinstance(side, int) else -1
    parameters = {
        key: meta[key]
        for key in ("used_patch_size", "gsd_m", "stride_px", "input_res", "tokens_kind")
        if meta.get(key) is not None
    }
    return {
        "mlm:name": re.sub(r"[^A-Za-z0-9_.\-\s]", "-", str(meta["model"])),
        **_NETWORKS.get(family, {"mlm:architecture": family}),
        "mlm:tasks": tasks,
        "mlm:input": [
            {
                "name": "RGB" if is_rgb else "pixels",
                "bands": input_bands(meta),
                "input": {
                    "shape": [-1, len(bands) or -1, side, side],
                    "dim_order": ["batch", "channel", "height", "width"],
                    "data_type": "float32",
                },
                "value_scaling": scaling or None,
            }
        ],
        "mlm:output": [
            {
                "name": result,
                "tasks": tasks,
                "result": {
                    "shape": [*[-1] * (len(axes) - 1), dimensions],
                    "dim_order": axes,
                    "data_type": "float32",
                },
            }
        ],
        **({"mlm:hyperparameters": parameters} if parameters else {}),
    }


def band_fields(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``bands`` of STAC 1.1: the input of the model, for its asset and the properties.

    The MLM schema requires the bands of the input in the properties, and STAC allows them there
    only if an asset has them too.
    """
    bands = [{"name": name} for name in input_bands(meta)]
    return {"bands": bands} if bands else {}


def links_of(meta: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return links to the model and the imagery."""
    links = [{"rel": "emb:model", "href": model_address(meta), "title": str(meta["model"])}]
    links += [
        {"rel": "derived_from", "href": item["href"], "title": str(item.get("id", item["href"]))}
        for item in source_items(meta)
        if is_uri(item.get("href"))
    ]
    title = source_title(meta)
    named = {} if title is None else {"title": title}
    links += [{"rel": "emb:source-data", "href": href, **named} for href in source_addresses(meta)]
    return links
