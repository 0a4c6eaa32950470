"""Time of a process from its start to its first embedding, with the weights that ship.

    python benchmarks/bench_first_place.py [--repeats 7]

Compared with a process that only imports PyTorch. The place is 64 x 64 px of the sample scene, so
that reading, projections and the network are part of it. ``rs-embed demo`` is the whole command.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial

from measure import Disturbance, arguments, comparison, goal, in_turns, machine, ratios

from processes import run_python

GOAL_RATIO, GOAL_DEMO_S = 1.3, 10
FLOOR, ARRAY, PLACE, DEMO = "import torch", "an array", "a place", "rs-embed demo"
OPTIONS = 'weights="scalemae-tiny", image_size=64, input_prep="tile", device="cpu"'
SCRIPTS = {
    FLOOR: "import torch",
    ARRAY: (
        "import numpy as np; from rs_embed import get_embedding; "
        "pixels = np.full((3, 64, 64), 900, np.uint16); pixels[:, ::2] = 1500; "
        f'get_embedding("scalemae", input_chw=pixels, scale_m=10, {OPTIONS})'
    ),
    PLACE: (
        "from rs_embed import SAMPLE_PLACE, get_embedding; "
        f'get_embedding("scalemae", spatial=SAMPLE_PLACE.centre, buffer_m=320, backend="sample", '
        f"{OPTIONS})"
    ),
}


def _seconds(command: list[str]) -> float:
    environment = {"PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": ""}
    return run_python(command, environment).seconds


def main() -> None:
    args = arguments(__doc__, repeats=7).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = {name: ["-c", code] for name, code in SCRIPTS.items()}
        commands[DEMO] = ["-c", "from rs_embed.cli import main; main()", "demo", "--out", folder]
        cases = {name: partial(_seconds, command) for name, command in commands.items()}
        disturbance = Disturbance()
        seconds = in_turns(cases, args.repeats)
    print(f"Process start to first embedding, weights that ship ({machine()})\n")
    print(comparison(seconds, baselines=[FLOOR], unit="s"))
    ratio = statistics.median(ratios(seconds[PLACE], seconds[FLOOR]))
    demo = statistics.median(seconds[DEMO])
    print("\n" + goal(f"a place in {GOAL_RATIO} x {FLOOR}, {ratio:.2f} x", ratio <= GOAL_RATIO))
    print(goal(f"the demo in {GOAL_DEMO_S} s, {demo:.1f} s", demo <= GOAL_DEMO_S))
    print(disturbance.report())


if __name__ == "__main__":
    main()
