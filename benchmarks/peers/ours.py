"""Our side of compare.py: ``python benchmarks/peers/ours.py REQUEST_JSON``."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from side import report

from rs_embed import LocalProvider, PointBuffer, TemporalSpec, export_batch, load_export

asked = json.loads(sys.argv[1])
export = partial(
    export_batch, "scalemae", backend=LocalProvider(asked["scene"]), progress=False,
    temporal=TemporalSpec.range(*asked["period"]), weights=asked["weights"],
    device=asked["device"], on_error="raise", **asked["options"],
)  # fmt: skip
spatials = [PointBuffer(lon, lat, asked["buffer_m"]) for lon, lat in asked["centres"]]
report(spatials, Path(asked["output"]), export, lambda path: load_export(path).embeddings)
