"""What both sides measure: their first place, then all places into one file."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def report(
    spatials: Sequence[Any],
    output: Path,
    export: Callable[..., object],
    vectors_of: Callable[[Path], Any],
) -> None:
    """Export one place, then all, and print the measurements; ``ready`` is after the first."""
    export(spatials[:1], output=output.with_name("first.npz"))
    ready, processors = time.monotonic(), time.process_time()
    export(spatials, output=output)
    result = {
        "ready": ready,
        "seconds": time.monotonic() - ready,
        "processors": time.process_time() - processors,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "bytes": sum(file.stat().st_size for file in output.parent.glob("all.*")),
        "versions": f"rs-embed {version('rs-embed')}, torch {version('torch')}, {sys.version[:6]}",
    }
    np.save(output.with_name("vectors.npy"), vectors_of(output))
    print(json.dumps(result))
