"""Images per second on a CUDA card: what it can, the network alone, and from arrays to vectors.

    python benchmarks/bench_gpu.py [--repeats 5] [--variant large] [--images 512] [--device cuda]

A round measures the rate of bfloat16 matrix products, the network alone on a batch that is on the
card already, the library from uint16 arrays to vectors, and a plain loop for comparison: Pillow,
batches of 32, float32, one after the other. `--device cpu` only tries the script.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from bench_forward import image_gflop
from measure import Disturbance, arguments, comparison, in_turns, machine
from networks import add_count, add_variant, options
from numpy.typing import NDArray

from rs_embed import FetchSpec, RsEmbedWarning, get_embeddings_batch
from rs_embed.models.scalemae.encoder import NativeEncoder
from rs_embed.models.scalemae.model import MODEL
from rs_embed.models.scalemae.preparation import ScaleMaePreparation
from rs_embed.settings import Settings

SIDE, PX, GSD, BATCH = 410, 224, 10.0, 32
FETCH = FetchSpec(scale_m=GSD)
PREPARATION = ScaleMaePreparation("reflectance")


def rate(count: float, work: Callable[[], Any], device: torch.device) -> float:
    """Return how many of ``count`` are done in a second."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count / (time.perf_counter() - began)


def products(device: torch.device, size: int, times: int) -> float:
    """Return the TFLOP/s of bfloat16 matrix products."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def work() -> None:
        for _ in range(times):
            torch.mm(a, b)

    work()
    return rate(2 * size**3 * times / 1e12, work, device)


def alone(encoder: NativeEncoder, device: torch.device, batches: int) -> float:
    """Return the images per second of the network, without any copy."""
    image = torch.randn(BATCH, 3, PX, PX, device=device)
    gsd = torch.full((BATCH,), GSD, device=device)

    def work() -> None:
        for _ in range(batches):
            encoder._forward((image, gsd))

    encoder._forward((image, gsd))
    return rate(BATCH * batches, work, device)


def library(arrays: list[NDArray[np.uint16]], device: torch.device, **how: Any) -> float:
    """Return the images per second of the library, from arrays to vectors."""
    work = partial(
        get_embeddings_batch, "scalemae", input_chws=arrays, fetch=FETCH, device=str(device),
        progress=False, **how,
    )  # fmt: skip
    return rate(len(arrays), work, device)


def plain(arrays: list[NDArray[np.uint16]], encoder: NativeEncoder, device: torch.device) -> float:
    """Return the images per second of a loop that does one thing after the other."""

    def work() -> None:
        for start in range(0, len(arrays), BATCH):
            inputs = []
            for array in arrays[start : start + BATCH]:
                image = PREPARATION.image(array, (1e-4, 0.0))
                frame = PREPARATION.frame(image.shape[:2], PX)
                inputs.append(PREPARATION.tensor(PREPARATION.fitted(image, frame)))
            images = torch.from_numpy(np.stack(inputs)).to(device)
            gsd = torch.full((len(inputs),), GSD, device=device)
            encoder._forward((images, gsd)).patches.mean((1, 2)).cpu().numpy()

    return rate(len(arrays), work, device)


def main() -> None:
    parser = arguments(__doc__, repeats=5)
    add_variant(parser, "large")
    add_count(parser, "--images", 512, "images from arrays to vectors")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu to try the script")
    stated = parser.parse_args()
    if stated.device != "cpu" and not torch.cuda.is_available():
        print("PyTorch finds no CUDA card on this machine; there is nothing to measure")
        return
    device = torch.device(stated.device)
    on_card = device.type == "cuda"
    rng = np.random.default_rng(0)
    arrays = list(rng.integers(200, 3000, (stated.images, 3, SIDE, SIDE), dtype=np.uint16))
    model = {**options(stated.variant), "image_size": PX}
    cases: dict[str, Callable[[], float]] = {}
    for precision in ("bfloat16", "float32") if on_card else ("float32",):
        how = {**model, "precision": precision}
        plan = MODEL.plan(how, device=stated.device, settings=Settings.from_environ({}))
        encoder = cast(NativeEncoder, plan.load())
        batches = max(stated.images // BATCH, 1)
        cases[f"network alone, {precision}"] = partial(alone, encoder, device, batches)
        cases[f"arrays to vectors, {precision}"] = partial(library, arrays, device, **how)
    cases["plain loop, float32"] = partial(plain, arrays, encoder, device)
    size, times = (8192, 20) if on_card else (256, 2)
    cases["peak"] = partial(products, device, size, times)
    disturbance = Disturbance()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RsEmbedWarning)
        samples = in_turns(cases, stated.repeats)
    best, work = max(samples.pop("peak")), image_gflop(encoder.network.config, PX)
    name = torch.cuda.get_device_name(device) if on_card else "no card"
    print(f"Images per second, {stated.variant}, {PX} px ({name}; {machine()})\n")
    print(comparison(samples, baselines=["plain loop, float32"], unit="images/s", digits=1))
    print(f"\nbfloat16 matrix products: {best:.1f} TFLOP/s; share of it that the networks reach:")
    for case, rates in samples.items():
        share = max(rates) * work / 1e3 / best
        print(f"  {case}: {share:.1%}")
    print("\n" + disturbance.report())


if __name__ == "__main__":
    main()
