"""One process from its start to its first embedding, or to the minimum work (the floor).

    python benchmarks/first_embedding.py embed|floor WEIGHTS_FILE

Run by bench_startup.py. Prints one JSON object: ``entered`` and ``ready``, the readings of
``time.monotonic()`` before the first step and when the result was ready; ``phases``, seconds by
name; ``forward_s``, seconds of a warm forward of the bare network (floor only).
"""

from __future__ import annotations

import builtins
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ENTERED = time.monotonic()
_phases: dict[str, float] = {}


@contextmanager
def _phase(name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    _phases[name] = time.monotonic() - start


def _time_method(owner: Any, name: str, phase: str) -> None:
    """Record every call of an attribute as a phase."""
    plain: Callable[..., Any] = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        with _phase(phase):
            return plain(*args, **kwargs)

    setattr(owner, name, timed)


def _time_from_torch_on() -> None:
    """Time the library's ``import torch`` when it happens, and the steps that need it."""
    plain = builtins.__import__

    def importer(name: str, *args: Any, **kwargs: Any) -> Any:
        if name != "torch":
            return plain(name, *args, **kwargs)
        builtins.__import__ = plain
        with _phase("import torch"):
            module = plain(name, *args, **kwargs)
        from rs_embed.models.scalemae import checkpoint, network

        _time_method(checkpoint, "load_network", "load")
        _time_method(network.ScaleMae, "forward", "forward")
        return module

    builtins.__import__ = importer


def embed(weights: Path) -> dict[str, Any]:
    """Compute one embedding as a user does."""
    with _phase("import numpy, make pixels"):
        import numpy as np

        pixels = np.random.default_rng(0).integers(300, 3000, (3, 410, 410), dtype=np.uint16)
    with _phase("import rs_embed"):
        from rs_embed import FetchSpec, get_embedding
    from rs_embed.models.weights import FileDigest

    _time_method(FileDigest, "hexdigest", "wait for SHA-256")
    _time_from_torch_on()
    get_embedding("scalemae", input_chw=pixels, fetch=FetchSpec(scale_m=10), weights=str(weights))
    return {"ready": time.monotonic()}


def floor(weights: Path) -> dict[str, Any]:
    """Import PyTorch and read the weights file; then time a forward with everything warm."""
    with _phase("import torch"):
        import torch
    from checkpoints import new_buffer, read_once

    with _phase("read the file"):
        read_once(weights, new_buffer())
    ready = time.monotonic()

    from rs_embed.models.scalemae.checkpoint import load_network
    from rs_embed.models.scalemae.config import NetworkConfig

    network = load_network(weights, NetworkConfig())
    image, gsd = torch.randn(1, 3, 224, 224), torch.tensor([10.0])
    with torch.inference_mode():
        network(image, gsd)
        start = time.monotonic()
        network(image, gsd)
    return {"ready": ready, "forward_s": time.monotonic() - start}


if __name__ == "__main__":
    timings = {"embed": embed, "floor": floor}[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps({"entered": ENTERED, "phases": _phases, **timings}))
