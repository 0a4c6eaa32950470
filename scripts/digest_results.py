"""Print a SHA-256 of each result for the sample scene, to compare two versions of the library.

Vectors of 40 places with their meta, tiled vectors, a grid, and maps as Zarr and GeoTIFF with their
STAC Items. Two versions that print the same lines produce the same bytes::

    python scripts/digest_results.py > before.txt   # then the same with the other version
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rs_embed import (
    Embedding,
    OutputSpec,
    PointBuffer,
    embed_area,
    get_embedding,
    get_embeddings_batch,
)

LON, LAT = -75.61558, 37.69415
MODEL: dict[str, Any] = {"backend": "sample", "weights": "scalemae-tiny"}


def main() -> None:
    """Print the digests."""
    warnings.simplefilter("ignore")
    for name, digest in digests():
        print(f"{digest}  {name}")
        sys.stdout.flush()


def digests() -> Iterator[tuple[str, str]]:
    """Yield the name of each result and its digest."""
    places = [
        PointBuffer(LON + 0.004 * (i % 8 - 4), LAT + 0.004 * (i // 8 - 2), 600 + 40 * (i % 3))
        for i in range(40)
    ]
    for prep in ("resize", "tile"):
        digest = hashlib.sha256()
        for result in get_embeddings_batch("scalemae", spatials=places, input_prep=prep, **MODEL):
            assert isinstance(result, Embedding)  # noqa: S101  # on_error="raise"
            digest.update(result.data.tobytes())
            digest.update(_meta(result).encode())
        yield f"40 vectors, {prep}", digest.hexdigest()
    place = PointBuffer(LON, LAT, 2000)
    grid = get_embedding(
        "scalemae", spatial=place, output=OutputSpec.grid(), input_prep="tile", **MODEL
    )
    digest = hashlib.sha256(grid.data.values.tobytes())
    digest.update(_meta(grid).encode())
    yield "a grid", digest.hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        kinds: dict[str, dict[str, Any]] = {
            "map.zarr": {},
            "map.tif": {},
            "int8.tif": {"dtype": "int8", "pca": 8},
            "discard.zarr": {"seams": "discard", "dtype": "float16"},
        }
        for name, kind in kinds.items():
            path = Path(folder) / name
            options = {**MODEL, **kind, "acquired": "2016-06-17"}
            embed_area("scalemae", spatial=place, output=path, progress=False, **options)
            yield name, _digest_of(path)
            item = path.with_name(f"{name}.json")
            if item.exists():
                yield f"{name}.json", _digest_of(item)


def _meta(embedding: Embedding) -> str:
    """Return the meta as text, without the wording of warnings."""
    return json.dumps({name: v for name, v in embedding.meta.items() if name != "warnings"})


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(str(file.relative_to(path)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
