"""Makes outputs in processes that are killed meanwhile; `tests.test_map_resume` starts it.

Everything is imported once, then each attempt runs in a fork of its own.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas  # noqa: F401
import numpy as np
import pyarrow.parquet  # noqa: F401
import rasterio.shutil  # noqa: F401  # all that a map needs is imported before the first fork
import rio_cogeo  # noqa: F401
import shapely  # noqa: F401
import zarr  # noqa: F401
from numpy.typing import NDArray

import rs_embed.maps.formats.writing  # noqa: F401
from rs_embed import BBox, LocalProvider, PointBuffer, export_batch
from rs_embed.files.places import NamedPlace
from rs_embed.maps.area import embed_area
from rs_embed.models.base import Tokens
from rs_embed.registry import find_model
from rs_embed.settings import Settings
from tests.coordinate_model import CoordinateEncoder, CoordinateModel, CoordinatePlan

# When an attempt that hangs is ended, and when all of them: far later than they need.
ATTEMPT_S, ATTEMPTS_S = 60, 240


class SlowEncoder(CoordinateEncoder):
    """Takes as long as it is told to, and notes each image in a file."""

    def encode(self, pixels: NDArray[np.float32], input_res_m: Sequence[float]) -> Tokens:
        time.sleep(float(os.environ.get("SECONDS", "0")))
        with open(os.environ["IMAGES_SEEN"], "ab") as file:
            if file.tell() >= int(os.environ.get("PAUSE_AFTER", "1000000")):
                time.sleep(600)
            file.write(b"x" * len(pixels))
        return super().encode(pixels, input_res_m)


class SlowPlan(CoordinatePlan):
    """Settled options."""

    def load(self) -> SlowEncoder:
        return SlowEncoder(self.loaded_size, [], self.refuse)


class SlowModel(CoordinateModel):
    """What the entry point names."""

    def plan(self, options: Mapping[str, Any], *, device: str, settings: Settings) -> SlowPlan:
        return SlowPlan(**vars(super().plan(options, device=device, settings=settings)))


MODEL = SlowModel()


def attempt(request: dict[str, Any], end_at: int | None = None, end: int = signal.SIGKILL) -> int:
    """Make the map in a fork, which is ended before its so many-th step in the folder."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(ATTEMPT_S)  # it ends, whatever happens
    folder, count = str(folder_of(request)), 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        path = arguments[0] if arguments else None
        if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(folder):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if event in ("os.listdir", "os.scandir", "os.walk", "glob.glob"):
            return
        if count == end_at:
            os.kill(os.getpid(), end)
        count += 1

    if end_at is not None:
        sys.addaudithook(watch)
    status = 1
    try:
        (export_batch if "places" in request else embed_area)("slow", **request)
        status = 0
    except KeyboardInterrupt:
        status = 130
    except Exception:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(status)


def killed_at_random(request: dict[str, Any], wanted: int) -> tuple[int, list[dict[str, str]]]:
    """Kill attempts at random moments, in as many runs as it takes for so many kills.

    Returns the number of kills and the files of each run.
    """
    chance = np.random.default_rng(3)
    kills = 0
    outcomes: list[dict[str, str]] = []
    while kills < wanted:
        if outcomes:
            emptied(request)
        kills += killed_until_done(request, chance)
        outcomes.append(digests(folder_of(request)))
    return kills, outcomes


def killed_until_done(request: dict[str, Any], chance: np.random.Generator) -> int:
    """Kill attempts at random moments until one is done; return how many were killed."""
    for kills in range(1000):
        pid = attempt(request)
        # Later and later, so that it comes to an end.
        time.sleep(chance.uniform(0, 0.03 * (kills + 1)))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            assert status == 0
            return kills
    raise AssertionError("never done")


def emptied(request: dict[str, Any]) -> None:
    """Remove all that a run has left."""
    folder = folder_of(request)
    shutil.rmtree(folder)
    folder.mkdir()


def ended_at_each_step(
    request: dict[str, Any], step: int, end: int = signal.SIGKILL
) -> list[dict[str, str]]:
    """End an attempt before each ``step``-th step, go on; return the files of each outcome."""
    folder = folder_of(request)
    outcomes: list[dict[str, str]] = []
    expected = -end if end == signal.SIGKILL else 128 + end
    for end_at in range(0, 10_000, step):
        emptied(request)
        _, status = os.waitpid(attempt(request, end_at, end), 0)
        if status == 0:
            return outcomes
        assert os.waitstatus_to_exitcode(status) == expected, end_at
        _, status = os.waitpid(attempt(request), 0)
        assert status == 0, end_at
        outcomes.append(digests(folder))
    raise AssertionError("never done")


def folder_of(request: dict[str, Any]) -> Path:
    """Return the folder of the output, which may be a file system of fsspec."""
    return Path(request["output"].removeprefix("local://")).parent


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a folder, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def places_in(bbox: Sequence[float], count: int) -> list[NamedPlace]:
    """Return points along the diagonal of a box."""
    west, south, east, north = bbox
    return [
        NamedPlace(f"p{n}", PointBuffer(lon, lat, buffer_m=160))
        for n, (lon, lat) in enumerate(
            zip(np.linspace(west, east, count), np.linspace(south, north, count), strict=True)
        )
    ]


def whole(request: dict[str, Any]) -> tuple[dict[str, str], int]:
    """Make the map in one attempt; return its files and the number of windows, and remove it."""
    _, status = os.waitpid(attempt(request), 0)
    assert status == 0
    folder, seen = folder_of(request), Path(os.environ["IMAGES_SEEN"])
    files, windows = digests(folder), seen.stat().st_size
    emptied(request)
    seen.unlink()
    return files, windows


def main() -> None:
    """Do what the command line asks; print it as JSON after the files of an undisturbed run."""
    warnings.simplefilter("ignore")
    what, text, *more = sys.argv[1:]
    request = json.loads(text)
    signal.alarm(int(os.environ.get("ATTEMPTS_S", ATTEMPTS_S)))
    # Found once: what a fork finds is lost with it.
    find_model("slow")
    request["backend"] = LocalProvider(request.pop("local"))
    bbox = request.pop("bbox")
    if count := request.pop("count", 0):
        request["places"] = places_in(bbox, count)
    else:
        request["spatial"] = BBox(*bbox)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.freeze()  # forks share what is imported
    ended = {"random": killed_at_random, "steps": ended_at_each_step}[what]
    files, windows = whole(request)
    report = ended(request, *map(json.loads, more))  # type: ignore[operator]
    sys.stdout.write(json.dumps({"files": files, "windows": windows, "report": report}))


if __name__ == "__main__":
    main()
