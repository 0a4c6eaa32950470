"""A model whose patch token is the mean colour of its footprint, so that a token says where it is.

Other tests register it as another package would. With a scene whose pixels store their own
coordinates (`coordinate_scene`), `decoded` returns the pixel at the middle of each token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rs_embed.errors import ModelError
from rs_embed.models.base import ModelDescription, Option, Tokens
from rs_embed.models.scalemae.description import DESCRIPTION
from rs_embed.models.scalemae.preparation import ScaleMaePreparation
from rs_embed.settings import Settings

PATCH = 16


def coordinate_scene(height: int, width: int) -> NDArray[np.uint16]:
    """Digital numbers that become column and row modulo 256, and the blocks of 256, in 8 bits."""
    row, column = np.mgrid[:height, :width]
    colour = np.stack([column % 256, row % 256, column // 256 + 16 * (row // 256)])
    return np.asarray((colour + 0.5) / 255 * 10000, dtype=np.uint16)


def decoded(tokens: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column and row, in pixels of the scene, at the middle of each token of ``(3, h, w)``."""
    red, green, blue = tokens.astype(np.float64)
    block = np.round(blue)
    assert np.nanmax(np.abs(blue - block)) < 1e-3  # a footprint across blocks would average them
    return red + 256 * (block % 16) + 0.5, green + 256 * (block // 16) + 0.5


@dataclass
class CoordinateEncoder:
    """Counts its calls; refuses what it is told to."""

    image_size: int
    log: list[tuple[float, ...]]
    refuse: float = np.inf
    patch_size: int = PATCH
    trained_input_res: tuple[float, float] | None = None
    provenance: Mapping[str, Any] = field(default_factory=lambda: {"weights": "none"})

    def encode(self, pixels: NDArray[np.float32], input_res_m: Sequence[float]) -> Tokens:
        self.log.append((*pixels.shape, *input_res_m))
        if max(input_res_m) >= self.refuse:
            raise ModelError("refused")
        mean, std = (
            np.array(v, np.float32)[:, None, None]
            for v in (DESCRIPTION.inputs.mean, DESCRIPTION.inputs.std)
        )
        colour = (pixels * std + mean) * 255  # B 3 H W
        count, _, height, width = colour.shape
        shape = (count, 3, height // PATCH, PATCH, width // PATCH, PATCH)
        patches = colour.reshape(shape).mean(axis=(3, 5), dtype=np.float64)
        return Tokens(
            cls=colour.mean(axis=(2, 3)),
            patches=patches.transpose(0, 2, 3, 1).astype(np.float32),
            pooled=None,
            kind="colours",
        )


@dataclass(frozen=True)
class CoordinatePlan:
    """Settled options."""

    image_size: int
    loaded_size: int
    refuse: float
    gsd: float | str = "metres"
    patch_size: int = PATCH
    batch_size: int = 8

    @property
    def preparation(self) -> ScaleMaePreparation:
        return ScaleMaePreparation("reflectance")

    @property
    def settled(self) -> dict[str, Any]:
        refuse = None if np.isinf(self.refuse) else self.refuse
        return {"image_size": self.image_size, "loaded_size": self.loaded_size, "refuse": refuse}

    @property
    def input_meta(self) -> dict[str, Any]:
        return {"display": "reflectance"}

    @property
    def sizes_known(self) -> bool:
        return self.loaded_size == self.image_size

    def load(self) -> CoordinateEncoder:
        return CoordinateEncoder(self.loaded_size, CoordinateModel.log, self.refuse)


class CoordinateModel:
    """What the entry point names; ``log`` has the shape of every batch, and its GSDs."""

    log: ClassVar[list[tuple[float, ...]]] = []
    description: ModelDescription = replace(
        DESCRIPTION,
        id="coordinates",
        aliases=(),
        options=(
            Option("image_size", "side", "64", type="integer"),
            Option(
                "loaded_size", "side that loading brings to light", "image_size", type="integer"
            ),
            Option("refuse", "least GSD that it refuses", "none", type="number"),
        ),
    )

    def plan(
        self, options: Mapping[str, Any], *, device: str, settings: Settings
    ) -> CoordinatePlan:
        return CoordinatePlan(
            options.get("image_size", 64),
            options.get("loaded_size", options.get("image_size", 64)),
            options.get("refuse", np.inf),
        )


MODEL = CoordinateModel()
