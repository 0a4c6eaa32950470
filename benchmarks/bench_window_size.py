"""How large the windows of a map should be: accuracy of its tokens for each size.

    python benchmarks/bench_window_size.py --scenes ../shared/data/s2/lommel_s2_boa_20190411_10m.tif
        ... [--sizes 128 224 448 896] [--side 1024] [--weights scalemae-tiny] [--screen 0.2]

For each scene and size of windows, an overlap of a quarter: mean recall of classes by k-NN and by a
linear probe (see `labelled_scenes.scores`), of blended and of harmonised tokens, how far the
windows are apart, and the seconds for all windows. Sizes above the smaller side of a scene are left
out.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

from bench_harmonise import Mapped
from labelled_scenes import opened, scores
from measure import arguments, machine, positive, table
from scenes import SAMPLE

from rs_embed.errors import RsEmbedWarning


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--scenes", nargs="+", type=Path, default=[SAMPLE])
    parser.add_argument("--sizes", nargs="+", type=positive, default=[128, 224, 448, 896])
    parser.add_argument("--side", type=positive, default=1024, help="pixels of each scene")
    parser.add_argument("--weights", default="scalemae-tiny")
    parser.add_argument("--screen", type=float, default=0.2)
    options = parser.parse_args()
    warnings.simplefilter("ignore", RsEmbedWarning)
    print(machine())
    rows = []
    for path in options.scenes:
        scene = opened(path, options.side)
        for size in options.sizes:
            if size > min(scene.pixels.shape[-2:]):
                continue
            start = time.perf_counter()
            mapped = Mapped(scene.pixels, options.weights, tile_size=size)
            seconds = time.perf_counter() - start
            found = []
            for windows in (mapped.windows, mapped.harmonised(options.screen)):
                tokens = mapped.map(windows)
                labels = scene.labels(tokens.shape[0], tokens.shape[1], mapped.layout.patch_size)
                found += [f"{value:.3f}" for value in scores(tokens, labels).mean(axis=0)]
            apart = mapped.differences.apart
            rows.append(
                [scene.name, str(size), str(len(mapped.layout.tiles)), f"{seconds:.0f}",
                 "" if apart is None else f"{apart:.2f}", *found]
            )  # fmt: skip
            print(rows[-1], flush=True)
    head = ["scene", "size px", "windows", "s", "apart", "k-NN", "probe", "k-NN harmonised",
            "probe harmonised"]  # fmt: skip
    print(table(head, rows))


if __name__ == "__main__":
    main()
