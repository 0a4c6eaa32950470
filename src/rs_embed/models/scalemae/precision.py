"""Matrix products in bfloat16: where they are possible, where they pay, and how they run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own convention
from torch import Tensor, nn

from rs_embed.errors import SpecError
from rs_embed.models.records import Records

if TYPE_CHECKING:
    from rs_embed.models.scalemae.config import NetworkConfig
    from rs_embed.models.scalemae.network import ScaleMae

# Names of torch.cpu.get_capabilities: without one of these units the products are emulated.
_UNITS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
# What "auto" expects bfloat16 to gain in products, before everything else is added.
_PAYS = 1.2
_ROWS = 512
_ROUNDS = 5


def check_precision(precision: str, kind: str) -> None:
    """Raise `SpecError` if matrix products cannot run in a precision.

    Parameters
    ----------
    precision : {"float32", "bfloat16", "auto"}
        What is requested.
    kind : str
        Type of the device, e.g. ``"cpu"``.
    """
    if precision != "bfloat16" or kind == "cuda":
        return
    if kind != "cpu":
        raise SpecError(f"got precision='bfloat16' on {kind}, expected CUDA or a CPU")
    found = _capabilities()
    if not any(found.get(unit) for unit in _UNITS):
        raise SpecError(
            f"got precision='bfloat16' on a processor ({found.get('cpu_name') or 'unknown'}) "
            f"without units for it ({', '.join(_UNITS)}), where it is slower than float32; use "
            "precision='float32', or 'auto', which uses bfloat16 only where it is faster"
        )


def settled_precision(kind: str, config: NetworkConfig, records: Records) -> tuple[str, str]:
    """Return what ``precision="auto"`` means here, and why, in words.

    On a CPU with units for bfloat16, matrix products of the network are measured once and the
    result is kept for later processes.
    """
    found = _capabilities() if kind == "cpu" else {}
    if not any(found.get(unit) for unit in _UNITS):
        return "float32", f"auto: no units for bfloat16 ({kind})"
    threads = torch.get_num_threads()
    sizes = f"{config.embed_dim}, {threads} threads, torch {torch.__version__}"
    key = f"{found.get('cpu_name')}, {sizes}"
    ratio = records.get(key)
    if not isinstance(ratio, float):
        ratio = round(_measured(config), 2)
        records.put(key, ratio)
    chosen = "bfloat16" if ratio >= _PAYS else "float32"
    return chosen, f"auto: products in bfloat16 were measured at {ratio:g} x float32"


def lower(network: ScaleMae) -> ScaleMae:
    """Put the products of a network's linear layers into bfloat16, on the CPU; return the network.

    The rest stays in float32: patches, positions, norms, attention, biases, and the sums of the
    residuals.
    """
    _lower(network)
    return network


class _Bfloat16Linear(nn.Module):
    """A linear layer whose weights were rounded to bfloat16 once; sums are in float32."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.to(torch.bfloat16), requires_grad=False)
        self.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``... D_out`` for ``... D_in``."""
        product = F.linear(x.to(torch.bfloat16), self.weight)
        return product.float().add_(self.bias)


def _lower(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, _Bfloat16Linear(child).eval())
        else:
            _lower(child)


def _capabilities() -> Mapping[str, Any]:
    """Return what the processor can do.

    Raises
    ------
    SpecError
        If PyTorch is too old to say it.
    """
    if not hasattr(torch.cpu, "get_capabilities"):
        raise SpecError(
            f"got PyTorch {torch.__version__}, which does not say what the processor can do "
            "(torch.cpu.get_capabilities); update it, or use precision='float32'"
        )
    found: Mapping[str, Any] = torch.cpu.get_capabilities()
    return found


def _measured(config: NetworkConfig) -> float:
    """Return how many times faster the products of a block are in bfloat16."""
    linear = nn.Linear(config.embed_dim, 4 * config.embed_dim).requires_grad_(False)
    rows = torch.ones(_ROWS, config.embed_dim)
    both = (linear, _Bfloat16Linear(linear))
    seconds: list[list[float]] = [[], []]
    for _ in range(_ROUNDS + 1):  # the first warms up
        for layer, times in zip(both, seconds, strict=True):
            start = time.perf_counter()
            layer(rows)
            times.append(time.perf_counter() - start)
    return min(seconds[0][1:]) / min(seconds[1][1:])
