"""Cost of a token grid in tiles: the number of tiles, and the overhead over their forward.

    python benchmarks/bench_tiles.py [--repeats 3] [--side 2048] [--overlap 0] [--variant large]

The first table counts the tiles, and the pixels that go through the network relative to the image.
The second compares ``get_embedding(..., input_prep="tile", output=OutputSpec.grid())`` of an array
of uint16 with the bare forward of exactly those tiles, prepared in advance, in batches of 8.
Memory is measured by bench_memory.py.
"""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

import numpy as np
from measure import (
    Disturbance,
    arguments,
    comparison,
    goal,
    in_turns,
    machine,
    ratios,
    seconds,
    table,
)
from networks import (
    BATCH,
    add_count,
    add_variant,
    forward,
    in_batches,
    network_of,
    options,
)

from rs_embed import (
    Embedding,
    FetchSpec,
    InputPrepSpec,
    OutputSpec,
    get_embedding,
    inspect_input,
)
from rs_embed.geo.tiling import tiles_of

GOAL_OVERHEAD = 0.05
BARE, GRID = "bare forward of the tiles", "get_embedding"
PATCH = 16
TILES = (224, 256)
SHARES = (("0", 0.0), ("1/8", 1 / 8), ("1/4", 1 / 4), ("1/2", 1 / 2))


def _counts(side: int) -> str:
    """Return the table of tiles for a square image."""
    rows = []
    for tile in TILES:
        for name, share in SHARES:
            # Rounded up to whole patches.
            overlap = -int(-share * tile // PATCH) * PATCH
            count = len(
                tiles_of((side, side), tile_size=tile, overlap_px=overlap, patch_size=PATCH)
            )
            least = (side / tile) ** 2
            rows.append(
                [f"{tile}", name, str(overlap), str(count), f"{least:.1f}", f"{count / least:.2f}"]
            )
    header = ["tile px", "overlap", "px", "tiles", "area / tile area", "ratio"]
    return table(header, rows)


def _embed(pixels: Any, args: dict[str, Any]) -> Embedding:
    return get_embedding(
        "scalemae",
        input_chw=pixels,
        output=OutputSpec.grid(),
        device="cpu",
        progress=False,
        **args,
    )


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    add_count(parser, "--side", 2048, "side of the array, pixels")
    parser.add_argument("--overlap", type=int, default=0, help="overlap of tiles, px (default 0)")
    add_variant(parser, "large")
    args = parser.parse_args()
    print(f"Tiles of {args.side} x {args.side} px\n\n{_counts(args.side)}\n")

    shape = (3, args.side, args.side)
    pixels = np.random.default_rng(0).integers(300, 3000, shape, dtype=np.uint16)
    request: dict[str, Any] = {
        "fetch": FetchSpec(scale_m=10),
        "input_prep": InputPrepSpec.tile(overlap_px=args.overlap),
        **options(args.variant),
    }
    look = inspect_input("scalemae", input_chw=pixels, **request)
    batches = in_batches([look.tensor(number) for number in range(len(look.tiles))])
    network = network_of(args.variant)
    cases = {
        BARE: partial(seconds, partial(forward, network, batches, look.meta["input_res"])),
        GRID: partial(seconds, partial(_embed, pixels, request)),
    }
    disturbance = Disturbance()
    samples = in_turns(cases, args.repeats)
    print(
        f"Grid of {args.side} x {args.side} px in {len(look.tiles)} tiles, {args.variant} "
        f"network, batches of {BATCH} ({machine()})\n"
    )
    print(comparison(samples, baselines=[BARE], unit="s"))
    overhead = statistics.median(ratios(samples[GRID], samples[BARE])) - 1
    text = f"a grid takes at most {GOAL_OVERHEAD:.0%} beyond the forward, {overhead:.1%}"
    print("\n" + goal(text, overhead <= GOAL_OVERHEAD))
    print(disturbance.report())


if __name__ == "__main__":
    main()
