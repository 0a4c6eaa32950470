"""The peer's side of compare.py, in its own environment: ``PEER_PYTHON peer.py REQUEST_JSON``."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.warp import transform
from rasterio.windows import Window
from side import report

# Imported by name, because type checkers know our package as ``rs_embed``.
peer: Any = importlib.import_module("rs_embed")
providers: Any = importlib.import_module("rs_embed.providers")

asked = json.loads(sys.argv[1])
options = asked["options"]
os.environ["RS_EMBED_SCALEMAE_ID"] = asked["weights"]
os.environ["RS_EMBED_SCALEMAE_IMG"] = str(options.pop("image_size", 224))


class SceneProvider(providers.ProviderBase):  # type: ignore[misc]
    """The pixels around points of the scene, untouched: what replaces Earth Engine."""

    name = "scene"

    def ensure_ready(self) -> None:
        """Do nothing: no service is needed."""

    def fetch_sensor_patch_chw(self, *, spatial: Any, **_: Any) -> Any:
        """Return the window as the peer's own provider does, float32."""
        with rasterio.open(asked["scene"]) as file:
            (x,), (y,) = transform("EPSG:4326", file.crs, [spatial.lon], [spatial.lat])
            column, row = ~file.transform @ (x, y)
            half = round(spatial.buffer_m / file.transform.a)
            window = Window(round(column) - half, round(row) - half, 2 * half, 2 * half)
            return file.read(window=window).astype(np.float32)


def export(places: list[Any], output: Path) -> None:
    """Export places into one file."""
    peer.export_batch(
        spatials=places, models=["scalemae"], backend="scene", device=asked["device"],
        temporal=peer.TemporalSpec.range(*asked["period"]),
        target=peer.ExportTarget.combined(str(output)),
        config=peer.ExportConfig(show_progress=False, **options),
    )  # fmt: skip


providers.register_provider("scene", SceneProvider)
spatials = [peer.PointBuffer(lon, lat, asked["buffer_m"]) for lon, lat in asked["centres"]]
report(
    spatials, Path(asked["output"]), export,
    lambda path: peer.load_export(str(path)).embedding("scalemae"),
)  # fmt: skip
