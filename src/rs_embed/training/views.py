"""Inputs and targets of a step: crops with their GSD, masks, and the two bands."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own convention
from torch import Tensor

from rs_embed.training.decoder import Bands


def random_crops(
    tiles: Tensor, gsd_m: Tensor, area: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return random-resized square crops of tiles, turned and mirrored, with their GSD.

    Tiles and crops are ``B 3 S S`` float32, their ground metres per pixel ``(B,)``: a crop's GSD
    is the tile's times the share of the side that was kept. ``area`` is the least and greatest
    share of the area that is kept. The generator is on the CPU, so that all devices draw the same.
    """
    count = len(tiles)
    uniform = torch.rand((4, count), generator=generator)
    kept = (area[0] + (area[1] - area[0]) * uniform[0]).sqrt()  # share of the side
    x, y = (2 * uniform[1:3] - 1) * (1 - kept)  # centre of the crop, tile from -1 to 1
    turn = (8 * uniform[3]).long()  # the symmetries of the square
    mirror = torch.where(turn % 2 == 1, -1.0, 1.0)
    cos = torch.tensor([1.0, 0.0, -1.0, 0.0])[turn // 2]
    sin = torch.tensor([0.0, 1.0, 0.0, -1.0])[turn // 2]
    affine = torch.stack(
        [kept * cos * mirror, -kept * sin, x, kept * sin * mirror, kept * cos, y], dim=1
    ).reshape(count, 2, 3)
    places = F.affine_grid(affine.to(tiles.device), list(tiles.shape), align_corners=False)
    crops = F.grid_sample(
        tiles, places, mode="bilinear", padding_mode="border", align_corners=False
    )
    return crops, gsd_m * kept.to(gsd_m.device)


def random_masks(
    count: int, patches: int, hidden: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return which patches of each image are visible ``B V`` and masked ``B M``, int64."""
    order = torch.rand((count, patches), generator=generator).argsort(dim=1)
    return order[:, hidden:], order[:, :hidden]


@dataclass(frozen=True)
class Pyramid:
    """The two bands of an image, each at its own resolution."""

    low: Tensor  # B 3 s s: the image reduced to a few cells, at the side of the input again
    high: Tensor  # B 3 S S: what the cells leave of the image, at its own side

    @classmethod
    def of(cls, image: Tensor, side: int, cells: int) -> Pyramid:
        """Return the pyramid of ``B 3 S S``, split at ``cells`` per side, for an input of ``side``.

        Paper, section 3: the low frequencies come by way of a much lower resolution at the side
        of the input, the high frequencies are the image less its version by way of a lower
        resolution. Here both go by the same cells, so that together they are the whole image.
        """
        small = F.interpolate(image, size=cells, mode="area")

        def enlarged(size: int) -> Tensor:
            return F.interpolate(small, size=size, mode="bilinear", align_corners=False)

        return cls(enlarged(side), image - enlarged(image.shape[-1]))

    def patches(self, which: Tensor, per_side: int) -> Bands:
        """Return the bands of the requested patches ``B M``."""
        return Bands(*(_patches(image, which, per_side) for image in (self.low, self.high)))


def _patches(image: Tensor, which: Tensor, per_side: int) -> Tensor:
    side = image.shape[-1] // per_side
    cut = image.reshape(*image.shape[:2], per_side, side, per_side, side)  # B 3 h s w s
    cut = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # B N 3*s*s
    return cut.gather(1, which[..., None].expand(-1, -1, cut.shape[-1]))
