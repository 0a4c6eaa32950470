"""Names of devices, and which of them this machine has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rs_embed.errors import ModelError, SpecError, UnknownNameError
from rs_embed.models.base import DEVICES

if TYPE_CHECKING:
    import torch

_CARD = re.compile(r"cuda:(0|[1-9][0-9]*)")


def card_number(name: object) -> int | None:
    """Return N of ``"cuda:N"``; None for other names."""
    found = _CARD.fullmatch(str(name))
    return None if found is None else int(found[1])


def cards_of(device: Any) -> tuple[str, ...]:
    """Return the names of several cards: of ``"cuda:0,1"``, or a list; empty for one device.

    Raises
    ------
    SpecError
        If several devices are stated that are not different CUDA cards.
    """
    parts = [part.strip() for part in str(_stated(device)).split(",")]
    if len(parts) == 1:
        return ()
    names = tuple(parts[:1] + [f"cuda:{part}" if part.isdigit() else part for part in parts[1:]])
    if None in map(card_number, names) or len(set(names)) < len(names):
        raise SpecError(
            f"got device={device!r}, expected one device, or different CUDA cards: 'cuda:0,1'"
        )
    return names


def one_device(device: Any) -> Any:
    """Return the name of the only device, also of a ``torch.device``; `SpecError` for several."""
    if cards_of(device):
        raise SpecError(
            f"got device={device!r} where one process runs the model, expected one device; "
            "export_batch and embed_area (rs-embed batch and map) have a process for each card"
        )
    return _stated(device)


def _stated(device: Any) -> Any:
    if isinstance(device, list | tuple):
        return ",".join(map(str, device))
    return device if getattr(device, "type", None) is None else str(device)


def check_device(name: Any) -> None:
    """Raise `UnknownNameError` unless it is the name of a kind of device, or of a card."""
    if name not in DEVICES and card_number(name) is None:
        raise UnknownNameError.among("device", name, (*DEVICES, "cuda:N"))


def resolve_device(name: str) -> torch.device:
    """Return the device with the given name; ``"auto"`` is CUDA, then MPS, then the CPU.

    Raises
    ------
    ModelError
        If the device is not available; it is never replaced by another one.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind, present in available.items() if present), "cpu"))
    if not available.get(name.partition(":")[0], True):
        version = f"PyTorch {torch.__version__}"
        raise ModelError(
            f"got device={name!r}, which is not available ({version}); use device='auto' or "
            "'cpu', or install a PyTorch build for it (see https://pytorch.org/get-started)"
        )
    check_card(name, torch.cuda.device_count())
    return torch.device(name)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of PyTorch or NumPy says that memory has run out."""
    import torch

    kinds, words = (torch.cuda.OutOfMemoryError, MemoryError), ("out of memory", "ALLOC_FAILED")
    return isinstance(error, kinds) or any(word in str(error) for word in words)


def check_card(name: str, count: int) -> None:
    """Raise `ModelError` if a card is not among the ``count`` CUDA devices of this machine."""
    number = card_number(name)
    if number is not None and number >= count:
        cards = ", ".join(f"cuda:{card}" for card in range(count))
        raise ModelError(
            f"got device={name!r}, expected one of the {count} CUDA devices that PyTorch finds "
            f"({cards}); CUDA_VISIBLE_DEVICES may hide others"
        )
