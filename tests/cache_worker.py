"""What other processes do with a folder of pixels; imports little, so that they start soon."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from rs_embed.errors import ExportError
from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.raster import Raster
from rs_embed.providers.cache import PatchCache

GRID = Grid(known_crs(32633), Affine(10, 0, 400000, 0, -10, 5200000), (20, 30))
BIG = 10**9


def made_of(text: str, grid: Grid = GRID, dtype: str = "uint16") -> NDArray[Any]:
    """Return pixels that follow from a text, so that any process can tell them."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    drawn = np.random.default_rng(seed).integers(200, 3000, (3, *grid.shape))
    return drawn.astype(dtype)


def put(cache: PatchCache, number: int) -> dict[str, Any]:
    """Put pixels that follow from a number; return their key."""
    key = {"number": number}
    valid = np.ones(GRID.shape, bool)
    cache.put(key, Raster(made_of(str(number)), valid, ("a", "b", "c"), GRID))
    return key


def share(folder: Path, seed: int, bound: int, seconds: float) -> None:
    """Put and get at random; raise where what is served is not what was put."""
    cache = PatchCache(folder, bound)
    rng = np.random.default_rng(seed)
    until = time.monotonic() + seconds
    served = 0
    while time.monotonic() < until or served < 10:  # on a busy machine it takes longer
        number = int(rng.integers(12))
        raster = cache.get({"number": number}, GRID)
        if raster is None:
            put(cache, number)
            continue
        served += 1
        if not np.array_equal(raster.data, made_of(str(number))):
            raise SystemExit(f"got other pixels for {number}")


def killed(folder: Path, limit: int) -> None:
    """Be killed by the system while the file of an entry grows past ``limit`` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    put(PatchCache(folder, BIG), 7)


def no_space(folder: Path) -> None:
    """Print what a disk says on which no file grows past 1000 bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        put(PatchCache(folder, BIG), 7)
    except ExportError as exc:
        sys.stdout.write(str(exc))


if __name__ == "__main__":
    place = Path(sys.argv[2])
    if sys.argv[1] == "share":
        share(place, int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    elif sys.argv[1] == "killed":
        for limit in map(int, sys.argv[3:]):
            child = os.fork()
            if child == 0:
                killed(place, limit)
                os._exit(0)
            if os.WTERMSIG(os.waitpid(child, 0)[1]) != signal.SIGXFSZ:
                raise SystemExit(f"was not killed at {limit}")
    else:
        no_space(place)
