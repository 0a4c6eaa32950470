"""Our side of compare.py, in this environment: ``python benchmarks/peers/ours.py REQUEST_JSON``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from side import report

from rs_embed import LocalProvider, PointBuffer, TemporalSpec, export_batch, load_export


def main(request: dict[str, Any]) -> None:
    provider, period = LocalProvider(request["scene"]), TemporalSpec.range(*request["period"])

    def export(places: Sequence[PointBuffer], output: Path) -> None:
        export_batch(
            "scalemae", places, output=output, temporal=period, backend=provider,
            weights=request["weights"], device=request["device"], progress=False,
            on_error="raise", **request["options"],
        )  # fmt: skip

    spatials = [PointBuffer(*centre, request["buffer_m"]) for centre in request["centres"]]
    report(request["output"], spatials, export, lambda path: load_export(path).vectors)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
