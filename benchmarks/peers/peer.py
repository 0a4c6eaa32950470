"""The peer's side of compare.py, in its own environment: ``PEER_PYTHON peer.py REQUEST_JSON``.

The package is cybergis/rs-embed 0.3.1, whose import name is also ``rs_embed``. It reads the scene
through a provider of ours (its ``register_provider``), instead of Earth Engine.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.warp import transform
from rasterio.windows import Window
from side import report

# Imported by name, because type checkers find our package under it.
peer: Any = importlib.import_module("rs_embed")
providers: Any = importlib.import_module("rs_embed.providers")


def provider_of(scene: str) -> type:
    """Return a provider of the pixels around points, untouched; bands as in the file."""

    class SceneProvider(providers.ProviderBase):  # type: ignore[misc]
        name = "scene"

        def ensure_ready(self) -> None:
            """Do nothing: no service is needed."""

        def fetch_sensor_patch_chw(self, *, spatial: Any, **_: Any) -> Any:
            with rasterio.open(scene) as file:
                (x,), (y,) = transform("EPSG:4326", file.crs, [spatial.lon], [spatial.lat])
                column, row = ~file.transform @ (x, y)
                half = round(spatial.buffer_m / file.transform.a)
                window = Window(round(column) - half, round(row) - half, 2 * half, 2 * half)
                return file.read(window=window).astype(np.float32)

    return SceneProvider


def main(request: dict[str, Any]) -> None:
    options = dict(request["options"])
    os.environ["RS_EMBED_SCALEMAE_ID"] = request["weights"]
    os.environ["RS_EMBED_SCALEMAE_IMG"] = str(options.pop("image_size", 224))
    providers.register_provider("scene", provider_of(request["scene"]))
    config = peer.ExportConfig(show_progress=False, **options)

    def export(places: Sequence[Any], output: Path) -> None:
        peer.export_batch(
            spatials=list(places), models=["scalemae"], backend="scene", config=config,
            temporal=peer.TemporalSpec.range(*request["period"]), device=request["device"],
            target=peer.ExportTarget.combined(str(output)),
        )  # fmt: skip

    spatials = [peer.PointBuffer(*centre, request["buffer_m"]) for centre in request["centres"]]
    report(
        request["output"], spatials, export,
        lambda path: peer.load_export(str(path)).embedding("scalemae"),
    )  # fmt: skip


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
