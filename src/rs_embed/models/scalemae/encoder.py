"""Run a ScaleMAE network on a batch: the native one, or the one inside the rshf wrapper."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rs_embed._optional import require
from rs_embed.errors import ModelError
from rs_embed.models.base import Tokens
from rs_embed.models.devices import is_out_of_memory, resolve_device
from rs_embed.models.overlap import on_device
from rs_embed.models.scalemae.network import NetworkTokens
from rs_embed.models.side_by_side import side_by_side

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.models.scalemae.network import NetworkTokens, ScaleMae


# Errors that the rshf wrapper, timm, transformers and the hub client raise.
_FOREIGN = (OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError)
_BATCH_SIZE_CUDA = 32
_BATCH_SIZE_ELSEWHERE = 8
# Of a pass that one core computes: fewer are slower, more leave cores without work.
_TOKENS_PER_PASS, _IMAGES_PER_PASS = 512, 8
_PASSES_PER_BATCH = 4


def default_batch_size(device: str, image_size: int, patch_size: int) -> int:
    """Return how many images at a time suit the device with the given name.

    On the CPU more than 8 if they are small. The number of cores has no influence.
    """
    if resolve_device(device).type == "cuda":
        return _BATCH_SIZE_CUDA
    side = image_size // patch_size
    return max(_BATCH_SIZE_ELSEWHERE, _PASSES_PER_BATCH * images_per_pass(side, side))


def images_per_pass(rows: int, columns: int) -> int:
    """Return how many images of ``rows x columns`` patches one core computes at once."""
    most = min(max(1, _TOKENS_PER_PASS // max(rows * columns, 1)), _IMAGES_PER_PASS)
    return 1 << (most.bit_length() - 1)  # a power of two, so that batches divide evenly


@dataclass
class NativeEncoder:
    """The native network with loaded weights.

    Parameters
    ----------
    network : ScaleMae
        The network, on its device.
    image_size : int
        Side of the square input, pixels.
    normed : bool
        Whether the final LayerNorm is applied to the tokens.
    autocast : bool
        Whether matrix products are cast to bfloat16 as they run, on CUDA; norms and positions stay
        in float32.
    trained_input_res : tuple of float or None
        See `Encoder`.
    describe : callable
        Returns the provenance; called late, because the file is hashed in another thread.
    """

    network: ScaleMae
    image_size: int
    normed: bool
    autocast: bool
    trained_input_res: tuple[float, float] | None
    describe: Callable[[], Mapping[str, Any]]

    @property
    def patch_size(self) -> int:
        """Side of a token's footprint, pixels."""
        return self.network.config.patch_size

    @property
    def provenance(self) -> Mapping[str, Any]:
        """JSON values for ``meta``."""
        return self.describe()

    def encode(self, pixels: NDArray[np.float32], input_res_m: Sequence[float]) -> Tokens:
        """Return the tokens of ``(B, 3, H, W)`` pixels; see `Encoder.encode`."""
        device = next(self.network.parameters()).device
        images = torch.from_numpy(np.ascontiguousarray(pixels))
        gsds = torch.tensor(list(input_res_m), dtype=torch.float32)
        if device.type == "cpu":
            # The same parts on every machine, so that its cores do not decide the last bit.
            size = images_per_pass(*(side // self.patch_size for side in pixels.shape[-2:]))
            parts = list(zip(torch.split(images, size), torch.split(gsds, size), strict=True))
            passes = side_by_side(self._forward, parts)
        else:
            passes = [NetworkTokens(*on_device(self._forward, (images, gsds), device))]
        cls = [part.cls for part in passes if part.cls is not None]
        return Tokens(
            cls=np.concatenate([_to_numpy(part) for part in cls]) if cls else None,
            patches=np.concatenate([_to_numpy(part.patches) for part in passes]),
            pooled=None,
            kind="patch_tokens" if self.normed else "patch_tokens_pre_norm",
        )

    def _forward(self, part: tuple[Tensor, ...]) -> NetworkTokens:
        image, gsd = part  # B 3 H W, B
        kind = image.device.type
        lower = torch.autocast(kind, torch.bfloat16) if self.autocast else nullcontext()
        with torch.inference_mode(), lower:
            tokens: NetworkTokens = self.network(image, gsd, normed=self.normed)
        return tokens


@dataclass
class RshfEncoder:
    """The network inside ``rshf.scalemae.ScaleMAE``, called with the GSD.

    The ``forward`` of the wrapper replaces the GSD by 10 and is never used. The final norm is not
    applied to the tokens.

    Parameters
    ----------
    wrapper : torch.nn.Module
        Result of ``ScaleMAE.from_pretrained``, on its device.
    image_size : int
        Side of the square input, pixels.
    device : torch.device
        Device of the wrapper.
    trained_input_res, describe
        As for `NativeEncoder`.

    Raises
    ------
    ModelError
        If there is no ``forward_features``, if it does not accept the GSD, or if the patch size is
        unknown.
    """

    wrapper: nn.Module
    image_size: int
    device: torch.device
    trained_input_res: tuple[float, float] | None
    describe: Callable[[], Mapping[str, Any]]
    patch_size: int = field(init=False)

    def __post_init__(self) -> None:
        self._backbone = _with_forward_features(self.wrapper)
        self.patch_size = _patch_size(self._backbone)
        self._prefix_tokens = _prefix_tokens(self._backbone)
        parameters = inspect.signature(self._backbone.forward_features).parameters
        if "input_res" not in parameters:
            raise ModelError(
                f"forward_features of the rshf model takes {', '.join(parameters)}, expected "
                "input_res among them to pass the GSD; use loader='native'"
            )
        self._extra = {"patch_size": self.patch_size} if "patch_size" in parameters else {}

    @property
    def provenance(self) -> Mapping[str, Any]:
        """JSON values for ``meta``."""
        return self.describe()

    def encode(self, pixels: NDArray[np.float32], input_res_m: Sequence[float]) -> Tokens:
        """Return the tokens of ``(B, 3, H, W)`` pixels; see `Encoder.encode`.

        Accepts ``(B, N, D)`` token sequences, ``(B, D)`` vectors and ``(B, C, H, W)`` maps.
        """
        image = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        gsd = torch.tensor(list(input_res_m), dtype=torch.float32, device=self.device)
        try:
            with torch.inference_mode():
                output = self._backbone.forward_features(image, input_res=gsd, **self._extra)
        except (*_FOREIGN, AssertionError) as exc:
            if is_out_of_memory(exc):
                raise
            raise ModelError(
                f"forward_features of the rshf model failed on images of {tuple(image.shape)} "
                f"({_reason(exc)}); use loader='native'"
            ) from exc
        if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ModelError(
                f"forward_features of the rshf model returned {shape}, expected a tensor (B, N, D) "
                "of tokens, (B, D) of vectors or (B, C, H, W) of a map; use loader='native'"
            )
        if len(output) != len(pixels):
            raise ModelError(
                f"the rshf model returned {len(output)} results for {len(pixels)} images"
            )
        if output.ndim == 2:
            return Tokens(None, None, _to_numpy(output), kind="model_pooled")
        if output.ndim == 4:
            return Tokens(None, _to_numpy(output.permute(0, 2, 3, 1)), None, kind="feature_map")
        return self._from_sequence(output, pixels.shape[-2:])

    def _from_sequence(self, output: Tensor, size: tuple[int, ...]) -> Tokens:
        rows, columns = (side // self.patch_size for side in size)
        expected = self._prefix_tokens + rows * columns
        if output.shape[1] != expected:
            raise ModelError(
                f"the rshf model returned {output.shape[1]} tokens, expected {expected} "
                f"({self._prefix_tokens} class token, {rows} x {columns} patches of "
                f"{self.patch_size} px); its layout is unknown, use loader='native'"
            )
        patches = output[:, self._prefix_tokens :].reshape(len(output), rows, columns, -1)
        cls = _to_numpy(output[:, 0]) if self._prefix_tokens else None
        return Tokens(cls, _to_numpy(patches), None, kind="patch_tokens_pre_norm")


def load_rshf(weights: str, revision: str | None, device: str) -> nn.Module:
    """Return ``rshf.scalemae.ScaleMAE.from_pretrained(weights)`` on a device.

    Parameters
    ----------
    weights : str
        Hub id or folder.
    revision : str or None
        Commit of the hub repository; None for a folder.
    device : str
        Device to move it to.

    Raises
    ------
    MissingDependencyError
        If rshf or one of its dependencies is not installed.
    ModelError
        If the import fails for another reason, or the weights cannot be loaded.
    """
    try:
        module = require("rshf.scalemae", extra="rshf", purpose="loader='rshf'")
    except RuntimeError as exc:
        raise ModelError(
            f"rshf is installed but cannot be imported ({str(exc).splitlines()[0]}); it needs a "
            "torchvision built for the installed PyTorch; or use loader='native'"
        ) from exc
    if not hasattr(module, "ScaleMAE"):
        raise ModelError("rshf.scalemae has no class ScaleMAE; install rshf 0.2.2 or later")
    pinned = {} if revision is None else {"revision": revision}
    try:
        wrapper = module.ScaleMAE.from_pretrained(weights, **pinned)
        return cast(nn.Module, wrapper.to(device).eval())
    except _FOREIGN as exc:
        raise ModelError(
            f"rshf cannot load {weights!r} ({_reason(exc)}); folders need a model.safetensors, and "
            "with a config.json also transformers<5.4; or use loader='native', which reads the "
            "same weights"
        ) from exc


def _reason(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {next(iter(str(exc).splitlines()), 'no message')}"


def _with_forward_features(wrapper: nn.Module) -> Any:
    attributes = ("model", "backbone", "encoder")
    for candidate in (wrapper, *(getattr(wrapper, name, None) for name in attributes)):
        if callable(getattr(candidate, "forward_features", None)):
            return candidate
    raise ModelError(
        f"the rshf model {type(wrapper).__name__} has no forward_features, and neither has its "
        f"{', '.join('.' + name for name in attributes)}; its forward ignores the GSD and is not "
        "used: update rshf, or use loader='native'"
    )


def _patch_size(backbone: Any) -> int:
    embed = getattr(backbone, "patch_embed", None)
    for stated in (getattr(embed, "patch_size", None), getattr(backbone, "patch_size", None)):
        size = stated[0] if isinstance(stated, tuple | list) and stated else stated
        if isinstance(size, int) and not isinstance(size, bool) and size > 0:
            return size
    raise ModelError(
        f"the rshf model {type(backbone).__name__} has no patch size (patch_embed.patch_size or "
        "patch_size), so the location of its tokens is unknown; use loader='native'"
    )


def _prefix_tokens(backbone: Any) -> int:
    # timm's num_prefix_tokens stays 1 even if the wrapper has removed the class token.
    for name in ("cls_token_flag", "num_prefix_tokens"):
        stated = getattr(backbone, name, None)
        if isinstance(stated, int):
            return int(stated)
    return int(getattr(backbone, "cls_token", None) is not None)


def _to_numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
