"""Check that maps killed at random moments and resumed have the same bytes as undisturbed ones.

    python benchmarks/bench_map_kill.py [--scene scene.tif] [--side 640] [--kills 20] [--seed 0]
        [--tile-size 112] [--weights scalemae-tiny] [--variant tiny] [--formats .zarr .tif]

Each run is a process that is killed with SIGKILL, and a second process that repeats the call. Two
thirds of the moments are spread evenly over the computation of the windows, from the time when
``.partial`` appears; one third over the writing of the map, from the time when it begins. The
SHA-256 covers the names and bytes of all remaining files: map and STAC Item. Two undisturbed runs
come first and must have the same result.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import rasterio
from measure import arguments, goal, machine, positive, table
from rasterio.warp import transform
from scenes import add_scene, write_mirrored

SCRIPT = str(Path(__file__).with_name("map_cases.py"))
# A run that finishes before it is killed is repeated and killed earlier by this factor.
_EARLIER = 0.7
_POLL_S = 0.002

Phase = Literal["windows", "writing"]


@dataclass(frozen=True)
class Moment:
    """When a run is killed, in seconds from the beginning of a phase."""

    phase: Phase
    after_s: float


@dataclass(frozen=True)
class Killed:
    """State left by a killed run.

    Attributes
    ----------
    moment : Moment
        When it was killed.
    kept : int
        Windows in ``.partial``.
    left : str
        Other files.
    """

    moment: Moment
    kept: int
    left: str


class Maker:
    """Computes the same map repeatedly, each time in an empty folder.

    Parameters
    ----------
    scene : Path
        The imagery; the folders are created next to it.
    args : dict
        Arguments of ``embed_area`` except the output.
    suffix : str
        Format.
    """

    def __init__(self, scene: Path, args: dict[str, Any], suffix: str) -> None:
        self._scene = scene
        self._place = scene.with_name("maps")
        self._output = self._place / f"map{suffix}"
        self._partial = self._place / f"map{suffix}.partial"
        self._asked = {**args, "output": str(self._output)}

    def _started(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", SCRIPT, "embed", json.dumps(self._asked)]
        environment = {**os.environ, "RS_EMBED_LOCAL": str(self._scene)}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    def _empty(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        self._place.mkdir()

    def _others(self) -> list[Path]:
        """Return files other than the stored windows: the map, complete or not."""
        return [p for p in self._place.iterdir() if not p.name.startswith(self._partial.name)]

    def _wait(self, process: subprocess.Popen[str], phase: Phase) -> bool:
        """Return whether the phase has begun before the process ended."""
        while process.poll() is None:
            if self._others() if phase == "writing" else self._partial.exists():
                return True
            time.sleep(_POLL_S)
        return False

    def undisturbed(self) -> tuple[str, dict[Phase, float]]:
        """Return the SHA-256 of an undisturbed map, and the duration of each phase."""
        self._empty()
        with self._started() as process:
            self._wait(process, "windows")
            began = time.perf_counter()
            self._wait(process, "writing")
            written = time.perf_counter()
            _output(process)
        took: dict[Phase, float] = {
            "windows": written - began,
            "writing": time.perf_counter() - written,
        }
        return self.sha256(), took

    def killed(self, moment: Moment) -> Killed:
        """Kill a run and return its state; kill earlier if it was finished by then."""
        while True:
            self._empty()
            with self._started() as process:
                begun = self._wait(process, moment.phase)
                time.sleep(moment.after_s)
                process.kill()
                process.wait()
            if begun and self._partial.exists():
                left = ", ".join(sorted(path.name for path in self._others())) or "none"
                return Killed(moment, self._kept(), left)
            moment = Moment(moment.phase, moment.after_s * _EARLIER)

    def _kept(self) -> int:
        """Return the number of stored windows, from a copy: opening would repair the file."""
        with tempfile.TemporaryDirectory() as copy:
            for path in self._place.glob(f"{self._partial.name}*"):
                shutil.copy(path, copy)
            connection = sqlite3.connect(Path(copy) / self._partial.name)
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            query = "SELECT count(*) FROM result WHERE error IS NULL AND key LIKE '% %'"
            kept = int(connection.execute(query).fetchone()[0]) if tables else 0
            connection.close()
        return kept

    def resumed(self) -> tuple[str, int]:
        """Repeat the call; return the SHA-256 of the map, and how many windows it reused."""
        with self._started() as process:
            report = json.loads(_output(process))
        return self.sha256(), int(report["resumed"])

    def sha256(self) -> str:
        """Return the digest of the names and bytes of all files."""
        digest = hashlib.sha256()
        for path in sorted(p for p in self._place.rglob("*") if p.is_file()):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(self._place)} {len(content)}\n".encode() + content)
        return digest.hexdigest()


def _output(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return output


def moments(took: dict[Phase, float], count: int, draw: random.Random) -> list[Moment]:
    """Return when to kill: two thirds while computing windows, the others while writing."""
    writing = count // 3
    chosen = []
    phases: dict[Phase, int] = {"windows": count - writing, "writing": writing}
    for phase, number in phases.items():
        part = took[phase] / max(number, 1)
        chosen += [Moment(phase, (k + draw.random()) * part) for k in range(number)]
    return chosen


def _place_of(scene: Path) -> tuple[float, float, float]:
    """Return longitude and latitude of the centre, and half a side in metres that fits."""
    with rasterio.open(scene) as file:
        left, bottom, right, top = file.bounds
        (lon,), (lat,) = transform(
            file.crs, "EPSG:4326", [(left + right) / 2], [(bottom + top) / 2]
        )
    return lon, lat, min(right - left, top - bottom) / 2 * 0.98


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    add_scene(parser)
    parser.add_argument("--side", type=positive, default=640, help="px of the scene (default 640)")
    parser.add_argument("--kills", type=positive, default=20, help="per format (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--tile-size", type=positive, default=112, help="px (default 112, for more groups of 8)"
    )
    parser.add_argument("--weights", default="scalemae-tiny")
    parser.add_argument("--variant", default="tiny")
    parser.add_argument("--formats", nargs="+", default=[".zarr", ".tif"])
    args = parser.parse_args()
    print(f"Maps of {args.side} x {args.side} px with {args.weights} ({machine()})")
    same, total = 0, 0
    with tempfile.TemporaryDirectory() as name:
        # A date in the name gives the map a STAC item.
        scene = Path(name) / "scene_20160601.tif"
        write_mirrored(args.scene, args.side, scene)
        request = {
            "model": "scalemae", "weights": args.weights, "variant": args.variant,
            "place": _place_of(scene), "period": ("2016-06-01", "2016-06-02"), "backend": "local",
            "tile_size": args.tile_size,
        }  # fmt: skip
        for suffix in args.formats:
            maker = Maker(scene, request, suffix)
            expected, took = maker.undisturbed()
            again, _ = maker.undisturbed()
            print(
                f"\n{suffix}: windows {took['windows']:.2f} s, writing {took['writing']:.2f} s; "
                f"SHA-256 {expected}, {'the same' if again == expected else 'ANOTHER'} when made "
                "anew\n"
            )
            draw = random.Random(args.seed)  # noqa: S311
            rows = []
            for moment in moments(took, args.kills, draw):
                left = maker.killed(moment)
                found, resumed = maker.resumed()
                same += found == expected
                total += 1
                rows.append(
                    [
                        f"{left.moment.phase} {left.moment.after_s:.3f}",
                        str(left.kept), str(resumed), left.left,
                        "yes" if found == expected else "NO",
                    ]
                )  # fmt: skip
            header = ["killed in, after s", "windows kept", "resumed", "others left", "same bytes"]
            print(table(header, rows))
    print("\n" + goal(f"every map has the same bytes, {same} of {total}", same == total))


if __name__ == "__main__":
    main()
