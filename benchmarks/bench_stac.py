"""Many places from a STAC catalogue: places per second, compared with another version.

    python benchmarks/bench_stac.py [--baseline PATH/src] [--repeats 3] [--places 120]
                                    [--scenes 6] [--workers 4] [--latency 0]

Catalogue and COGs (one file per band, 512 x 512 px) are on the loopback server of the tests, in a
process of their own. Each pass is a fresh process whose ``StacProvider`` fetches windows of 32 x 32
px in threads, as a batch does; imports and the first place do not count. Every place must have
exactly the known median of its scenes, so that all versions return the same bytes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from measure import Disturbance, arguments, comparison, goal, in_turns, machine, positive

from processes import run_python

GOAL_RATIO = 2.0
SIDE_PX, SCENE_PX = 32, 512
OURS, BASELINE = "this version", "baseline"


@contextmanager
def service(scenes: int, latency: float) -> Iterator[str]:
    """Serve until the end, and yield the URL."""
    command = [sys.executable, __file__, "--serve", f"--scenes={scenes}", f"--latency={latency}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield "" if process.stdout is None else process.stdout.readline().strip()
        finally:
            if process.stdin is not None:
                process.stdin.close()


def serve_here(scenes: int, latency: float) -> None:
    """Serve until the input ends."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.stac_server import StacServer

    from rs_embed.testing.providers import NORTH, write_contract_scenes

    made = [
        replace(NORTH[0], id=f"{n}", number=n, acquired=f"2023-06-0{n}", shape=(SCENE_PX, SCENE_PX))
        for n in range(1, scenes + 1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_contract_scenes(Path(folder), made)
        with StacServer(latency_s=latency).running() as server:
            server.add(Path(folder))
            print(server.url, flush=True)
            sys.stdin.read()


def fetch_here(url: str, places: int, scenes: int, workers: int) -> dict[str, float]:
    """Return seconds and processor seconds of all places but the first."""
    import numpy as np

    from rs_embed.geo.grid import Grid
    from rs_embed.parallel.pipeline import ordered
    from rs_embed.providers.stac.provider import StacProvider
    from rs_embed.testing.providers import JUNE, NORTH, SENSOR, STEPS

    provider = StacProvider(url)
    whole = Grid(NORTH[0].grid.crs, NORTH[0].grid.transform, (SCENE_PX, SCENE_PX))

    def fetched(at: tuple[int, int]) -> bool:
        row, column = at
        raster = provider.fetch(
            whole.window(row, column, SIDE_PX, SIDE_PX), temporal=JUNE, sensor=SENSOR
        )
        steps = np.arange(SIDE_PX) + 0.5
        columns, rows = (column + steps)[None, :] * STEPS, (row + steps)[:, None] * STEPS
        expected = np.broadcast_arrays(columns, rows, np.float32((scenes + 1) / 2 * STEPS))
        return bool(raster.valid.all()) and np.array_equal(raster.data, expected)

    step = SCENE_PX - SIDE_PX
    at = [(n * 37 % step, n * 101 % step) for n in range(places + 1)]
    right = [fetched(at[0])]
    start, busy = time.perf_counter(), time.process_time()
    right += ordered(at[1:], fetched, workers=workers, ahead=2 * workers)
    seconds, processor = time.perf_counter() - start, time.process_time() - busy
    if not all(right):
        raise SystemExit(f"{right.count(False)} of {len(right)} places have other pixels")
    return {"seconds": seconds, "processor": processor}


def run(url: str, args: Any, source: str) -> dict[str, float]:
    given = [f"--client={url}", f"--places={args.places}", f"--scenes={args.scenes}"]
    finished = run_python(
        [__file__, *given, f"--workers={args.workers}"], {"PYTHONPATH": str(Path(source).resolve())}
    )
    result: dict[str, float] = json.loads(finished.output)
    return result


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--baseline", metavar="PATH", help="src of the version to compare with")
    parser.add_argument("--places", type=positive, default=120, help="places (default 120)")
    parser.add_argument("--scenes", type=positive, default=6, help="of each place (default 6)")
    parser.add_argument("--workers", type=positive, default=4, help="threads (default 4)")
    parser.add_argument("--latency", type=float, default=0.0, help="s per request (default 0)")
    parser.add_argument("--serve", action="store_true", help="run as the service (internal)")
    parser.add_argument("--client", metavar="URL", help="run as one pass (internal)")
    args = parser.parse_args()
    if args.serve:
        serve_here(args.scenes, args.latency)
        return
    if args.client:
        print(json.dumps(fetch_here(args.client, args.places, args.scenes, args.workers)))
        return
    sources = {OURS: str(Path(__file__).parents[1] / "src")}
    if args.baseline:
        sources = {BASELINE: args.baseline} | sources
    disturbance = Disturbance()
    with service(args.scenes, args.latency) as url:
        cases = {name: partial(run, url, args, source) for name, source in sources.items()}
        runs = in_turns(cases, args.repeats)
    print(
        f"{args.places} places of {SIDE_PX} x {SIDE_PX} px, {args.scenes} scenes each, "
        f"{args.latency:g} s a request, {args.workers} threads ({machine()})\n"
    )
    base = next(iter(sources))
    for unit in ("seconds", "processor"):
        samples = {name: [one[unit] for one in passes] for name, passes in runs.items()}
        print(comparison(samples, baselines=[base], unit=f"{unit}, s") + "\n")
    rates = {name: args.places / statistics.median(p["seconds"] for p in passes)
             for name, passes in runs.items()}  # fmt: skip
    print(", ".join(f"{name}: {rate:.1f} places/s" for name, rate in rates.items()))
    if args.baseline:
        pairs = zip(runs[BASELINE], runs[OURS], strict=True)
        ratio = statistics.median(one["seconds"] / other["seconds"] for one, other in pairs)
        text = f"at least {GOAL_RATIO:g} x the rate of the baseline, {ratio:.2f} x"
        print(goal(text, ratio >= GOAL_RATIO))
    print(disturbance.report())


if __name__ == "__main__":
    main()
