"""One process from its start to its first embedding, or to the least that it must do.

    python benchmarks/first_embedding.py embed|floor WEIGHTS_FILE

Run by bench_startup.py. Prints one JSON object: ``ready``, the reading of ``time.monotonic()``
when the result was there, and ``phases``, seconds by name.
"""

from __future__ import annotations

import builtins
import json
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

ENTERED = time.monotonic()
_phases: dict[str, float] = {}


def _timed(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = time.monotonic()
        result = function(*args, **kwargs)
        _phases[phase] = _phases.get(phase, 0.0) + time.monotonic() - start
        return result

    return wrapper


def _time_method(owner: Any, name: str, phase: str) -> None:
    setattr(owner, name, _timed(phase, getattr(owner, name)))


def _time_import_of_torch() -> None:
    """Time the library's own ``import torch``, where it happens, and what needs it after that."""
    plain = builtins.__import__

    def importer(name: str, *args: Any, **kwargs: Any) -> Any:
        if name != "torch":
            return plain(name, *args, **kwargs)
        builtins.__import__ = plain
        module = _timed("import torch", plain)(name, *args, **kwargs)
        from rs_embed.models.scalemae import checkpoint, network

        _time_method(checkpoint, "load_network", "load")
        _time_method(network.ScaleMae, "forward", "forward")
        return module

    builtins.__import__ = importer


def embed(weights: Path) -> float:
    """Make one embedding as a user does; return when it was there."""
    import numpy as np

    pixels = np.random.default_rng(0).integers(300, 3000, (3, 410, 410), dtype=np.uint16)
    _phases["interpreter, numpy, pixels"] = time.monotonic() - ENTERED
    start = time.monotonic()
    from rs_embed import FetchSpec, get_embedding

    _phases["import rs_embed"] = time.monotonic() - start
    from rs_embed.models.weights import FileDigest

    _time_import_of_torch()
    _time_method(FileDigest, "hexdigest", "wait for SHA-256")
    get_embedding(
        "scalemae", input_chw=pixels, fetch=FetchSpec(scale_m=10), weights=str(weights)
    )
    return time.monotonic()


def floor(weights: Path) -> float:
    """Import PyTorch, read the weights file; return when that was done, then time a forward.

    The forward is timed the second time, with the weights in memory and the threads started.
    """
    from checkpoints import new_buffer, read_once

    start = time.monotonic()
    import torch

    _phases["import torch"] = time.monotonic() - start
    _timed("read", read_once)(weights, new_buffer())
    ready = time.monotonic()

    from rs_embed.models.scalemae.checkpoint import load_network
    from rs_embed.models.scalemae.config import NetworkConfig

    network = load_network(weights, NetworkConfig())
    image, gsd = torch.randn(1, 3, 224, 224), torch.tensor([10.0])
    with torch.inference_mode():
        network(image, gsd)
        _timed("forward", network)(image, gsd)
    return ready


if __name__ == "__main__":
    step = {"embed": embed, "floor": floor}[sys.argv[1]]
    reached = step(Path(sys.argv[2]))
    print(json.dumps({"ready": reached, "entered": ENTERED, "phases": _phases}))
