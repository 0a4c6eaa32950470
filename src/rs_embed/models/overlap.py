"""Forward passes on a CUDA card whose copies overlap the computing of another thread's pass."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor

# Passes under way at once: one that is computed, and one that is copied.
SLOTS = 2
# All passes of a card are computed in its one default stream: memory holds one of them.
_QUEUEING = threading.Lock()


def on_device(
    forward: Callable[[tuple[Tensor, ...]], Sequence[Tensor | None]],
    given: tuple[Tensor, ...],
    device: torch.device,
) -> list[Any]:
    """Return what ``forward`` gives for tensors in main memory, computed on ``device``.

    Of a CUDA device, the results are in main memory, and threads that call this at the same time
    share it: while one pass is computed, what comes next is copied to the card, and what came
    before back.
    """
    if device.type != "cuda":
        return list(forward(tuple(part.to(device) for part in given)))
    slots = _slots(device)
    copies = slots.get()
    try:
        with torch.cuda.stream(copies):
            # Only from pinned memory can a card copy by itself.
            inputs = tuple(part.pin_memory().to(device, non_blocking=True) for part in given)
        with _QUEUEING:
            computing = torch.cuda.current_stream(device)
            computing.wait_stream(copies)
            try:
                outputs = list(forward(inputs))
            except torch.OutOfMemoryError as exc:
                # What it has computed must not be in memory when another thread begins.
                traceback.clear_frames(exc.__traceback__)
                raise
            copies.wait_stream(computing)
        with torch.cuda.stream(copies):
            pinned = [None if part is None else _copied_back(part) for part in outputs]
        # Inputs and outputs live until here, and so longer than the card needs them.
        copies.synchronize()
        return [None if part is None else part.clone() for part in pinned]
    finally:
        slots.put(copies)


def _copied_back(part: Tensor) -> Tensor:
    """Return pinned memory into which the current stream copies."""
    memory = torch.empty(part.shape, dtype=part.dtype, pin_memory=True)
    return memory.copy_(part, non_blocking=True)


@lru_cache
def _slots(device: torch.device) -> SimpleQueue[torch.cuda.Stream]:
    """Return the streams of a card in which passes are copied."""
    streams: SimpleQueue[torch.cuda.Stream] = SimpleQueue()
    for _ in range(SLOTS):
        streams.put(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
    return streams
