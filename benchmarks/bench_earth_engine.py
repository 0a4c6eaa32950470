"""Many places from a slow and unreliable Earth Engine: correctness and time.

    python benchmarks/bench_earth_engine.py [--repeats 3] [--places 200] [--latency 0.1]
                                            [--faults 0.2] [--workers 8] [--side 32]

The service is the loopback server of the tests in a separate process; the client is the real one.
The server responds after the latency. A share of the requests fails instead, a third each with
HTTP 429 without Retry-After, HTTP 500 and a reset connection. Each place is a window of a scene of
which every pixel is known, and needs two requests: the list of images, then the pixels.

without faults, with faults
    ``EarthEngineProvider.fetch`` with its default timeouts, in threads, as in a batch.
x ideal
    relative to (requests that the places need x latency) / workers.
x load
    relative to (requests received, including failed ones, x latency) / workers. The rest is the
    waiting between attempts and the processor time. The goal with faults is at most 1.3.
"""

from __future__ import annotations

import collections
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import Disturbance, arguments, goal, in_turns, machine, positive, table

from rs_embed import Raster, TemporalSpec
from rs_embed.geo.grid import Grid
from rs_embed.parallel.pipeline import ordered
from rs_embed.providers.earth_engine.provider import EarthEngineProvider
from rs_embed.testing.providers import NORTH, SENSOR

GOAL_RATIO = 1.3
SCENE = NORTH[0]
DAY = TemporalSpec.range("2023-06-01", "2023-06-02")
REQUESTS = 2
WITHOUT, WITH = "without faults", "with faults"
FEW = 50
AHEAD = 40  # as far ahead as a batch for CUDA reads: 8 threads, 32 images


@dataclass(frozen=True)
class Run:
    """One pass over all places."""

    seconds: float
    correct: int
    lost: int
    doubled: int
    requests: int
    failed: int
    kinds: Mapping[str, int]
    peak: int


@dataclass
class Other:
    """The service in its own process, controlled over standard input and output."""

    process: subprocess.Popen[str]
    url: str

    def ask(self, **changes: float) -> dict[str, Any]:
        """Change the service, and return its report since the last call."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the service has no pipes")
        self.process.stdin.write(json.dumps(changes) + "\n")
        self.process.stdin.flush()
        report: dict[str, Any] = json.loads(self.process.stdout.readline())
        return report


@contextmanager
def service() -> Iterator[Other]:
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        url = "" if process.stdout is None else process.stdout.readline().strip()
        try:
            yield Other(process, url)
        finally:
            if process.stdin is not None:
                process.stdin.close()


def serve_here() -> None:
    """Serve until the input ends; each line changes the service and is answered by a report."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.earth_engine_server import contract_service, serve

    with serve(contract_service()) as running:
        print(running.url, flush=True)
        for line in sys.stdin:
            args = [one for one in running.asked if one.path.startswith("/v1/projects/p/")]
            answered = collections.Counter(
                json.dumps(one.body["grid"])
                for one in args
                if one.path.endswith("Pixels") and not one.fault
            )
            print(
                json.dumps(
                    {
                        "requests": len(args),
                        "kinds": collections.Counter(one.fault for one in args if one.fault),
                        "doubled": sum(count - 1 for count in answered.values()),
                        "peak": running.peak,
                    }
                ),
                flush=True,
            )
            running.asked.clear()
            running.peak = 0
            changes = json.loads(line)
            running.latency_s = changes["latency"]
            running.faulty_share = changes["faults"]


def windows(count: int, side: int) -> list[tuple[int, int]]:
    """Return the first row and column of distinct windows of the scene."""
    height, width = SCENE.shape
    every = [(r, c) for r in range(height - side) for c in range(width - side)]
    step = len(every) // count
    if step < 1:
        raise SystemExit(f"got {count} places of {side} px, expected at most {len(every)}")
    return every[::step][:count]


def fetched(provider: EarthEngineProvider, side: int, at: tuple[int, int]) -> Raster:
    return provider.fetch(window_grid(side, at), temporal=DAY, sensor=SENSOR)


def window_grid(side: int, at: tuple[int, int]) -> Grid:
    return SCENE.grid.window(*at, side, side)


def run(other: Other, provider: EarthEngineProvider, args: Any, faults: float, places: int) -> Run:
    at = windows(places, args.side)
    pixels = SCENE.pixels
    other.ask(latency=args.latency, faults=faults)
    start = time.perf_counter()
    correct = seen = 0
    work = partial(fetched, provider, args.side)
    made = ordered(at, work, workers=args.workers, ahead=AHEAD)
    for (row, column), raster in zip(at, made, strict=False):
        expected = pixels[:, row : row + args.side, column : column + args.side]
        seen += 1
        correct += bool(raster.valid.all()) and np.array_equal(raster.data, expected)
    seconds = time.perf_counter() - start
    report = other.ask(latency=0, faults=0)
    kinds = report["kinds"]
    return Run(
        seconds, correct, places - seen, report["doubled"], report["requests"],
        sum(kinds.values()), kinds, report["peak"],
    )  # fmt: skip


def peak_mb() -> float:
    """Return the peak resident set of this process, 10^6 bytes (Linux: KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--places", type=positive, default=200, help="places (default 200)")
    parser.add_argument("--workers", type=positive, default=8, help="threads (default 8)")
    parser.add_argument("--side", type=positive, default=32, help="pixels per side (default 32)")
    parser.add_argument("--latency", type=float, default=0.1, help="s per request (default 0.1)")
    parser.add_argument("--faults", type=float, default=0.2, help="share that fail (default 0.2)")
    parser.add_argument("--serve", action="store_true", help="run as the service (internal)")
    args = parser.parse_args()
    if args.serve:
        serve_here()
        return
    import ee.deprecation
    from google.oauth2.credentials import Credentials

    # The client would fetch a catalogue from the network.
    ee.deprecation._FetchDataCatalogStac = dict
    credentials = Credentials("x")  # type: ignore[no-untyped-call]
    disturbance = Disturbance()
    with service() as other:
        provider = EarthEngineProvider("p", credentials=credentials, endpoint=other.url)
        provider.status(online=True)
        few = min(FEW, args.places)
        run(other, provider, args, args.faults, few)
        before = peak_mb()
        run(other, provider, args, args.faults, args.places)
        growth = peak_mb() - before
        cases = {
            WITHOUT: partial(run, other, provider, args, 0.0, args.places),
            WITH: partial(run, other, provider, args, args.faults, args.places),
        }
        runs = in_turns(cases, args.repeats)
    report(args, runs, few, growth)
    print(disturbance.report())


def report(args: Any, runs: Mapping[str, list[Run]], few: int, growth: float) -> None:
    """Print the tables and whether the goals are met."""
    ideal = REQUESTS * args.places * args.latency / args.workers
    print(
        f"{args.places} places of {args.side} x {args.side} px, {args.latency:g} s a request, "
        f"{args.faults:.0%} fail, {args.workers} threads, ideal {ideal:.2f} s ({machine()})\n"
    )
    header = ["run", "correct", "lost", "doubled", "requests", "failed", "at once", "s", "x ideal",
              "x load"]  # fmt: skip
    rows, loads = [], []
    for name, passes in runs.items():
        for one in passes:
            load = one.seconds / (one.requests * args.latency / args.workers)
            loads += [load] if name == WITH else []
            counts = (one.correct, one.lost, one.doubled, one.requests, one.failed, one.peak)
            times = (one.seconds, one.seconds / ideal, load)
            rows.append([name, *map(str, counts), *(f"{value:.2f}" for value in times)])
    print(table(header, rows))
    every = [one for passes in runs.values() for one in passes]
    whole = all(one.correct == args.places and not one.lost + one.doubled for one in every)
    print("\n" + goal("every place correct, none lost or duplicated", whole))
    ratio = statistics.median(loads)
    text = f"with faults in {GOAL_RATIO} x the load, {ratio:.2f} x"
    print(goal(text, ratio <= GOAL_RATIO))
    print(f"Peak memory grew by {growth:.1f} MB between {few} and {args.places} more places")


if __name__ == "__main__":
    main()
