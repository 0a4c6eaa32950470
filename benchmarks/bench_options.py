"""Effect of options on an embedding: cosine similarity to the default (sample scene, ViT-L/16).

    python benchmarks/bench_options.py

The weights are random, from a fixed seed: the figures show how far an option changes the numbers,
not whether it improves them. bfloat16 uses autocast on the CPU here, in the same parts of the
network as on CUDA. The option itself requires CUDA, because it is slower on a CPU.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from measure import machine

from rs_embed import CoverageWarning, OutputSpec, PointBuffer, get_embedding
from rs_embed.models.scalemae.config import NetworkConfig
from rs_embed.models.scalemae.network import ScaleMae
from rs_embed.models.scalemae.preparation import normalised
from rs_embed.providers.sample import CENTRE

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VARIATIONS: dict[str, dict[str, Any]] = {
    "display='visual'": {"display": "visual"},
    "gsd='relative' (1.0 instead of 16.0)": {"gsd": "relative"},
    "tokens='pre_norm'": {"tokens": "pre_norm"},
    "image_size=256": {"image_size": 256},
}


def embed(**options: Any) -> Any:
    """Return the embedding of 4.1 km around the middle of the sample scene."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoverageWarning)
        return get_embedding(
            "scalemae",
            spatial=PointBuffer(*CENTRE, buffer_m=2048),
            backend="sample",
            weights="random-init",
            **options,
        )


def cosine(a: Any, b: Any) -> Any:
    """Return the cosine along the last axis."""
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def bfloat16_cosines() -> Any:
    """Return the cosine of each token in bfloat16 to itself in float32."""
    seen = embed(output=OutputSpec.grid())
    network = ScaleMae(NetworkConfig())
    network.initialise(0)
    image = torch.from_numpy(normalised(seen.image, MEAN, STD))[None]
    gsd = torch.tensor([seen.meta["input_res"]])
    with torch.inference_mode():
        full = network(image, gsd).patches[0].flatten(0, 1).numpy()
        with torch.autocast("cpu", torch.bfloat16):
            low = network(image, gsd).patches[0].flatten(0, 1).float().numpy()
    return cosine(full, low)


def main() -> None:
    """Print the table."""
    print(machine())
    default = embed()
    print(f"{'option':<40} cosine of the pooled vector to the default")
    for name, options in VARIATIONS.items():
        print(f"{name:<40} {float(cosine(default.data, embed(**options).data)):.4f}")
    tokens = bfloat16_cosines()
    print(f"{'bfloat16, patch tokens':<40} mean {tokens.mean():.5f}, least {tokens.min():.5f}")


if __name__ == "__main__":
    main()
