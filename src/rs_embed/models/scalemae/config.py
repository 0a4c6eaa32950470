"""Sizes of a ScaleMAE encoder, from ``config.json`` or the name of a variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any, Literal, get_args

from rs_embed.errors import CheckpointError, SpecError, UnknownNameError
from rs_embed.specs import check_positive

Display = Literal["reflectance", "visual"]
DISPLAYS: tuple[Display, ...] = get_args(Display)
GSD_POLICIES = ("metres", "relative")

# ImageNet's, by which inputs are normalised after scaling to 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the encoder; the defaults are those of the published model, ViT-L/16.

    Raises
    ------
    CheckpointError
        If the sizes are inconsistent.
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


# Larger values are typing errors, or files meant to do harm.
_LARGEST = {
    "embed_dim": 16384,
    "feat_dim": 16384,
    "depth": 512,
    "num_heads": 512,
    "patch_size": 256,
    "mlp_ratio": 64,
    "img_size": 4096,
    "image_size": 4096,
    "map_tile_size": 4096,
}
VARIANTS = {
    "large": NetworkConfig(),
    "base": NetworkConfig(embed_dim=768, depth=12, num_heads=12),
    "small": NetworkConfig(embed_dim=384, depth=12, num_heads=6),
    "tiny": NetworkConfig(embed_dim=192, depth=12, num_heads=3),
}


def network_config(stated: Mapping[str, Any], source: str) -> NetworkConfig:
    """Return the sizes stated in a ``config.json``; the defaults are those of ViT-L/16.

    Parameters
    ----------
    stated : mapping
        Content of the file. ``feat_dim`` and ``cls_token_flag``, the names of the rshf wrapper,
        mean ``embed_dim`` and ``cls_token``; ``num_heads`` defaults to ``embed_dim / 64``.
    source : str
        Path of the file, for messages.

    Raises
    ------
    CheckpointError
        If a value is not a positive number, or the sizes are inconsistent.
    """
    standard = NetworkConfig()
    embed_dim = _size(
        stated, "embed_dim", _size(stated, "feat_dim", standard.embed_dim, source), source
    )
    mlp_ratio = stated.get("mlp_ratio", standard.mlp_ratio)
    cls_token = stated.get("cls_token", stated.get("cls_token_flag", True))
    is_number = isinstance(mlp_ratio, int | float) and not isinstance(mlp_ratio, bool)
    if not is_number or not 0 < mlp_ratio <= _LARGEST["mlp_ratio"]:
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
    """Return the ``image_size`` of a ``config.json``, the side of the input; None if not stated.

    ``img_size``, as MAE calls it, is the same.
    """
    sizes = {_size(stated, name, 0, source) for name in ("image_size", "img_size")} - {0}
    if len(sizes) > 1:
        raise CheckpointError(
            f"{source}: got image_size={stated['image_size']} and img_size={stated['img_size']}, "
            "expected one of them"
        )
    return next(iter(sizes), None)


def stated_map_tile_size(stated: Mapping[str, Any], source: str) -> int | None:
    """Return the ``map_tile_size`` of a ``config.json``, the windows of maps; None if not stated.

    Raises
    ------
    CheckpointError
        If it is not a multiple of the patch size.
    """
    size = _size(stated, "map_tile_size", 0, source)
    patch = network_config(stated, source).patch_size
    if size % patch:
        raise CheckpointError(
            f"{source}: got map_tile_size={size}, expected a multiple of the patch size {patch}"
        )
    return size or None


def stated_display(stated: Mapping[str, Any], source: str) -> Display | None:
    """Return the ``display`` of a ``config.json``; None if not stated."""
    value = stated.get("display")
    if value is not None and value not in DISPLAYS:
        raise CheckpointError(
            f"{source}: got display={value!r}, expected one of {', '.join(DISPLAYS)}"
        )
    return value


def stated_gsd(stated: Mapping[str, Any], source: str) -> float | str | None:
    """Return the ``gsd`` of a ``config.json``; None if not stated."""
    try:
        return None if stated.get("gsd") is None else checked_gsd(stated["gsd"])
    except SpecError as exc:
        raise CheckpointError(f"{source}: {exc}") from exc


def checked_gsd(value: Any) -> float | str:
    """Return a policy of GSD: ``"metres"``, ``"relative"`` or a number; else raise `SpecError`."""
    if isinstance(value, str):
        if value not in GSD_POLICIES:
            raise UnknownNameError.among("gsd", value, (*GSD_POLICIES, "a number"))
        return value
    check_positive("gsd", value, "or 'metres' or 'relative'")
    return float(value)


def stated_input_res(stated: Mapping[str, Any], source: str) -> tuple[float, float] | None:
    """Return ``trained_input_res`` of a ``config.json``: smallest and largest GSD of the training.

    Raises
    ------
    CheckpointError
        If it is not a list of two numbers above 0 in ascending order.
    """
    value = stated.get("trained_input_res")
    if value is None:
        return None
    pair = value if isinstance(value, list) and len(value) == 2 else [None, None]
    numbers = [n for n in pair if isinstance(n, int | float) and not isinstance(n, bool)]
    if len(numbers) != 2 or not 0 < numbers[0] <= numbers[1]:
        raise CheckpointError(
            f"{source}: got trained_input_res={value!r}, expected [smallest, largest], above 0"
        )
    return float(numbers[0]), float(numbers[1])


def check_image_size(size: Any, patch_size: int, source: str) -> int:
    """Return ``size`` if it is a positive multiple of ``patch_size``.

    Raises
    ------
    SpecError
        If it is not; the message names the nearest multiples.
    """
    is_whole = isinstance(size, Integral) and not isinstance(size, bool)
    if not is_whole or not patch_size <= int(size) <= _LARGEST["img_size"]:
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
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if name in stated and (not is_whole or not 1 <= value <= _LARGEST[name]):
        raise CheckpointError(
            f"{source}: got {name}={value!r}, expected a whole number from 1 to {_LARGEST[name]}"
        )
    return int(value)
