"""Overhead of a batch call over the forward of its images (uint16 arrays of 410 x 410 px).

    python benchmarks/bench_batch.py [--repeats 5] [--images 32] [--variant large]

The baseline is the bare forward of the same network on the same inputs, prepared in advance, in
batches of 8. ``iter_embeddings`` checks and prepares the arrays, runs the same batches, pools the
tokens and builds the meta. The script first checks that both give the same vectors.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from measure import Disturbance, arguments, comparison, goal, in_turns, machine, ratios, seconds
from networks import (
    BATCH,
    add_count,
    add_variant,
    forward,
    in_batches,
    network_of,
    options,
)
from numpy.typing import NDArray

from rs_embed import CoverageWarning, FetchSpec, get_embedding, inspect_input, iter_embeddings
from rs_embed.models.scalemae.network import ScaleMae

SIDE = 410
GOAL_OVERHEAD = 0.05
BARE = "bare forward"
BATCHED = "iter_embeddings"
SINGLE = "get_embedding, one by one"
FETCH = FetchSpec(scale_m=10)


def _arrays(count: int) -> list[NDArray[np.uint16]]:
    random = np.random.default_rng(0)
    return [random.integers(300, 3000, (3, SIDE, SIDE), dtype=np.uint16) for _ in range(count)]


def _batched(arrays: Sequence[Any], model: dict[str, Any]) -> list[Any]:
    return list(
        iter_embeddings(
            "scalemae", input_chws=arrays, fetch=FETCH, device="cpu", progress=False, **model
        )
    )


def _one_by_one(arrays: Sequence[Any], model: dict[str, Any]) -> list[Any]:
    return [
        get_embedding(
            "scalemae", input_chw=array, fetch=FETCH, device="cpu", progress=False, **model
        )
        for array in arrays
    ]


def _check(
    network: ScaleMae, batches: Sequence[torch.Tensor], gsd: float, embeddings: Sequence[Any]
) -> None:
    """Raise an error unless the baseline uses the same inputs as the library."""
    with torch.inference_mode():
        _, patches = network(batches[0], torch.full((len(batches[0]),), gsd))  # B h w D
    vectors = patches.mean(dim=(1, 2)).numpy()
    if np.abs(vectors - np.stack([e.data for e in embeddings])).max() > 1e-4:
        raise SystemExit("the baseline does not give the same vectors")


def main() -> None:
    parser = arguments(__doc__, repeats=5)
    add_count(parser, "--images", 32, "arrays to embed")
    add_variant(parser, "large")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CoverageWarning)
    arrays, model = _arrays(args.images), options(args.variant)
    looks = [inspect_input("scalemae", input_chw=a, fetch=FETCH, **model) for a in arrays]
    batches, gsd = in_batches([look.tensor() for look in looks]), looks[0].meta["input_res"]
    network = network_of(args.variant)
    _check(network, batches, gsd, _batched(arrays[:BATCH], model))
    actions: dict[str, Callable[[], object]] = {
        BARE: partial(forward, network, batches, gsd),
        BATCHED: partial(_batched, arrays, model),
        SINGLE: partial(_one_by_one, arrays, model),
    }
    disturbance = Disturbance()
    samples = in_turns({name: partial(seconds, act) for name, act in actions.items()}, args.repeats)
    each = {name: [s / args.images * 1000 for s in of_case] for name, of_case in samples.items()}
    print(
        f"{args.images} arrays of {SIDE} x {SIDE} px, {args.variant} network, batches of {BATCH} "
        f"({machine()})\n"
    )
    print(comparison(each, baselines=[BARE], unit="ms per image", digits=0))
    overhead = statistics.median(ratios(each[BATCHED], each[BARE])) - 1
    text = f"{BATCHED} adds less than {GOAL_OVERHEAD:.0%} to the forward, {overhead:.1%}"
    print("\n" + goal(text, overhead < GOAL_OVERHEAD))
    print(disturbance.report())


if __name__ == "__main__":
    main()
