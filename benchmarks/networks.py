"""The bare network that the library runs, with random weights."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from measure import positive
from numpy.typing import NDArray

from rs_embed.models.scalemae.config import VARIANTS
from rs_embed.models.scalemae.encoder import NativeEncoder
from rs_embed.models.scalemae.model import MODEL
from rs_embed.models.scalemae.network import ScaleMae
from rs_embed.settings import Settings

# As the library uses on a CPU.
BATCH = 8


def add_variant(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--variant`` to a script's arguments."""
    parser.add_argument(
        "--variant",
        choices=tuple(VARIANTS),
        default=default,
        help=f"size of the network (default {default}); smaller ones are for trying the script",
    )


def add_count(parser: argparse.ArgumentParser, name: str, default: int, meaning: str) -> None:
    """Add a whole number of at least 1 to a script's arguments."""
    parser.add_argument(name, type=positive, default=default, help=f"{meaning} (default {default})")


def options(variant: str) -> dict[str, Any]:
    """Return the options with which the library uses that network."""
    return {"weights": "random-init", "variant": variant}


def network_of(variant: str) -> ScaleMae:
    """Return the network object that the library keeps for :func:`options` on the CPU."""
    plan = MODEL.plan(options(variant), device="cpu", settings=Settings.from_environ({}))
    return cast(NativeEncoder, plan.load()).network


def in_batches(tensors: Sequence[NDArray[np.float32]]) -> list[torch.Tensor]:
    """Return prepared inputs, ``(3, H, W)`` each, in batches ``(B, 3, H, W)``."""
    starts = range(0, len(tensors), BATCH)
    return [torch.from_numpy(np.stack(tensors[start : start + BATCH])) for start in starts]


def forward(network: ScaleMae, batches: Sequence[torch.Tensor], gsd: float) -> None:
    """Run batches through the network and discard the tokens."""
    with torch.inference_mode():
        for batch in batches:
            network(batch, torch.full((len(batch),), gsd))
