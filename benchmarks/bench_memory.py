"""Peak memory of many places, and of one large grid, in separate processes.

    python benchmarks/bench_memory.py [--repeats 2] [--places 50 500 2000] [--side 410]
                                      [--height 5000] [--width 3000] [--variant tiny]

Places are uint16 arrays that a generator creates on demand for ``iter_embeddings``; memory must not
grow with their number. About 80 are in progress at once, so fewer places need less.

The grid is one array in tiles: its process is compared with one that loads the network and holds
the array and an output of the same size, and with one that also runs one batch of 8 tiles. If the
inputs of all tiles were prepared at once, memory would grow with their number.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path

from measure import Disturbance, arguments, comparison, goal, in_turns, machine, positive

from processes import run_python

GOAL_RATIO = 1.05
HOLD, FORWARD, GRID = "array and output held", "and one batch of 8", "grid in tiles"
SCRIPT = str(Path(__file__).with_name("memory_cases.py"))


def _peak_gb(*case: object) -> float:
    return run_python([SCRIPT, *map(str, case)], {"PYTHONWARNINGS": "ignore"}).peak_gb


def main() -> None:
    parser = arguments(__doc__, repeats=2)
    parser.add_argument(
        "--places", type=positive, nargs="+", default=[50, 500, 2000], help="how many"
    )
    for name, default, what in (
        ("--side", 410, "side of a place"),
        ("--height", 5000, "of the grid's array"),
        ("--width", 3000, "of the grid's array"),
    ):
        parser.add_argument(
            name, type=positive, default=default, help=f"{what}, pixels (default {default})"
        )
    # As in networks.py, which imports PyTorch: the peak of a child starts at that of its parent.
    parser.add_argument("--variant", default="tiny", help="size of the network (default tiny)")
    args = parser.parse_args()
    disturbance = Disturbance()
    places = {
        f"{count} places": partial(_peak_gb, "places", count, args.side, args.variant)
        for count in args.places
    }
    size = (args.height, args.width, args.variant)
    grids = {
        HOLD: partial(_peak_gb, "hold", *size),
        FORWARD: partial(_peak_gb, "forward", *size),
        GRID: partial(_peak_gb, "grid", *size),
    }
    print(f"Peak memory, {args.variant} network ({machine()})\n")
    peaks = in_turns(places, args.repeats)
    print(comparison(peaks, baselines=[next(iter(places))], unit="GB", digits=3))
    all_peaks = [peak for of_case in peaks.values() for peak in of_case]
    ratio = max(all_peaks) / min(all_peaks)
    text = f"greatest at most {GOAL_RATIO} x the least, {ratio:.3f} x"
    print("\n" + goal(text, ratio <= GOAL_RATIO))

    print(f"\nOne array of {args.height} x {args.width} px\n")
    peaks = in_turns(grids, args.repeats)
    print(comparison(peaks, baselines=[HOLD], unit="GB", digits=3))
    beyond = {
        name: statistics.median(peaks[name]) - statistics.median(peaks[HOLD]) for name in peaks
    }
    pixels_gb = args.height * args.width / 1e9
    print(
        f"\nThe grid takes {beyond[GRID]:.3f} GB beyond array and output, one batch "
        f"{beyond[FORWARD]:.3f} GB, and the image that the embedding carries, with its validity, "
        f"{4 * pixels_gb:.3f} GB; the inputs of all tiles at once would be {12 * pixels_gb:.3f} GB"
    )
    print(disturbance.report())


if __name__ == "__main__":
    main()
