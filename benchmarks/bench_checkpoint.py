"""Time to load a ViT-L/16 checkpoint, compared with reading its file once.

    python benchmarks/bench_checkpoint.py [--repeats 7] [--folder FOLDER]

"Load" is ``load_network``: building the module, parsing the file, checking names and shapes, and
memory-mapping the file. This reads almost nothing, so "load and touch" also sums every tensor,
which reads every page. The baseline reads the whole file through one small, reused buffer: no
memory is allocated and nothing is parsed. The page cache is warm and PyTorch is already imported.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

from checkpoints import PYTORCH, SAFETENSORS, add_folder, new_buffer, read_once, vit_large
from measure import Disturbance, arguments, comparison, in_turns, machine, ratios, seconds

from rs_embed.models.scalemae.checkpoint import load_network
from rs_embed.models.scalemae.config import NetworkConfig
from rs_embed.models.scalemae.network import ScaleMae

READ = "read once"
TOUCHED = "load and touch"


def _load_and_touch(path: Path) -> ScaleMae:
    network = load_network(path, NetworkConfig())
    for parameter in network.parameters():
        parameter.sum()
    return network


def _measure(path: Path, repeats: int) -> dict[str, list[float]]:
    buffer = new_buffer()
    actions: dict[str, Callable[[], object]] = {
        READ: partial(read_once, path, buffer),
        "load": partial(load_network, path, NetworkConfig()),
        TOUCHED: partial(_load_and_touch, path),
    }
    return in_turns({name: partial(seconds, act) for name, act in actions.items()}, repeats)


def main() -> None:
    parser = arguments(__doc__, repeats=7)
    add_folder(parser)
    args = parser.parse_args()
    print(f"Load a ViT-L/16 checkpoint ({machine()})")
    with vit_large(args.folder) as folder:
        for name in (SAFETENSORS, PYTORCH):
            path = folder / name
            disturbance = Disturbance()
            samples = _measure(path, args.repeats)
            print(f"\n{name}, {path.stat().st_size / 1e9:.3f} GB\n")
            print(comparison(samples, baselines=[READ], unit="s", digits=3))
            ratio = statistics.median(ratios(samples[TOUCHED], samples[READ]))
            print(f"\nLoaded and touched in {ratio:.2f} x the time of reading the file")
            print(disturbance.report())


if __name__ == "__main__":
    main()
