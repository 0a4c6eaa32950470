"""Load a network from a weights file in any published format, without unpickling.

Formats: safetensors; PyTorch zip and legacy files, opened with ``weights_only``. Layouts: plain
keys (torchgeo), keys with the prefix ``model.`` (the hub's wrapper), or a dict with the keys under
``"model"`` next to the decoder and the optimiser (the official release).
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rs_embed.errors import CheckpointError
from rs_embed.models.scalemae.config import NetworkConfig
from rs_embed.models.scalemae.network import ScaleMae

# Parts of the published checkpoints that the encoder does not use: fixed positions (computed from
# the GSD instead), the pretraining decoder, and heads of fine-tuned models.
_NOT_ENCODER = (
    "pos_embed", "decoder_", "mask_token", "pos_emb_projection.", "fpn.", "fcn.", "fcn_high.",
    "fcn_low.", "head.", "fc_norm.",
)  # fmt: skip
# First bytes of files that torch.save wrote before the zip format: protocol 2, magic number.
_TORCH_LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")
_LISTED = 12


def load_network(path: Path, config: NetworkConfig) -> ScaleMae:
    """Return the encoder with the weights of a file, in float32, for inference.

    The module is built on the meta device and the memory map of the file is assigned to it, so
    that nothing is initialised and nothing is read twice.

    Parameters
    ----------
    path : pathlib.Path
        The weights file.
    config : NetworkConfig
        Sizes of the network.

    Raises
    ------
    CheckpointError
        If the file is truncated, in another format, or needs unpickling, or if its keys or shapes
        do not match the network; the message lists them.
    """
    state = _encoder_state(_read(path), path)
    with torch.device("meta"):
        network = ScaleMae(config)
    _check_keys(state, network.state_dict(), path)
    network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    return network.eval().requires_grad_(False)


def _read(path: Path) -> Mapping[str, Any]:
    """Return the content of a weights file, memory-mapped if the format allows it."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as exc:
        raise CheckpointError(f"cannot read {path}: {exc}") from exc
    if start.startswith((b"version https://git-lfs", b"<", b"{")) or not start:
        kind = {b"v": "a Git LFS pointer", b"<": "a web page", b"{": "text"}.get(start[:1], "empty")
        raise CheckpointError(
            f"{path} is {kind}, expected weights: the file itself was not downloaded; download it "
            "again (git lfs pull, or the download button of the repository)"
        )
    if start[8:9] == b"{":
        return _read_safetensors(path)
    if not start.startswith((b"PK", _TORCH_LEGACY)):
        raise CheckpointError(
            f"{path} is neither safetensors nor a file of torch.save, so it was not opened: plain "
            "pickles can run any code; if you trust it, save its tensors as safetensors"
        )
    if path.suffix == ".safetensors":  # torch would open it by its name
        raise CheckpointError(
            f"{path} is a file of torch.save under the name of a safetensors file; rename it to "
            f"{path.with_suffix('.pt').name}"
        )
    return _read_torch(path, zipped=start.startswith(b"PK"))


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({exc}); download it again"
        ) from exc


def _read_torch(path: Path, *, zipped: bool) -> Mapping[str, Any]:
    # The official release stores its command-line arguments, an argparse.Namespace, in the file.
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as exc:
        reason = next((line for line in str(exc).splitlines() if "GLOBAL" in line), "").strip()
        raise CheckpointError(
            f"{path} is not a file of plain tensors ({reason or 'unknown or damaged content'}); it "
            "was not unpickled, because that can run any code; if you trust it, convert it to "
            "safetensors"
        ) from exc
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as exc:
        raise CheckpointError(
            f"{path} is truncated or not a PyTorch file ({str(exc).splitlines()[0]}); download it "
            "again"
        ) from exc
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} contains a {type(content).__name__}, expected a dict of tensors (a state dict)"
        )
    return content


def _encoder_state(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the tensors of the encoder under the names of the network."""
    inner = content.get("model")
    state = inner if isinstance(inner, Mapping) else content
    if not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"{path} contains keys that are not strings, expected a state dict")
    if "model.patch_embed.proj.weight" in state:
        state = {key.removeprefix("model."): value for key, value in state.items()}
    if "norm.weight" not in state and "fc_norm.weight" in state:
        # In models fine-tuned with global pooling, the only final norm has this name.
        state = {
            f"norm.{key.removeprefix('fc_norm.')}" if key.startswith("fc_norm.") else key: value
            for key, value in state.items()
        }
    kept = {key: value for key, value in state.items() if not key.startswith(_NOT_ENCODER)}
    others = [key for key, value in kept.items() if not isinstance(value, Tensor)]
    if others or not kept:
        found = f"not tensors: {_listed(others)}" if others else "it is empty"
        raise CheckpointError(
            f"{path} does not contain a state dict of ScaleMAE ({found}), expected tensors with "
            "names such as 'patch_embed.proj.weight'"
        )
    return kept


def _check_keys(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    misshapen = [
        f"{key} {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    unusable = [
        f"{key} ({value.dtype}, {value.layout})"
        for key, value in state.items()
        if not value.is_floating_point() or value.layout != torch.strided
    ]
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "with a different shape": misshapen,
        "not dense floating-point": unusable,
    }
    found = [f"{len(keys)} {kind}: {_listed(keys)}" for kind, keys in problems.items() if keys]
    if found:
        raise CheckpointError(
            f"{path} does not match the network: {'; '.join(found)}. Sizes are read from the "
            "config.json next to the weights (embed_dim, depth, num_heads, patch_size, mlp_ratio, "
            "cls_token; defaults are those of ViT-L/16) or set by variant="
        )


def _listed(keys: Iterable[str]) -> str:
    names = list(keys)
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
