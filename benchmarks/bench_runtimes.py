"""Speed of the native network with PyTorch and with ONNX Runtime, on the CPU in float32.

    python benchmarks/bench_runtimes.py [--repeats 5] [--only "shipped, 64 px"]

Each runtime computes a batch in one pass that uses all threads, and in parts side by side, one
thread for each. Processor time includes that of threads that wait for others by spinning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from measure import Disturbance, arguments, comparison, in_turns, machine
from torch import Tensor

from rs_embed.models.scalemae.config import VARIANTS, NetworkConfig
from rs_embed.models.scalemae.network import ScaleMae
from rs_embed.models.scalemae.onnx_blocks import with_onnx_blocks

SHIPPED = NetworkConfig(embed_dim=192, depth=12, num_heads=3, patch_size=8)
CASES = {
    "shipped, 64 px": (SHIPPED, 64),
    "shipped, 224 px": (SHIPPED, 224),
    "ViT-B, 224 px": (VARIANTS["base"], 224),
    "ViT-L, 224 px": (VARIANTS["large"], 224),
}
BATCH = 8
BASELINE = "torch"


def _forward(network: ScaleMae, images: Tensor) -> None:
    with torch.inference_mode():
        network(images, torch.full((len(images),), 10.0))


def _side_by_side(pool: ThreadPoolExecutor, network: ScaleMae, parts: Sequence[Tensor]) -> None:
    list(pool.map(partial(_forward, network), parts))


def _milliseconds(action: Callable[[], None]) -> tuple[float, float]:
    """Return wall and processor milliseconds per image."""
    wall, processor = time.perf_counter(), time.process_time()
    action()
    spent = time.perf_counter() - wall, time.process_time() - processor
    return spent[0] * 1e3 / BATCH, spent[1] * 1e3 / BATCH


def _measure(name: str, config: NetworkConfig, image_size: int, repeats: int) -> None:
    threads = torch.get_num_threads()
    network = ScaleMae(config)
    network.initialise(seed=0)
    networks = {BASELINE: network.eval().requires_grad_(False)}
    with_onnx_blocks(ScaleMae(NetworkConfig(embed_dim=8, depth=1, num_heads=1)))  # imports
    start = time.perf_counter()
    networks["onnx"] = with_onnx_blocks(network)
    print(f"\n## {name}: ONNX Runtime starts in {time.perf_counter() - start:.2f} s")
    images = torch.randn(BATCH, 3, image_size, image_size)
    expected, found = (each(images[:1], torch.tensor([10.0])).patches for each in networks.values())
    print(f"Greatest difference {float((expected - found).abs().max()):.1e}")
    disturbance = Disturbance()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        parts = images.tensor_split(threads)
        actions = {
            **{name: partial(_forward, each, images) for name, each in networks.items()},
            **{
                f"{name}, side by side": partial(_side_by_side, pool, each, parts)
                for name, each in networks.items()
            },
        }
        samples = in_turns(
            {name: partial(_milliseconds, action) for name, action in actions.items()}, repeats
        )
    for column, unit in enumerate(("ms per image", "ms of processor per image")):
        one = {name: [values[column] for values in rounds] for name, rounds in samples.items()}
        print("\n" + comparison(one, baselines=[BASELINE, f"{BASELINE}, side by side"], unit=unit))
    print(disturbance.report())


def main() -> None:
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--only", choices=CASES, help="one of the cases (default all)")
    given = parser.parse_args()
    print(f"{machine()}, {torch.get_num_threads()} threads")
    for name, (config, image_size) in CASES.items():
        if given.only in (None, name):
            _measure(name, config, image_size, given.repeats)


if __name__ == "__main__":
    main()
