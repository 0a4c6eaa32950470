"""Speed of ViT-L/16 at 224 px in float32, compared with the limit of the machine.

    python benchmarks/bench_forward.py [--repeats 5]

The limit is the best rate of ``torch.matmul`` over a few sizes in the same round, divided by the
operations of one image. A ratio of 1 would mean that all time goes into matrix products. "Side by
side" is what the library does: passes of two images, one core each.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

import numpy as np
import torch
from measure import Disturbance, arguments, comparison, in_turns, machine, ratios
from numpy.typing import NDArray

from rs_embed.models.scalemae.config import NetworkConfig
from rs_embed.models.scalemae.encoder import NativeEncoder
from rs_embed.models.scalemae.network import ScaleMae

CONFIG = NetworkConfig()
IMAGE_SIZE = 224
BATCHES = (1, 4, 8)
SIDES = (1024, 2048, 4096)
LIMIT = "limit"


def image_gflop(config: NetworkConfig, image_size: int) -> float:
    """Return the operations of one image in matrix products (10^9, 2 per multiply-add)."""
    patches = (image_size // config.patch_size) ** 2
    tokens = patches + int(config.cls_token)
    width = config.embed_dim
    embed = patches * 3 * config.patch_size**2 * width
    # Query, key, value and output projections, then the two layers of the MLP.
    linear = tokens * width * (4 * width + 2 * int(width * config.mlp_ratio))
    attention = 2 * tokens**2 * width
    return 2 * (embed + config.depth * (linear + attention)) / 1e9


def _images_per_second(network: ScaleMae, images: torch.Tensor, gsd: torch.Tensor) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        network(images, gsd)
    return len(images) / (time.perf_counter() - start)


def _encoded_per_second(encoder: NativeEncoder, images: NDArray[np.float32]) -> float:
    start = time.perf_counter()
    encoder.encode(images, [10.0] * len(images))
    return len(images) / (time.perf_counter() - start)


def _matmul_gflops(left: torch.Tensor, right: torch.Tensor) -> float:
    side = len(left)
    # Each size does the work of one product of the largest.
    count = (SIDES[-1] // side) ** 3
    result = torch.empty_like(left)
    start = time.perf_counter()
    for _ in range(count):
        torch.matmul(left, right, out=result)
    return 2 * side**3 * count / 1e9 / (time.perf_counter() - start)


def _network() -> ScaleMae:
    with torch.device("meta"):
        network = ScaleMae(CONFIG)
    network.to_empty(device="cpu").initialise(seed=0)
    return network.eval().requires_grad_(False)


def main() -> None:
    repeats = arguments(__doc__, repeats=5).parse_args().repeats
    network, work = _network(), image_gflop(CONFIG, IMAGE_SIZE)
    forwards = {
        f"batch of {batch}": partial(
            _images_per_second,
            network,
            torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE),
            torch.full((batch,), 10.0),
        )
        for batch in BATCHES
    }
    encoder = NativeEncoder(network, IMAGE_SIZE, True, False, None, dict)
    images = np.zeros((BATCHES[-1], 3, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    forwards[f"{len(images)}, side by side"] = partial(_encoded_per_second, encoder, images)
    products = {
        f"{side} x {side}": partial(
            _matmul_gflops, torch.randn(side, side), torch.randn(side, side)
        )
        for side in SIDES
    }
    disturbance = Disturbance()
    samples = in_turns({**products, **forwards}, repeats)
    best = [max(rates) for rates in zip(*(samples[name] for name in products), strict=True)]
    print(f"Forward of ViT-L/16 at {IMAGE_SIZE} px, {work:.1f} GFLOP per image ({machine()})\n")
    speeds = {LIMIT: [rate / work for rate in best], **{name: samples[name] for name in forwards}}
    print(comparison(speeds, baselines=[LIMIT], unit="images/s"))
    print("\nMatrix products, float32\n")
    rates = {"best of the round": best, **{name: samples[name] for name in products}}
    print(comparison(rates, baselines=["best of the round"], unit="GFLOP/s", digits=0))
    shares = {name: statistics.median(ratios(speeds[name], speeds[LIMIT])) for name in forwards}
    print("\nShare of the limit: " + ", ".join(f"{n} {s:.0%}" for n, s in shares.items()))
    print("\n" + disturbance.report())


if __name__ == "__main__":
    main()
