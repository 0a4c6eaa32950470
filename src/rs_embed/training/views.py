"""Inputs and targets of a step: crops with their GSD, masks, and the two bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own convention
from torch import Tensor

from rs_embed.training.decoder import Bands

# Share of the first view's visible patches that the second is made to show, where it has them.
# With all of them, crops that overlap fully would be two equal inputs.
_SHARED = 0.5


class Views(NamedTuple):
    """Inputs of the objective; with pairs the second half holds the second views of the first."""

    image: Tensor  # B 3 S S float32, normalised, at the resolution of the tiles
    gsd_m: Tensor  # (B,) float32: ground metres per pixel of `image`
    side: int  # side of the input that it is reduced to, pixels
    visible: Tensor  # B V int64, from `random_masks`
    masked: Tensor  # B M int64
    # B V 2 float32: centres of the visible patches on the tile's ground, in sides of a patch; for
    # the dense loss.
    places: Tensor | None = None
    origin: Tensor | None = None  # B 2 int64: row and column that the positions begin at

    def part(self, which: Tensor) -> Views:
        """Return the requested images."""
        return self._replace(
            image=self.image[which],
            gsd_m=self.gsd_m[which],
            visible=self.visible[which],
            masked=self.masked[which],
            places=None if self.places is None else self.places[which],
            origin=None if self.origin is None else self.origin[which],
        )


@dataclass(frozen=True)
class Crops:
    """Square parts of tiles, turned and mirrored. On the CPU, so that all devices draw the same."""

    kept: Tensor  # (B,) share of the tile's side, and so of its GSD when enlarged to that side
    affine: Tensor  # B 2 3: from a crop to its tile, x and y from -1 to 1

    @classmethod
    def of(cls, uniform: Tensor, area: tuple[float, float], per_side: int | None = None) -> Crops:
        """Return the crops that random numbers stand for.

        Parameters
        ----------
        uniform : torch.Tensor
            ``4 B``, from 0 to 1.
        area : tuple of float
            Least and greatest share of a tile's area that is kept.
        per_side : int or None
            Patches per side of an input, for pairs: crop i of the second half then keeps as much
            of the tile as crop i of the first, and is a whole number of patches away from it.
        """
        kept = (area[0] + (area[1] - area[0]) * uniform[0]).sqrt()
        if per_side is not None:
            kept = kept[: len(kept) // 2].repeat(2)
        centre = (2 * uniform[1:3] - 1) * (1 - kept)
        if per_side is not None:
            first, second = centre.chunk(2, dim=1)
            patch = 2 * kept.chunk(2)[0] / per_side
            centre = torch.cat([first, first + ((second - first) / patch).trunc() * patch], dim=1)
        turn = (8 * uniform[3]).long()  # the symmetries of the square
        mirror = torch.where(turn % 2 == 1, -1.0, 1.0)
        cos = torch.tensor([1.0, 0.0, -1.0, 0.0])[turn // 2]
        sin = torch.tensor([0.0, 1.0, 0.0, -1.0])[turn // 2]
        x, y = centre
        rows = [kept * cos * mirror, -kept * sin, x, kept * sin * mirror, kept * cos, y]
        return cls(kept, torch.stack(rows, dim=1).reshape(-1, 2, 3))

    def cut(self, tiles: Tensor) -> Tensor:
        """Return the crops of tiles ``B 3 S S``, enlarged to their side."""
        places = F.affine_grid(self.affine.to(tiles.device), list(tiles.shape), align_corners=False)
        return F.grid_sample(
            tiles, places, mode="bilinear", padding_mode="border", align_corners=False
        )

    def places(self, per_side: int) -> Tensor:
        """Return the centres of a crop's patches on its tile, ``B N 2``, in sides of a patch."""
        size = [len(self.kept), 1, per_side, per_side]
        centres = F.affine_grid(self.affine, size, align_corners=False).flatten(1, 2)
        return centres * per_side / (2 * self.kept[:, None, None])


def random_masks(
    count: int,
    patches: int,
    hidden: int,
    generator: torch.Generator,
    places: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return which patches of each image are visible ``B V`` and masked ``B M``, int64.

    With the ``places`` of `Crops.places`, the second views show the ground of half of the patches
    that the first show, as far as they have it; otherwise few pairs would be left to compare.
    """
    draws = torch.rand((count, patches), generator=generator)
    if places is not None:
        first, second = places.chunk(2)
        shown = draws[: len(first)].topk(int(_SHARED * (patches - hidden)), dim=1).indices
        draws[len(first) :] += (distances(second, take(first, shown)) <= 0.5).any(dim=2)
    order = draws.argsort(dim=1)
    return order[:, hidden:], order[:, :hidden]


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Return the distance of each place ``... N 2`` to each of the others ``... M 2``."""
    offset = first[..., :, None, :] - second[..., None, :, :]
    return offset.square().sum(dim=-1).sqrt()


def take(rows: Tensor, which: Tensor) -> Tensor:
    """Return the requested rows ``B M D`` of ``B N D``."""
    return rows.gather(1, which[..., None].expand(-1, -1, rows.shape[-1]))


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
    return take(cut, which)
