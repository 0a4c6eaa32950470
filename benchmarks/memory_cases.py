"""One process whose peak memory is measured from outside; run by bench_memory.py.

    python benchmarks/memory_cases.py places COUNT SIDE VARIANT
    python benchmarks/memory_cases.py hold|forward|grid HEIGHT WIDTH VARIANT

``places`` embeds COUNT arrays that are created on demand and keeps none of them. The others use one
array and its token grid: ``hold`` loads the network and holds array and output, ``forward`` also
runs one batch of 8 tiles, ``grid`` computes the grid.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from affine import Affine
from networks import BATCH, forward, in_batches, network_of, options
from numpy.typing import NDArray

from rs_embed import FetchSpec, Grid, OutputSpec, get_embedding, iter_embeddings
from rs_embed.embedding.result import token_grid

PATCH, TILE = 16, 224


def _arrays(count: int, height: int, width: int) -> Iterator[NDArray[np.uint16]]:
    random = np.random.default_rng(0)
    for _ in range(count):
        yield random.integers(300, 3000, (3, height, width), dtype=np.uint16)


def places(count: int, side: int, variant: str) -> None:
    """Embed many arrays."""
    for _ in iter_embeddings(
        "scalemae",
        input_chws=_arrays(count, side, side),
        fetch=FetchSpec(scale_m=10),
        device="cpu",
        progress=False,
        **options(variant),
    ):
        pass


def hold(height: int, width: int, variant: str, *, batches: int = 0) -> None:
    """Load the network, hold an array and an output; run batches of the size of a tile."""
    network = network_of(variant)
    pixels = next(_arrays(1, height, width))
    place = Grid(None, Affine.identity(), (-(-height // PATCH), -(-width // PATCH)))
    tokens = np.ones((network.config.embed_dim, *place.shape), np.float32)
    output = token_grid(tokens, place)
    tile = np.zeros((3, TILE, TILE), np.float32)
    forward(network, in_batches([tile] * BATCH) * batches, 10.0)
    del pixels, output


def grid(height: int, width: int, variant: str) -> None:
    """Compute the token grid of an array."""
    args: dict[str, Any] = options(variant)
    get_embedding(
        "scalemae",
        input_chw=next(_arrays(1, height, width)),
        fetch=FetchSpec(scale_m=10),
        input_prep="tile",
        output=OutputSpec.grid(),
        device="cpu",
        progress=False,
        **args,
    )


if __name__ == "__main__":
    case, first, second, network_name = sys.argv[1:]
    sizes = int(first), int(second)
    if case == "places":
        places(*sizes, network_name)
    elif case == "grid":
        grid(*sizes, network_name)
    else:
        hold(*sizes, network_name, batches=int(case == "forward"))
