"""Sizes of a ScaleMAE encoder, from ``config.json`` or by the name of a variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

from rs_embed.errors import CheckpointError, SpecError

# ImageNet's, by which inputs are normalised after scaling to 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the encoder; the defaults are those of ViT-L/16, the published model.

    Raises
    ------
    CheckpointError
        If the sizes do not fit together.
    """

    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    patch_size: int = 16
    mlp_ratio: float = 4.0
    cls_token: bool = True

    def __post_init__(self) -> None:
        if min(self.embed_dim, self.depth, self.num_heads, self.patch_size) < 1:
            raise CheckpointError(f"got {self}, expected sizes of at least 1")
        if self.embed_dim % 4 or self.embed_dim % self.num_heads:
            raise CheckpointError(
                f"got embed_dim={self.embed_dim} with num_heads={self.num_heads}, expected "
                "embed_dim to be a multiple of 4 and of num_heads"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the sizes as JSON values."""
        return asdict(self)


# Larger than any network of this kind: a typing error, or a file that means harm.
_LARGEST = {
    "embed_dim": 16384,
    "feat_dim": 16384,
    "depth": 512,
    "num_heads": 512,
    "patch_size": 256,
    "mlp_ratio": 64,
    "img_size": 4096,
}
VARIANTS = {
    "large": NetworkConfig(),
    "base": NetworkConfig(embed_dim=768, depth=12, num_heads=12),
    "small": NetworkConfig(embed_dim=384, depth=12, num_heads=6),
    "tiny": NetworkConfig(embed_dim=192, depth=12, num_heads=3),
}


def network_config(stated: Mapping[str, Any], source: str) -> NetworkConfig:
    """Return the sizes that a ``config.json`` states, ViT-L/16 where it is silent.

    Parameters
    ----------
    stated : mapping
        The file's content. ``feat_dim`` and ``cls_token_flag``, the names of the rshf wrapper,
        count as ``embed_dim`` and ``cls_token``; ``num_heads`` defaults to ``embed_dim / 64``.
    source : str
        Where it was read, for messages.

    Raises
    ------
    CheckpointError
        If a value is not a positive number, or the sizes do not fit together.
    """
    standard = NetworkConfig()
    embed_dim = _size(
        stated, "embed_dim", _size(stated, "feat_dim", standard.embed_dim, source), source
    )
    mlp_ratio = stated.get("mlp_ratio", standard.mlp_ratio)
    cls_token = stated.get("cls_token", stated.get("cls_token_flag", True))
    number = isinstance(mlp_ratio, int | float) and not isinstance(mlp_ratio, bool)
    if not number or not 0 < mlp_ratio <= _LARGEST["mlp_ratio"]:
        raise CheckpointError(
            f"{source}: got mlp_ratio={mlp_ratio!r}, expected a number above 0, at most "
            f"{_LARGEST['mlp_ratio']}"
        )
    if not isinstance(cls_token, bool):
        raise CheckpointError(f"{source}: got cls_token={cls_token!r}, expected true or false")
    return NetworkConfig(
        embed_dim=embed_dim,
        depth=_size(stated, "depth", standard.depth, source),
        num_heads=_size(stated, "num_heads", max(embed_dim // 64, 1), source),
        patch_size=_size(stated, "patch_size", standard.patch_size, source),
        mlp_ratio=float(mlp_ratio),
        cls_token=cls_token,
    )


def stated_image_size(stated: Mapping[str, Any], source: str) -> int | None:
    """Return the input side that a ``config.json`` states as ``img_size``, None if it does not."""
    return _size(stated, "img_size", 0, source) or None


def stated_input_res(stated: Mapping[str, Any], source: str) -> tuple[float, float] | None:
    """Return least and greatest GSD of the training, as ``trained_input_res`` states them.

    Raises
    ------
    CheckpointError
        If they are anything but two numbers above 0 in rising order.
    """
    value = stated.get("trained_input_res")
    if value is None:
        return None
    pair = value if isinstance(value, list) and len(value) == 2 else [None, None]
    numbers = [n for n in pair if isinstance(n, int | float) and not isinstance(n, bool)]
    if len(numbers) != 2 or not 0 < numbers[0] <= numbers[1]:
        raise CheckpointError(
            f"{source}: got trained_input_res={value!r}, expected [least, greatest] above 0"
        )
    return float(numbers[0]), float(numbers[1])


def check_image_size(size: Any, patch_size: int, source: str) -> int:
    """Return ``size``, a positive multiple of ``patch_size``.

    Raises
    ------
    SpecError
        If it is anything else; the nearest multiples are named.
    """
    whole = isinstance(size, Integral) and not isinstance(size, bool)
    if not whole or not patch_size <= int(size) <= _LARGEST["img_size"]:
        raise SpecError(
            f"got {source}={size!r}, expected a whole number of pixels, a multiple of the patch "
            f"size {patch_size}, at most {_LARGEST['img_size']}"
        )
    below = int(size) // patch_size * patch_size
    if size != below:
        raise SpecError(
            f"got {source}={size}, expected a multiple of the patch size {patch_size}, such as "
            f"{below} or {below + patch_size}"
        )
    return below


def _size(stated: Mapping[str, Any], name: str, default: int, source: str) -> int:
    value = stated.get(name, default)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name in stated and (not whole or not 1 <= value <= _LARGEST[name]):
        raise CheckpointError(
            f"{source}: got {name}={value!r}, expected a whole number from 1 to {_LARGEST[name]}"
        )
    return int(value)
