"""Compare this process, worker processes and Ray on the same cores: places a second, kills, memory.

    python benchmarks/bench_engines.py [--repeats 2] [--few 80] [--many 480] [--ms 10]
    python benchmarks/bench_engines.py --kills 30 [--engines local "2 processes" ray]
    python benchmarks/bench_engines.py --places 50000 [--ms 5]

Each run is a fresh process that embeds random places of 64 x 64 px of a COG with a stub
network that takes ``--ms`` an image, or with the weights that ship. Places a second are those
between ``--few`` and ``--many`` places; the rest of a run is its start. ``--kills`` ends runs
(drivers) and their worker processes with SIGKILL at random moments, makes each table to the end,
and compares its bytes. ``--places`` makes one large table in one process, and compares its time
with reading alone and with the network alone, and its peak memory with that of 1000 places.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from measure import Disturbance, arguments, goal, in_turns, machine, positive, ratios, table
from numpy.typing import NDArray

from processes import run_python

sys.path.append(str(Path(__file__).parents[1]))

from tests.coordinate_model import CoordinateEncoder, CoordinateModel, CoordinatePlan

from rs_embed.models.base import Tokens
from rs_embed.settings import Settings
from rs_embed.specs import TemporalSpec

ENGINES: dict[str, dict[str, Any]] = {
    "local": {},
    "1 process": {"workers": 1},
    "2 processes": {"workers": 2},
    "ray": {"engine": "ray", "workers": 1},
}
STUB, SHIPPED = "stub", "scalemae"
_SIDE_PX, _HALF_SIDE_M = 1024, 320
_FEW_PLACES = 1000
_SEEN_S = 120


class StubEncoder(CoordinateEncoder):
    """Takes as long as the environment states, without processor time; 192 dimensions."""

    def encode(self, pixels: NDArray[np.float32], input_res_m: Sequence[float]) -> Tokens:
        """Return mean colours, later."""
        end = time.perf_counter() + float(os.environ["STUB_MS"]) / 1000 * len(pixels)
        made = super().encode(pixels, input_res_m)
        self.log.clear()
        if made.cls is None or made.patches is None:
            raise TypeError("the model has both")
        time.sleep(max(0, end - time.perf_counter()))
        return Tokens(np.tile(made.cls, 64), np.tile(made.patches, 64), None, "colours")


class StubPlan(CoordinatePlan):
    """Settled options."""

    def load(self) -> StubEncoder:
        """Return the stub."""
        return StubEncoder(self.loaded_size, [], self.refuse)


class StubModel(CoordinateModel):
    """What the entry point names."""

    def plan(self, options: Mapping[str, Any], *, device: str, settings: Settings) -> StubPlan:
        """Return the settled options."""
        return StubPlan(**vars(super().plan(options, device=device, settings=settings)))


MODEL = StubModel()


# --- in a process of its own ---------------------------------------------------------------


def _request(model: str) -> dict[str, Any]:
    if model == STUB:
        return {"device": "cpu"}
    return {
        "device": "cpu", "variant": "tiny", "weights": "scalemae-tiny", "display": "visual",
        "image_size": 64, "input_prep": "resize",
    }  # fmt: skip


def embed(folder: str, model: str, count: int, out: str, engine: dict[str, Any]) -> dict[str, Any]:
    """Make a table, and return its report."""
    from rs_embed import LocalProvider, export_batch

    engine["temporal"] = _period()
    report = export_batch(
        model, _csv(Path(folder), count), output=out, buffer_m=_HALF_SIDE_M, progress=False,
        backend=LocalProvider(Path(folder) / "scene_20160601.tif"), **_request(model), **engine,
    )  # fmt: skip
    if report.errors:
        raise RuntimeError(f"{len(report.errors)} places failed, such as {report}")
    return report.to_json()


def _period() -> TemporalSpec:
    return TemporalSpec.range("2016-06-01", "2016-06-02")


def read(folder: str, count: int) -> float:
    """Return the seconds of reading alone, as many at once as a run reads."""
    from rs_embed import LocalProvider, places_of
    from rs_embed.embedding.loop import read_places
    from rs_embed.embedding.source import Source
    from rs_embed.embedding.task import settle

    settings = Settings.from_environ()
    task = settle(
        STUB, output=None, input_prep="auto", min_valid=0.25, device="cpu", options={},
        settings=settings,
    )  # fmt: skip
    backend = LocalProvider(Path(folder) / "scene_20160601.tif")
    rows = places_of(_csv(Path(folder), count), buffer_m=_HALF_SIDE_M)
    sources = [
        Source(spatial=place, backend=backend, temporal=_period()).resolved(settings)
        for place in rows.spatials
    ]
    began = time.perf_counter()
    for start in range(0, count, 500):
        part = sources[start : start + 500]
        for seen in read_places(task, part, fetch_workers=settings.scalemae_fetch_workers):
            if isinstance(seen.outcome, Exception):
                raise seen.outcome
    return time.perf_counter() - began


def network(count: int) -> float:
    """Return the seconds of the stub network alone."""
    encoder, pixels = StubEncoder(64, []), np.zeros((8, 3, 64, 64), np.float32)
    began = time.perf_counter()
    for _ in range(0, count, 8):
        encoder.encode(pixels, [10.0] * 8)
    return time.perf_counter() - began


def _csv(folder: Path, count: int) -> Path:
    return folder / f"{count}.csv"


# --- in the process that compares them -----------------------------------------------------


class Bench:
    """Imagery, places and the stub's entry point in a folder."""

    def __init__(self, folder: Path, ms: float) -> None:
        import rasterio.shutil
        from scenes import SAMPLE, write_mirrored

        self.folder, self._made = folder, 0
        write_mirrored(SAMPLE, _SIDE_PX, folder / "mirrored.tif")
        rasterio.shutil.copy(
            folder / "mirrored.tif", folder / "scene_20160601.tif", driver="COG", blocksize=128
        )
        info = folder / "stub-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stub\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[rs_embed.models]\nstub = bench_engines:MODEL\n")
        path = [str(folder), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self.environment = {
            "STUB_MS": str(ms), "PYTHONPATH": os.pathsep.join(path), "PYTHONWARNINGS": "ignore",
        }  # fmt: skip

    def places(self, count: int) -> None:
        """Write random places of the scene as CSV."""
        import rasterio
        from rasterio.warp import transform

        with rasterio.open(self.folder / "scene_20160601.tif") as file:
            left, bottom, right, top = file.bounds
            draw, edge = np.random.default_rng(0), 2 * _HALF_SIDE_M
            x = draw.uniform(left + edge, right - edge, count)
            y = draw.uniform(bottom + edge, top - edge, count)
            lon, lat = transform(file.crs, "EPSG:4326", x, y)
        rows = (f"p{n},{a:.7f},{b:.7f}\n" for n, (a, b) in enumerate(zip(lon, lat, strict=True)))
        _csv(self.folder, count).write_text("id,lon,lat\n" + "".join(rows))

    def output(self) -> Path:
        """Return the path of another table."""
        self._made += 1
        place = self.folder / f"out{self._made}"
        place.mkdir()
        return place / "table.parquet"

    def command(self, what: str, *given: Any) -> list[str]:
        """Return the arguments of a Python that does it."""
        return [__file__, what, json.dumps(given)]

    def run(self, what: str, *given: Any) -> tuple[Any, float, float]:
        """Return what a fresh process prints, its seconds, and its peak in GB."""
        done = run_python(self.command(what, *given), self.environment)
        return json.loads(done.output), done.seconds, done.peak_gb

    def start(self, what: str, *given: Any) -> subprocess.Popen[bytes]:
        """Start such a process."""
        return subprocess.Popen(
            [sys.executable, *self.command(what, *given)],
            env={**os.environ, **self.environment}, stdout=subprocess.DEVNULL,
        )  # fmt: skip


def _sha256(path: Path) -> str:
    """Return the digest of all files of an output."""
    digest = hashlib.sha256()
    for file in sorted(path.parent.iterdir()):
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def speeds(bench: Bench, few: int, many: int, names: list[str], repeats: int) -> None:
    """Print places a second, and the seconds of the start."""
    for count in (few, many):
        bench.places(count)

    def measured(model: str, name: str) -> tuple[float, float]:
        took = [
            bench.run("embed", str(bench.folder), model, n, str(bench.output()), ENGINES[name])[1]
            for n in (few, many)
        ]
        rate = (many - few) / max(took[1] - took[0], 1e-3)
        return rate, took[0] - few / rate

    for model in (STUB, SHIPPED):
        samples = in_turns({name: partial(measured, model, name) for name in names}, repeats)
        rates = {name: [rate for rate, _ in values] for name, values in samples.items()}
        rows = []
        for name, values in samples.items():
            found = ratios(rates[name], rates["local"]) if "local" in rates else [0.0]
            rows.append([
                name, f"{statistics.median(rates[name]):.1f}",
                f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})",
                f"{statistics.median(start for _, start in values):.1f}",
            ])  # fmt: skip
        print(f"\n{model}, between {few} and {many} places\n")
        print(table(["engine", "places/s", "x local", "start s"], rows), flush=True)
        if {"1 process", "2 processes"} <= rates.keys():
            ratio = statistics.median(ratios(rates["2 processes"], rates["1 process"]))
            print(goal(f"2 workers at least 1.7 x 1 worker, {ratio:.2f} x", ratio >= 1.7))
        if {"local", "ray"} <= rates.keys():
            ratio = statistics.median(ratios(rates["local"], rates["ray"]))
            print(goal(f"Ray takes at most 1.25 x local, {ratio:.2f} x", ratio <= 1.25))


def kills(bench: Bench, count: int, places: int, names: list[str]) -> None:
    """Print how many tables have the same bytes after drivers and workers were killed."""
    bench.places(places)
    draw = random.Random(0)  # noqa: S311
    rows, same, total = [], 0, 0
    undisturbed = bench.output()
    bench.run("embed", str(bench.folder), STUB, places, str(undisturbed), {})
    for name in names:
        out = bench.output()
        run = partial(bench.start, "embed", str(bench.folder), STUB, places)
        began = time.monotonic()
        run(str(out), ENGINES[name]).wait()
        took = time.monotonic() - began
        tables = [_sha256(out)]
        ended = {"driver": 0, "worker": 0, "none": 0}
        while ended["driver"] + ended["worker"] < count:
            out = bench.output()
            # A killed driver may have left the table, but not its model card.
            while not _finished(out):
                ended[_killed(run(str(out), ENGINES[name]), took, draw, name)] += 1
            tables.append(_sha256(out))
            print(f"{name}: {len(tables)} tables, ended {ended}", file=sys.stderr, flush=True)
        good = tables.count(_sha256(undisturbed))
        same, total = same + good, total + len(tables)
        rows.append([name, str(ended["driver"]), str(ended["worker"]), f"{good} of {len(tables)}"])
        print(rows[-1], flush=True)
    print()
    print(table(["engine", "drivers killed", "workers killed", "tables with the same bytes"], rows))
    print("\n" + goal(f"every table has the same bytes, {same} of {total}", same == total))


def _killed(process: subprocess.Popen[bytes], took: float, draw: random.Random, name: str) -> str:
    """Kill a run, or one of its workers and then wait; return which, "none" if it ended before."""
    time.sleep(draw.uniform(0, took))
    family = _descendants(process.pid)
    workers = [pid for pid in family if _is_worker(pid)]
    victim = "worker" if workers and draw.random() < 0.5 else "driver"
    if process.poll() is not None:
        return _checked(process, "none")
    os.kill(draw.choice(workers) if victim == "worker" else process.pid, 9)
    process.wait()  # a run whose worker was killed before it began stops, and is repeated
    if victim == "worker":
        return victim
    # What it had started ends by itself.
    end = time.monotonic() + _SEEN_S
    while any(_command(pid) == command for pid, command in family.items()):
        if time.monotonic() > end:
            raise RuntimeError(f"{name}: processes are left after their driver was killed")
        time.sleep(0.05)
    return victim


def _checked(process: subprocess.Popen[bytes], victim: str) -> str:
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return victim


def _finished(out: Path) -> bool:
    return out.exists() and not out.with_name(f"{out.name}.partial").exists()


def _is_worker(pid: int) -> bool:
    command = _command(pid)
    return "rs_embed.runs.worker" in command or command.startswith("ray::")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def _descendants(pid: int) -> dict[int, str]:
    """Return the command of each process that this one has started, and those in turn."""
    found: dict[int, str] = {}
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = list(map(int, file.read_text().split()))
        except OSError:
            continue
        for child in children:
            found |= {child: _command(child), **_descendants(child)}
    return {number: command for number, command in found.items() if command}


def large(bench: Bench, count: int) -> None:
    """Print time and memory of a large table, and check its rows."""
    import pyarrow.parquet

    peaks = {}
    some = min(count, 2000)
    for number in {_FEW_PLACES, some, count}:
        bench.places(number)
    alone = {
        "reading alone": bench.run("read", str(bench.folder), some)[0] * count / some,
        "network alone": bench.run("network", some)[0] * count / some,
    }
    for number in (_FEW_PLACES, count):
        out = bench.output()
        _, took, peaks[number] = bench.run("embed", str(bench.folder), STUB, number, str(out), {})
    ids = pyarrow.parquet.read_table(out, columns=["id"])["id"].to_pylist()
    whole = set(ids) == {f"p{n}" for n in range(count)} and len(ids) == count
    slowest = max(alone.values())
    rows = [[name, f"{value:.1f}", f"{value / slowest:.2f}"] for name, value in alone.items()]
    rows.append(["whole run, with its start", f"{took:.1f}", f"{took / slowest:.2f}"])
    print(f"\n{count} places; reading and network alone from {some} of them\n")
    print(table(["case", "s", "x slowest stage"], rows))
    print(f"Peak memory {peaks[_FEW_PLACES]:.3f} GB of 1000 places, {peaks[count]:.3f} GB of all")
    print("\n" + goal("rows = places, each id once, none failed", whole))
    print(goal("wall time at most 1.1 x the slowest stage", took <= 1.1 * slowest))
    ratio = peaks[count] / peaks[_FEW_PLACES]
    print(goal(f"peak memory at most 1.1 x that of 1000 places, {ratio:.2f} x", ratio <= 1.1))


def main() -> None:
    parser = arguments(__doc__, repeats=2)
    parser.add_argument("--few", type=positive, default=80, help="places (default 80)")
    parser.add_argument("--many", type=positive, default=480, help="places (default 480)")
    parser.add_argument("--ms", type=float, default=10, help="of the stub, an image (default 10)")
    parser.add_argument("--kills", type=positive, help="for each engine")
    parser.add_argument("--places", type=positive, help="of one large table")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    args = parser.parse_args()
    names = [n for n in args.engines if find_spec("ray") or n != "ray"]
    disturbance = Disturbance()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), args.ms)
        print(f"The stub takes {args.ms:g} ms an image ({machine()})", flush=True)
        if args.kills:
            kills(bench, args.kills, args.few, names)
        elif args.places:
            large(bench, args.places)
        else:
            speeds(bench, args.few, args.many, names, args.repeats)
    print(f"{disturbance.report()}; load {', '.join(f'{x:.1f}' for x in os.getloadavg())}")


if __name__ == "__main__":
    actions: dict[str, Callable[..., Any]] = {"embed": embed, "read": read, "network": network}
    if len(sys.argv) == 3 and sys.argv[1] in actions:
        sys.stdout.write(json.dumps(actions[sys.argv[1]](*json.loads(sys.argv[2]))))
    else:
        main()
