"""Time and memory of one image of many tokens, with the weights that ship.

    python benchmarks/bench_tokens.py [--sides 224 448 640 896 1280] [--repeats 2]

Each measurement is a process of its own. The memory is its peak, minus that of a process that
embeds 64 x 64 px. "Attention" is what the matrices of all heads of one layer would take if they
were stored.
"""

from __future__ import annotations

import json
import statistics
from functools import partial

from measure import Disturbance, arguments, in_turns, machine, positive, table

from processes import run_python

PATCH_PX, HEADS = 8, 3
WORK = """
import json, resource, sys, time
import numpy as np
from rs_embed.registry import find_model
from rs_embed.settings import Settings
side = int(sys.argv[1])
model, options = find_model("scalemae"), {"weights": "scalemae-tiny"}
encoder = model.plan(options, device="cpu", settings=Settings.from_environ()).load()
encoder.encode(np.zeros((1, 3, 64, 64), np.float32), [10.0])
start = time.perf_counter()
encoder.encode(np.zeros((1, 3, side, side), np.float32), [10.0])
print(json.dumps(time.perf_counter() - start))
"""


def _run(side: int) -> tuple[float, float]:
    done = run_python(["-c", WORK, str(side)])
    return json.loads(done.output), done.peak_gb


def main() -> None:
    parser = arguments(__doc__, repeats=2)
    parser.add_argument("--sides", type=positive, nargs="+", default=[224, 448, 640, 896, 1280])
    args = parser.parse_args()
    disturbance = Disturbance()
    runs = in_turns({str(side): partial(_run, side) for side in [64, *args.sides]}, args.repeats)
    least_gb = min(peak for _, peak in runs["64"])
    rows = []
    for side in args.sides:
        tokens = (side // PATCH_PX) ** 2
        seconds = statistics.median(s for s, _ in runs[str(side)])
        megabytes = 1000 * (statistics.median(peak for _, peak in runs[str(side)]) - least_gb)
        attention_mb = HEADS * (tokens + 1) ** 2 * 4 / 1e6
        rows.append(
            [f"{side}", f"{tokens}", f"{seconds:.2f}", f"{1e6 * seconds / tokens:.0f}",
             f"{megabytes:.0f}", f"{attention_mb:.0f}"]
        )  # fmt: skip
    print(f"One image of many tokens ({machine()})\n")
    print(table(["side px", "tokens", "s", "us per token", "MB", "attention MB"], rows))
    print(disturbance.report())


if __name__ == "__main__":
    main()
