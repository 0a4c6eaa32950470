"""Overlap of reading and the model: places of the sample scene, each read delayed by 100 ms.

    python benchmarks/bench_overlap.py [--repeats 5] [--places 200] [--latency 0.1] [--side 96]
                                       [--variant tiny] [--image-size 160]

The latency simulates a server; the pixels come from the sample scene. Place, network and image size
are chosen so that reading in 8 threads and the forward take about the same time.

fetch alone
    the library's reading stage (read, check, prepare) without a model.
forward alone
    the same network on the inputs of all places, prepared in advance, in batches of 8.
iter_embeddings
    both together. The goal is at most 1.15 times the longer of the two.

Both need the processor, so their processor time, divided by the number of cores, is another limit:
if it exceeds the longer of the two, perfect overlap is impossible. It is printed as well.
"""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from measure import Disturbance, arguments, comparison, goal, in_turns, machine, ratios, table
from networks import add_count, add_variant, forward, in_batches, network_of, options

from rs_embed import CoverageWarning, PointBuffer, Raster, TemporalSpec, iter_embeddings
from rs_embed.embedding.source import Source
from rs_embed.embedding.task import Sight, Task, settle
from rs_embed.geo.grid import Grid
from rs_embed.parallel.pipeline import ordered
from rs_embed.providers.base import Cost, Provider
from rs_embed.providers.sample import CENTRE, HALF_SIDE_M, SampleProvider
from rs_embed.settings import Settings
from rs_embed.specs import SensorSpec

GOAL_RATIO = 1.15
FETCH, FORWARD, ALL = "fetch alone", "forward alone", "iter_embeddings"
LONGER, LIMIT = "longer of the two", "processor limit"
_M_PER_DEGREE = 111_000


class Delayed:
    """A provider whose every read takes longer by ``latency_s``."""

    name = "delayed"

    def __init__(self, inner: Provider, latency_s: float) -> None:
        self._inner = inner
        self._latency_s = latency_s
        self.dated = inner.dated

    def configured(self) -> bool:
        """Return False: it is only taken when named."""
        return False

    def check_sensor(self, sensor: SensorSpec) -> None:
        """Check as the inner provider does."""
        self._inner.check_sensor(sensor)

    def fetch(self, grid: Grid, *, temporal: TemporalSpec | None, sensor: SensorSpec) -> Raster:
        """Return what the inner provider returns, later."""
        time.sleep(self._latency_s)
        return self._inner.fetch(grid, temporal=temporal, sensor=sensor)

    def identity(self) -> str:
        """Return that of the inner provider."""
        return self._inner.identity()

    def cost(self, grid: Grid, *, sensor: SensorSpec) -> Cost:
        """Return what the inner provider says."""
        return self._inner.cost(grid, sensor=sensor)

    def status(self, *, online: bool = False) -> str:
        """Return what the inner provider says."""
        return self._inner.status(online=online)


@dataclass(frozen=True)
class Took:
    """Seconds of wall time and of processor time."""

    wall: float
    processor: float


def _took(action: Callable[[], object]) -> Took:
    wall, processor = time.perf_counter(), time.process_time()
    result = action()
    took = Took(time.perf_counter() - wall, time.process_time() - processor)
    del result
    return took


def _places(count: int, side: int) -> list[PointBuffer]:
    """Return places of the sample scene, in a grid of rows that all lie within it."""
    across = max(round(count**0.5), 1)
    # Off the edges by 2 %, since the scene is a square of its UTM zone, not of degrees.
    reach = (HALF_SIDE_M * 0.98 - side * 5) / _M_PER_DEGREE
    step = 2 * reach / max(across, -(-count // across))
    lon, lat = CENTRE
    return [
        PointBuffer(
            lon - reach + step * (number % across),
            lat - reach + step * (number // across),
            side * 5,
        )
        for number in range(count)
    ]


def _drained(task: Task, requests: Sequence[Source]) -> list[Sight]:
    """Return what the reading stage gives, with as many threads and as far ahead as in a batch."""
    see = partial(_see, task)
    return list(
        ordered(requests, see, workers=Settings.from_environ().scalemae_fetch_workers, ahead=40)
    )


def _see(task: Task, request: Source) -> Sight:
    return task.see(request, task.sizes())


def _inputs(task: Task, sights: Sequence[Sight]) -> list[Any]:
    preparation = task.plan.preparation
    return [preparation.tensor(s.seen.cut(s.seen.tiles[0])) for s in sights]


def _all(places: Sequence[PointBuffer], provider: Provider, model: dict[str, Any]) -> list[Any]:
    return list(
        iter_embeddings(
            "scalemae", spatials=places, backend=provider, device="cpu", progress=False, **model
        )
    )


def main() -> None:
    parser = arguments(__doc__, repeats=5)
    add_count(parser, "--places", 200, "places to embed")
    add_count(parser, "--side", 96, "side of a place, pixels of 10 m")
    add_count(parser, "--image-size", 160, "side of the model's input, pixels")
    parser.add_argument("--latency", type=float, default=0.1, help="s a read (default 0.1)")
    add_variant(parser, "tiny")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CoverageWarning)
    model = {**options(args.variant), "image_size": args.image_size}
    provider = Delayed(SampleProvider(), args.latency)
    places = _places(args.places, args.side)
    settings = Settings.from_environ()
    task = settle(
        "scalemae",
        output=None,
        input_prep="resize",
        min_valid=0.25,
        device="cpu",
        options=model,
        settings=settings,
    )
    requests = [Source(spatial=place, backend=provider).resolved(settings) for place in places]
    sights = _drained(task, requests)
    batches, network = in_batches(_inputs(task, sights)), network_of(args.variant)
    actions: dict[str, Callable[[], object]] = {
        FETCH: partial(_drained, task, requests),
        FORWARD: partial(forward, network, batches, sights[0].input_res),
        ALL: partial(_all, places, provider, model),
    }
    disturbance = Disturbance()
    took = in_turns({name: partial(_took, act) for name, act in actions.items()}, args.repeats)
    walls = {name: [one.wall for one in of_case] for name, of_case in took.items()}
    walls[LONGER] = [max(pair) for pair in zip(walls[FETCH], walls[FORWARD], strict=True)]
    walls[LIMIT] = [
        (fetch.processor + run.processor) / (os.cpu_count() or 1)
        for fetch, run in zip(took[FETCH], took[FORWARD], strict=True)
    ]
    print(
        f"{args.places} places of {args.side} x {args.side} px, {args.latency:g} s a read, "
        f"{settings.scalemae_fetch_workers} threads, {args.variant} network at "
        f"{args.image_size} px "
        f"({machine()})\n"
    )
    print(comparison(walls, baselines=[LONGER], unit="s"))
    print("\nProcessor time\n")
    rows = [[n, f"{statistics.median(one.processor for one in took[n]):.2f}"] for n in actions]
    print(table(["case", "median s"], rows))
    ratio = statistics.median(ratios(walls[ALL], walls[LONGER]))
    text = f"{ALL} in {GOAL_RATIO} x the {LONGER}, {ratio:.2f} x"
    print("\n" + goal(text, ratio <= GOAL_RATIO))
    least = [max(pair) for pair in zip(walls[LONGER], walls[LIMIT], strict=True)]
    reached = statistics.median(ratios(walls[ALL], least))
    print(f"Against the longest of the three (processor limit too): {reached:.2f} x")
    print(disturbance.report())


if __name__ == "__main__":
    main()
