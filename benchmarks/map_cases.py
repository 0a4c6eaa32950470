"""One map in a separate process; run by bench_map_memory.py and bench_map_kill.py.

    python benchmarks/map_cases.py embed|watch JSON

JSON contains the arguments of ``embed_area``; ``place`` is longitude, latitude and half a side in
metres, ``period`` the first day and the day after the last. ``embed`` prints its report. ``watch``
first loads the model and runs one batch, and prints the memory and disk space used from then on, in
MB of 10^6 bytes.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rs_embed.maps.area import embed_area
from rs_embed.maps.request import settle_area
from rs_embed.maps.run import make_map, map_run
from rs_embed.specs import PointBuffer, TemporalSpec

_POLL_S = 0.1


def embed(args: dict[str, Any]) -> dict[str, Any]:
    """Return the report of one call."""
    return embed_area(progress=False, **args).to_json()


@dataclass
class Watcher:
    """Monitors a run from a thread.

    Attributes
    ----------
    embedding_mb, writing_mb : float
        Largest resident set seen while windows were computed, and while the map was written.
    kept_mb : float
        Largest size of ``.partial``.
    writing_began : float or None
        ``time.perf_counter()`` when the first file of the map appeared.
    """

    output: Path
    embedding_mb: float = 0.0
    writing_mb: float = 0.0
    kept_mb: float = 0.0
    writing_began: float | None = None

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        partial = self.output.with_name(f"{self.output.name}.partial")
        while not self._ended.wait(_POLL_S):
            now = memory_mb("VmRSS")
            if self.writing_began is None and any(self.output.parent.glob(f".{self.output.name}*")):
                self.writing_began = time.perf_counter()
            if self.writing_began is None:
                self.embedding_mb = max(self.embedding_mb, now)
            else:
                self.writing_mb = max(self.writing_mb, now)
            if partial.exists():
                self.kept_mb = max(self.kept_mb, partial.stat().st_size / 1e6)

    def end(self) -> None:
        """Stop monitoring."""
        self._ended.set()
        self._thread.join()


def memory_mb(field: str) -> float:
    """Return a field of Linux's account of this process, MB; ``VmHWM`` is the peak of ``VmRSS``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    raise SystemExit(f"this system does not tell {field}; Linux does")


def watch(args: dict[str, Any]) -> dict[str, Any]:
    """Return the memory of one map in addition to the loaded, warm model."""
    output = Path(args.pop("output"))
    task = settle_area(**args)
    encoder = task.task.plan.load()
    size = task.layout.tile_size
    blank = np.zeros((task.task.plan.batch_size, 3, size, size), np.float32)
    encoder.encode(blank, [10.0] * len(blank))
    model_mb = memory_mb("VmRSS")
    began = time.perf_counter()
    watcher = Watcher(output)
    try:
        with map_run(output, task) as run:
            report = make_map(task, run, progress=False)
    finally:
        watcher.end()
    ended = time.perf_counter()
    return {
        **report.to_json(),
        "shape": task.layout.tokens.shape,
        "seconds": ended - began,
        "writing_s": ended - (watcher.writing_began or ended),
        "model_mb": model_mb,
        "embedding_mb": watcher.embedding_mb - model_mb,
        "writing_mb": watcher.writing_mb - model_mb,
        "beyond_mb": memory_mb("VmHWM") - model_mb,
        "kept_mb": watcher.kept_mb,
    }


def main() -> None:
    case, text = sys.argv[1:]
    args = json.loads(text)
    if "place" in args:
        args["spatial"] = PointBuffer(*args.pop("place"))
        args["temporal"] = TemporalSpec.range(*args.pop("period"))
    print(json.dumps({"embed": embed, "watch": watch}[case](args)))


if __name__ == "__main__":
    main()
