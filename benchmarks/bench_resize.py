"""Whether PyTorch resizes as Pillow does, so that a card could do it: grey levels and vectors.

    python benchmarks/bench_resize.py

The library resizes with Pillow. PyTorch's bicubic resize with antialiasing uses the same kernel: in
8 bits on a CPU, and in float32, rounded, on any device. The script compares both with Pillow on
noise and on the sample scene, by grey levels and by the mean vector of `scalemae-tiny`, and their
processor time for one image. Pillow rounds and clips between columns and rows, and so does the
float32 way: in one step it is up to 25 grey levels off at overshoots.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from measure import machine, table
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from rs_embed import RsEmbedWarning, inspect_input
from rs_embed.embedding.encoding import GsdImage, ImageTokens, encode
from rs_embed.models.base import Encoder
from rs_embed.models.scalemae.model import MODEL
from rs_embed.models.scalemae.preparation import ScaleMaePreparation
from rs_embed.providers.sample import CENTRE
from rs_embed.settings import Settings

Picture = NDArray[np.uint8]
SIDE = 256
REPEATS = 20
PREPARATION = ScaleMaePreparation("visual")


def by_pillow(image: Picture) -> Picture:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def in_8_bits(image: Picture) -> Picture:
    given = torch.from_numpy(image).permute(2, 0, 1)[None]
    made = interpolate(given, (SIDE, SIDE), mode="bicubic", antialias=True)
    return np.ascontiguousarray(made[0].permute(1, 2, 0).numpy())


def in_float32(image: Picture) -> Picture:
    """Return what a CUDA card would compute, which has no 8-bit resize.

    As Pillow does: columns first, then rows, rounded and clipped after each.
    """
    made = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    for size in ((image.shape[0], SIDE), (SIDE, SIDE)):
        made = interpolate(made, size, mode="bicubic", antialias=True)
        made = made.add(0.5).floor().clamp(0, 255)
    return np.ascontiguousarray(made[0].permute(1, 2, 0).to(torch.uint8).numpy())


WAYS: dict[str, Callable[[Picture], Picture]] = {
    "Pillow": by_pillow,
    "PyTorch, 8 bits": in_8_bits,
    "PyTorch, float32, rounded": in_float32,
}


def pictures() -> dict[str, Picture]:
    """Return images of several sizes: noise, and the sample scene as the model sees it."""
    rng = np.random.default_rng(0)
    found = {
        f"noise, {side} px": rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        for side in (100, 410, 1000)
    }
    for buffer_m in (640, 2048):
        seen = inspect_input(
            "scalemae", spatial=CENTRE, buffer_m=buffer_m, backend="sample", input_prep="tile",
            variant="tiny",
        )  # fmt: skip
        found[f"sample scene, {seen.image.shape[0]} px"] = seen.image
    return found


def vector(encoder: Encoder, image: Picture) -> NDArray[np.float32]:
    """Return the mean of the patch tokens of a resized image, at 10 m."""
    (tokens,) = encode(encoder, [GsdImage(PREPARATION.tensor(image), 10.0)], batch_size=1)
    if not isinstance(tokens, ImageTokens):
        raise tokens
    mean: NDArray[np.float32] = tokens.patch_tokens("a mean").mean((0, 1))
    return mean


def milliseconds(way: Callable[[Picture], Picture], image: Picture) -> float:
    way(image)
    began = time.process_time()
    for _ in range(REPEATS):
        way(image)
    return (time.process_time() - began) / REPEATS * 1000


def main() -> None:
    encoder = MODEL.plan(
        {"variant": "tiny"}, device="cpu", settings=Settings.from_environ({})
    ).load()
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RsEmbedWarning)
        for name, image in pictures().items():
            expected = by_pillow(image)
            expected_vector = vector(encoder, expected)
            for way, resized in WAYS.items():
                made = resized(image)
                off = np.abs(made.astype(int) - expected)
                if resized is in_float32 and off.max() > 1:
                    raise SystemExit(f"{way}: {off.max()} grey levels off, expected at most 1")
                ours = vector(encoder, made)
                angle = ours @ expected_vector / np.linalg.norm(ours)
                change = np.linalg.norm(ours - expected_vector) / np.linalg.norm(expected_vector)
                rows.append(
                    [
                        name, way, f"{off.max()}", f"{(off > 0).mean():.4%}",
                        f"{1 - angle / np.linalg.norm(expected_vector):.1e}", f"{change:.1e}",
                        f"{milliseconds(resized, image):.2f}",
                    ]
                )  # fmt: skip
    header = ["image", "resized by", "most levels off", "values off", "1 - cosine", "change", "ms"]
    print(f"Resized to {SIDE} x {SIDE} px ({machine()})\n\n{table(header, rows)}")


if __name__ == "__main__":
    main()
