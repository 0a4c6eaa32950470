"""From a weights file to a network: every published format, nothing unpickled, one read.

Formats: safetensors; PyTorch zip and legacy files, opened with ``weights_only``. Layouts: keys as
they are (torchgeo), under ``model.`` (the hub's wrapper), or in a dict under ``"model"`` with the
decoder and the optimiser beside it (the official release).
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

# Parts of the published checkpoints that the encoder does not have: fixed positions (computed
# here from the GSD), the pretraining decoder, and heads of fine-tuned models.
_NOT_ENCODER = (
    "pos_embed", "decoder_", "mask_token", "pos_emb_projection.", "fpn.", "fcn.", "fcn_high.",
    "fcn_low.", "head.", "fc_norm.",
)  # fmt: skip
# First bytes of torch.save before the zip format: protocol 2, then its magic number.
_TORCH_LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")
_LISTED = 12


def load_network(path: Path, config: NetworkConfig) -> ScaleMae:
    """Return the encoder of ``config`` with the weights of a file, in float32, for inference.

    The module is built on the meta device and the file's memory map is assigned to it, so that
    nothing is initialised and nothing is read twice.

    Parameters
    ----------
    path : pathlib.Path
        The weights file.
    config : NetworkConfig
        Sizes of the network.

    Raises
    ------
    CheckpointError
        If the file is truncated, foreign, or needs unpickling, or if its keys or shapes are not
        those of the network; they are listed.
    """
    state = _encoder_state(_read(path), path)
    with torch.device("meta"):
        network = ScaleMae(config)
    _check_keys(state, network.state_dict(), path)
    network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    return network.eval().requires_grad_(False)


def _read(path: Path) -> Mapping[str, Any]:
    """Return what a weights file holds, memory-mapped where the format allows it."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as exc:
        raise CheckpointError(f"cannot read {path}: {exc}") from exc
    if start.startswith((b"version https://git-lfs", b"<", b"{")) or not start:
        what = {b"v": "a Git LFS pointer", b"<": "a web page", b"{": "text"}.get(start[:1], "empty")
        raise CheckpointError(
            f"{path} is {what}, expected weights: the download did not bring the file itself; "
            "fetch it again (git lfs pull, or the repository's download button)"
        )
    if start[8:9] == b"{":
        return _read_safetensors(path)
    if not start.startswith((b"PK", _TORCH_LEGACY)):
        raise CheckpointError(
            f"{path} is neither safetensors nor a file of torch.save, so it is not opened; plain "
            "pickles can run any code: save the tensors with safetensors where you trust it"
        )
    return _read_torch(path, zipped=start.startswith(b"PK"))


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({exc}); download it again"
        ) from exc


def _read_torch(path: Path, *, zipped: bool) -> Mapping[str, Any]:
    # The official release keeps its command line, a plain argparse.Namespace, beside the weights.
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as exc:
        reason = next((line for line in str(exc).splitlines() if "GLOBAL" in line), "").strip()
        raise CheckpointError(
            f"{path} is not a file of plain tensors ({reason or 'foreign or damaged content'}); it "
            "is not unpickled, since that can run any code: convert it to safetensors where you "
            "trust it"
        ) from exc
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as exc:
        raise CheckpointError(
            f"{path} is truncated or not a PyTorch file ({str(exc).splitlines()[0]}); download it "
            "again"
        ) from exc
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, expected a dict of tensors (a state dict)"
        )
    return content


def _encoder_state(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the encoder's tensors under the network's own names."""
    inner = content.get("model")
    state = inner if isinstance(inner, Mapping) else content
    if not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"{path} holds keys that are no names, expected a state dict")
    if "model.patch_embed.proj.weight" in state:
        state = {key.removeprefix("model."): value for key, value in state.items()}
    if "norm.weight" not in state and "fc_norm.weight" in state:
        # Models fine-tuned with global pooling carry their only final norm under this name.
        state = {
            f"norm.{key.removeprefix('fc_norm.')}" if key.startswith("fc_norm.") else key: value
            for key, value in state.items()
        }
    kept = {key: value for key, value in state.items() if not key.startswith(_NOT_ENCODER)}
    odd = [key for key, value in kept.items() if not isinstance(value, Tensor)]
    if odd or not kept:
        raise CheckpointError(
            f"{path} holds no state dict of ScaleMAE: {_listed(odd) or 'it is empty'}, expected "
            "tensors under names such as 'patch_embed.proj.weight'"
        )
    return kept


def _check_keys(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    misshapen = [
        f"{key} {tuple(state[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    odd = [
        f"{key} ({value.dtype}, {value.layout})"
        for key, value in state.items()
        if not value.is_floating_point() or value.layout != torch.strided
    ]
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": misshapen,
        "not dense floating-point": odd,
    }
    found = [f"{len(keys)} {what}: {_listed(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise CheckpointError(
            f"{path} does not fit the network: {'; '.join(found)}. Sizes come from config.json "
            "beside the weights (embed_dim, depth, num_heads, patch_size, mlp_ratio, "
            "cls_token), ViT-L/16 where it is silent, or from variant="
        )


def _listed(keys: Iterable[str]) -> str:
    names = list(keys)
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
