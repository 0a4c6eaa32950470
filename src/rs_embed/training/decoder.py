"""The decoder of Scale-MAE: masked patches at two bands of a Laplacian pyramid."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rs_embed.models.scalemae.config import NetworkConfig
from rs_embed.models.scalemae.network import Block, gsd_positions
from rs_embed.training.config import DecoderConfig


class Bands(NamedTuple):
    """Masked patches ``B M 3*p*p``, channel first: of the low and of the high frequencies.

    Where the target is ``r`` times as fine as the input, the high frequencies are ``B M 3*rp*rp``.
    """

    low: Tensor
    high: Tensor


class Deconvolution(nn.Module):
    """A 2 x 2 deconvolution of stride 2, which mixes no neighbours, so a linear map of tokens."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 4 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``B M 2n 2n D'`` for the ``n x n`` cells of each patch, ``B M n n D``."""
        x = self.proj(x).unflatten(-1, (2, 2, -1))  # B M n n 2 2 D'
        doubled: Tensor = x.permute(0, 1, 2, 4, 3, 5, 6).flatten(4, 5).flatten(2, 3)
        return doubled


class LaplacianHead(nn.Module):
    """Cells of a patch to its pixels in one band: features, then RGB at the finer resolution.

    A patch has ``cells`` per side with these ``channels``, and ``pixels`` per side in the target.
    """

    def __init__(self, channels: int, cells: int, pixels: int) -> None:
        super().__init__()
        self.side = pixels // cells
        self.features = nn.Linear(channels, channels)
        self.rgb = nn.Linear(channels, 3 * self.side**2)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``B M 3*pixels*pixels`` for ``B M n n D``."""
        x = self.rgb(nn.functional.gelu(self.features(x)))
        x = x.reshape(*x.shape[:-1], 3, self.side, self.side)  # B M n n 3 s s
        return x.permute(0, 1, 4, 2, 5, 3, 6).flatten(2)  # B M 3*(n s)*(n s)


class Decoder(nn.Module):
    """Visible tokens to the two bands of the masked patches.

    Transformer blocks over all patches, where one learnt token stands for the masked ones; two
    deconvolutions; a head for the low frequencies on the first and one for the high frequencies
    on the second (paper, section 3, decoder). What follows the blocks works within a patch and
    is computed for masked patches alone. Targets are so many times finer than the input as
    ``ratios`` state; each ratio has its head.
    """

    def __init__(self, encoder: NetworkConfig, config: DecoderConfig, ratios: set[int]) -> None:
        super().__init__()
        dim, patch = config.embed_dim, encoder.patch_size
        sizes = NetworkConfig(dim, config.depth, config.num_heads, patch)
        self.prefix = int(encoder.cls_token)
        self.embed = nn.Linear(encoder.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.upsample_low = Deconvolution(dim, dim)
        self.upsample_norm = nn.LayerNorm(dim, eps=1e-6)
        self.upsample_high = Deconvolution(dim, dim // 2)
        self.low = LaplacianHead(dim, 2, patch)
        self.high = nn.ModuleDict(
            {str(ratio): LaplacianHead(dim // 2, 4, patch * ratio) for ratio in sorted(ratios)}
        )

    def forward(self, x: Tensor, visible: Tensor, masked: Tensor, gsd: Tensor, ratio: int) -> Bands:
        """Return the two bands of the masked patches.

        Parameters
        ----------
        x : torch.Tensor
            ``B (1+)V D``: the encoder's tokens.
        visible, masked : torch.Tensor
            ``B V`` and ``B M`` int64: their patches in the square grid, row 0 first.
        gsd : torch.Tensor
            ``(B,)``: the GSD given to the encoder.
        ratio : int
            Side of the target over the side of the input.
        """
        x = self.embed(x)
        cls, x = x[:, : self.prefix], x[:, self.prefix :]
        count = visible.shape[1] + masked.shape[1]
        side = round(count**0.5)
        # Under autocast tokens are bfloat16; scatter wants one dtype, positions stay float32.
        whole = self.mask_token.to(x.dtype).expand(len(x), count, -1)
        whole = whole.scatter(1, visible[..., None].expand(-1, -1, x.shape[-1]), x)  # B N D
        whole = whole + gsd_positions(side, side, x.shape[-1], gsd.float())
        whole = torch.cat([cls.to(whole.dtype), whole], dim=1)
        for block in self.blocks:
            whole = block(whole)
        whole = self.norm(whole)[:, self.prefix :]
        x = whole.gather(1, masked[..., None].expand(-1, -1, whole.shape[-1]))  # B M D
        cells = self.upsample_low(x[:, :, None, None])  # B M 2 2 D
        fine = self.upsample_high(nn.functional.gelu(self.upsample_norm(cells)))  # B M 4 4 D/2
        return Bands(self.low(cells), self.high[str(ratio)](fine))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Fill the weights as the encoder's: Xavier-uniform matrices, zero biases, unit norms."""
        for name, parameter in self.named_parameters():
            if name == "mask_token":
                parameter.normal_(std=0.02, generator=generator)
            elif parameter.ndim == 2:
                bound = (6 / (parameter.shape[0] + parameter.shape[1])) ** 0.5
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
