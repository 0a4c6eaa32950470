"""Speed of pretraining, compared with forward and backward of its networks on prepared batches.

    python benchmarks/bench_pretraining.py [--repeats 3] [--steps 12] [--batch 64] [--device auto]

The run uses ``recipes/scalemae-tiny.toml`` at 64 px on generated images: it reads, crops, masks,
updates, averages and logs. The difference of the ratio to 1 is the cost of all that.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measure import Disturbance, arguments, comparison, in_turns, machine, positive
from PIL import Image

from rs_embed.models.devices import resolve_device
from rs_embed.training.config import PretrainConfig, SourceConfig, hidden_patches
from rs_embed.training.objective import Objective
from rs_embed.training.pretraining import pretrain
from rs_embed.training.recipe import read_recipe
from rs_embed.training.views import random_masks

RECIPE = Path(__file__).parents[1] / "recipes" / "scalemae-tiny.toml"
IMAGES, SIDE = 512, 64


def run_rate(config: PretrainConfig, folder: Path, packed: Path) -> float:
    """Return tiles per second of a run, from its second step on."""
    folder = folder / f"run-{time.monotonic_ns()}"
    shutil.copytree(packed, folder)
    pretrain(replace(config, run=replace(config.run, folder=str(folder))), progress=False)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    took = float(lines[-1]["seconds"] - lines[0]["seconds"])
    return int(lines[-1]["step"] - lines[0]["step"]) * config.optimiser.batch_size / took


def bare_rate(config: PretrainConfig, device: torch.device) -> float:
    """Return tiles per second of the networks alone, from the second pass on."""
    views = 2 * config.optimiser.batch_size
    generator = torch.Generator().manual_seed(0)
    patches = (SIDE // config.network.patch_size) ** 2
    hidden = hidden_patches(SIDE, config.network, config.views)
    visible, masked = (part.to(device) for part in random_masks(views, patches, hidden, generator))
    image = torch.randn((views, 3, SIDE, SIDE), generator=generator).to(device)
    gsd_m = torch.full((views,), 10.0, device=device)
    objective = Objective(config).to(device)
    lower = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    began = 0.0
    for step in range(config.optimiser.steps):
        objective.zero_grad(set_to_none=True)
        with lower:
            losses = objective(image, gsd_m, SIDE, visible, masked)
        torch.autograd.backward(losses.total)
        if step == 0:
            losses.total.item()  # waits for the device
            began = time.perf_counter()
    losses.total.item()
    passes = config.optimiser.steps - 1
    return passes * config.optimiser.batch_size / (time.perf_counter() - began)


def _config(folder: Path, options: argparse.Namespace) -> PretrainConfig:
    rng = np.random.default_rng(0)
    images = folder / "images"
    images.mkdir()
    for number in range(IMAGES):
        pixels = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number:04}.png", compress_level=0)
    config = read_recipe(RECIPE)
    return replace(
        config,
        data=replace(config.data, sources=(SourceConfig(str(images), gsd_m=10.0),)),
        views=replace(config.views, sides=(SIDE,), shares=(1.0,)),
        optimiser=replace(
            config.optimiser, steps=options.steps, batch_size=options.batch, warmup_steps=2
        ),
        run=replace(
            config.run, device=options.device, log_steps=1, picture_steps=10**9,
            checkpoint_minutes=10**6, minutes=None,
        ),
    )  # fmt: skip


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--steps", type=positive, default=12, help="updates a round (default 12)")
    parser.add_argument("--batch", type=positive, default=64, help="tiles a batch (default 64)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    options = parser.parse_args()
    device = resolve_device(options.device)
    disturbance = Disturbance()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = _config(folder, options)
        packed = folder / "packed"
        once = replace(config, run=replace(config.run, folder=str(packed))).with_steps(1)
        pretrain(once, progress=False)
        for file in packed.iterdir():
            if not file.name.startswith("tiles."):
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        bare = "networks alone, forward and backward"
        samples = in_turns(
            {bare: partial(bare_rate, config, device),
             "pretraining": partial(run_rate, config, folder, packed)},
            options.repeats,
        )  # fmt: skip
    what = f"{options.batch} tiles of {SIDE} px, two views each, on {device.type}"
    print(f"Pretraining of scalemae-tiny, {what} ({machine()})\n")
    print(comparison(samples, baselines=[bare], unit="tiles/s", digits=1))
    print("\n" + disturbance.report())


if __name__ == "__main__":
    main()
