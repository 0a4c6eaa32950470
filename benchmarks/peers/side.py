"""What both sides measure, in the same way: their first place, then all places into one file."""

from __future__ import annotations

import json
import platform
import resource
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def report(
    output: str,
    spatials: Sequence[Any],
    export: Callable[[Sequence[Any], Path], object],
    vectors_of: Callable[[Path], Any],
) -> None:
    """Export places twice, first one, then all; print what it took as one line of JSON.

    ``ready`` is the reading of ``time.monotonic()``, a clock that all processes share, after the
    first place; ``peak`` is the resident memory in the unit of ``getrusage``.
    """
    path = Path(output)
    export(spatials[:1], path.with_name("first.npz"))
    ready = time.monotonic()
    export(spatials, path)
    result = {
        "ready": ready,
        "seconds": time.monotonic() - ready,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "bytes": sum(file.stat().st_size for file in path.parent.glob(f"{path.stem}.*")),
        "versions": f"rs-embed {version('rs-embed')}, torch {version('torch')}, "
        f"Python {platform.python_version()}",
    }
    np.save(path.with_suffix(".npy"), vectors_of(path))
    print(json.dumps(result))
