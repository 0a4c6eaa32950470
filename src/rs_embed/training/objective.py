"""Losses of pretraining: two bands of the masked patches, and optionally agreement of views."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own convention
from torch import Tensor, nn

from rs_embed.models.scalemae.network import ScaleMae, gsd_positions
from rs_embed.training.config import PretrainConfig
from rs_embed.training.contrast import dense_info_nce, info_nce
from rs_embed.training.decoder import Bands, Decoder
from rs_embed.training.views import Pyramid, take


class Losses(NamedTuple):
    """Scalars; ``total`` is what is minimised."""

    total: Tensor
    low: Tensor
    high: Tensor
    contrast: Tensor
    dense: Tensor


class Objective(nn.Module):
    """The encoder with everything that only pretraining has.

    Parameters
    ----------
    config : PretrainConfig
        The run; fresh weights are drawn from its seed.
    """

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ScaleMae(config.network)
        ratios = {config.data.tile_size // side for side in config.views.sides}
        self.decoder = Decoder(config.network, config.decoder, ratios)
        compared = config.contrast.patches + config.network.cls_token
        count = compared if config.contrast.weight else 0
        heads = [Head(config.network.embed_dim, config.contrast.embed_dim) for _ in range(count)]
        self.heads = nn.ModuleList(heads)
        self.encoder.initialise(config.run.seed)
        generator = torch.Generator().manual_seed(config.run.seed)
        self.decoder.initialise(generator)
        for head in heads:
            head.initialise(generator)

    def forward(
        self,
        image: Tensor,
        gsd_m: Tensor,
        side: int,
        visible: Tensor,
        masked: Tensor,
        places: Tensor | None = None,
        origin: Tensor | None = None,
    ) -> Losses:
        """Return the losses of a batch, whose parts are those of `views.Views`."""
        tokens, bands, target = self.reconstruct(image, gsd_m, side, visible, masked, origin)
        low = F.mse_loss(bands.low.float(), target.low)
        high = F.l1_loss(bands.high.float(), target.high)
        total = low + self.config.optimiser.high_weight * high
        contrast = dense = torch.zeros((), device=image.device)
        if self.heads:
            contrast = self._disagreement(tokens)
            total = total + self.config.contrast.weight * contrast
        if places is not None:
            patches = tokens[:, int(self.config.network.cls_token) :]
            dense = dense_info_nce(patches, places, self.config.dense)
            total = total + self.config.dense.weight * dense
        return Losses(total, low, high, contrast, dense)

    def reconstruct(
        self,
        image: Tensor,
        gsd_m: Tensor,
        side: int,
        visible: Tensor,
        masked: Tensor,
        origin: Tensor | None = None,
    ) -> tuple[Tensor, Bands, Bands]:
        """Return the encoder's tokens ``B (1+)V D``, the bands it gives, and the true ones."""
        per_side = side // self.config.network.patch_size
        ratio = image.shape[-1] // side
        small = image if ratio == 1 else F.interpolate(image, size=side, mode="area")
        gsd_m = gsd_m * ratio
        placed = self.encoder.embed(small, gsd_m)  # B h w D
        if origin is not None:
            placed = placed + _moved(origin, per_side, placed.shape[-1], gsd_m)
        tokens = self.encoder.encode(take(placed.flatten(1, 2), visible))
        bands = self.decoder(tokens, visible, masked, gsd_m, ratio)
        cells = per_side * self.config.views.cells_per_patch
        return tokens, bands, Pyramid.of(image, side, cells).patches(masked, per_side)

    def _disagreement(self, tokens: Tensor) -> Tensor:
        prefix = int(self.config.network.cls_token)
        pooled = [tokens[:, prefix:].mean(dim=1)] if self.config.contrast.patches else []
        if prefix:
            pooled.append(tokens[:, 0])
        losses = []
        for head, vector in zip(self.heads, pooled, strict=True):
            first, second = head(vector).float().chunk(2)
            losses.append(info_nce(first, second, self.config.contrast.temperature))
        return torch.stack(losses).mean()


def _moved(origin: Tensor, per_side: int, embed_dim: int, gsd_m: Tensor) -> Tensor:
    """Return what ``B h w D`` positions change by when they begin at ``origin`` instead of 0."""
    size = int(origin.max()) + per_side
    positions = gsd_positions(size, size, embed_dim, gsd_m.float())
    positions = positions.reshape(-1, size, size, embed_dim)
    indices = origin[..., None] + torch.arange(per_side, device=origin.device)  # B 2 n
    rows, columns = indices[:, 0, :, None], indices[:, 1, None]
    image = torch.arange(len(origin), device=origin.device)[:, None, None]
    change: Tensor = positions[image, rows, columns] - positions[:, :per_side, :per_side]
    return change


class Head(nn.Module):
    """Projection of a pooled token to the vector that contrast compares."""

    def __init__(self, embed_dim: int, out_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, 2 * embed_dim)
        self.fc2 = nn.Linear(2 * embed_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``B E`` for ``B D``."""
        projected: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return projected

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Fill the weights: Xavier-uniform matrices, zero biases."""
        for layer in (self.fc1, self.fc2):
            bound = (6 / sum(layer.weight.shape)) ** 0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.zero_()
