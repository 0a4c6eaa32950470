"""Losses of two views of a tile: of whole crops, and of patch tokens at the same ground."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own convention
from torch import Tensor

from rs_embed.training.config import DenseConfig
from rs_embed.training.views import distances


def info_nce(
    first: Tensor, second: Tensor, temperature: float, excluded: Tensor | None = None
) -> Tensor:
    """Return the mean cross-entropy of finding each vector's partner by cosine similarity.

    Parameters
    ----------
    first, second : torch.Tensor
        ``B E``; row i of one belongs to row i of the other.
    temperature : float
        What similarities are divided by.
    excluded : torch.Tensor or None
        ``B B`` bool, symmetric: pairs that are neither partners nor to be told apart.
    """
    similarity = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature  # B B
    if excluded is not None:
        similarity = similarity.masked_fill(excluded, -torch.inf)
    partner = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(similarity, partner) + F.cross_entropy(similarity.T, partner)) / 2


def same_ground(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which patches of two crops show one ground: tile, patch of the first, of the second.

    A patch belongs to the one whose centre is nearest, if that is within half a patch. Places are
    ``T V 2``, in sides of a patch, from `views.Crops.places`.
    """
    distance, nearest = distances(first, second).min(dim=2)  # T V
    tile, patch = (distance <= 0.5).nonzero(as_tuple=True)
    return tile, patch, nearest[tile, patch]


def dense_info_nce(tokens: Tensor, places: Tensor, config: DenseConfig) -> Tensor:
    """Return the mean cross-entropy of finding the token of the same ground in the other crop.

    Tokens of all tiles of the batch are to be told apart, and of the same tile those at least
    ``config.far`` patches away: without them a token could be found by what the whole crop looks
    like. Nearer ones, which share much of the ground, are neither. The tokens are compared
    themselves, without a head, which could hide what they carry of the rest of the crop.

    Parameters
    ----------
    tokens : torch.Tensor
        ``B V D``; the second half are the second crops of the first.
    places : torch.Tensor
        ``B V 2``: centres of their patches, in sides of a patch.

    Notes
    -----
    Pairs by position: Bardes et al., VICRegL (arXiv:2210.01571), section 3.2; InfoNCE of local
    features: Wang et al., DenseCL (arXiv:2011.09157), section 3.3; with masked inputs: Zhou et al.,
    iBOT (arXiv:2111.07832).
    """
    (first, second), (here, there) = tokens.float().chunk(2), places.chunk(2)
    tile, patch, partner = same_ground(here, there)
    if not len(tile):
        return tokens.sum() * 0.0
    place = here[tile, patch]
    near = (tile[:, None] == tile) & (distances(place, place) < config.far)
    near.fill_diagonal_(fill_value=False)
    return info_nce(first[tile, patch], second[tile, partner], config.temperature, near)
