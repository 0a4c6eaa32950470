"""The ScaleMAE encoder: a ViT whose positional encoding is in ground metres.

Implemented from the paper (Reed et al., Scale-MAE, ICCV 2023, arXiv:2212.14532) and the published
behaviour of its checkpoints. Attribute names match the keys of the checkpoints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own convention
from torch import Tensor, nn

from rs_embed.models.scalemae.config import NetworkConfig


class NetworkTokens(NamedTuple):
    """Class token ``(B, D)`` or None, and patch tokens ``(B, h, w, D)``."""

    cls: Tensor | None
    patches: Tensor


def gsd_positions(rows: int, columns: int, embed_dim: int, gsd: Tensor) -> Tensor:
    """Return the ground-sample-distance positional encoding of a grid of patches.

    Parameters
    ----------
    rows, columns : int
        Patches down and across.
    embed_dim : int
        Channels D, a multiple of 4.
    gsd : torch.Tensor
        ``(B,)`` float32: ground sample distance passed to the model for each image.

    Returns
    -------
    torch.Tensor
        ``(B, rows * columns, D)`` float32, row 0 first. Half of the channels encode x, half y.
        Each half is the sines, then the cosines, of ``gsd * index / 10000 ** (i / (D / 4))``.

    Notes
    -----
    GSD positional encoding (GSDPE) of section 3 of the paper, with a reference GSD of 1 m.
    """
    quarter = embed_dim // 4
    exponent = torch.arange(quarter, dtype=torch.float32, device=gsd.device) / quarter
    frequency = 1.0 / 10000.0**exponent

    def encoded(count: int) -> Tensor:
        index = torch.arange(count, dtype=torch.float32, device=gsd.device)
        angle = (gsd[:, None] * index)[..., None] * frequency  # B n D/4
        return torch.cat([angle.sin(), angle.cos()], dim=-1)  # B n D/2

    across = encoded(columns)[:, None].expand(-1, rows, -1, -1)  # B h w D/2
    down = encoded(rows)[:, :, None].expand(-1, -1, columns, -1)  # B h w D/2
    return torch.cat([across, down], dim=-1).flatten(1, 2)  # B h*w D


class PatchEmbed(nn.Module):
    """Patch tokens from pixels by one strided convolution."""

    def __init__(self, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, image: Tensor) -> Tensor:
        """Return ``B D h w`` for ``B 3 H W``."""
        if image.is_cuda:  # PyTorch lets cuDNN round float32 convolutions to 10 bits (TF32)
            return self.as_product(image)
        projected: Tensor = self.proj(image)
        return projected

    def as_product(self, image: Tensor) -> Tensor:
        """Return the same as one matrix product, which PyTorch does not round on its own."""
        size = self.proj.kernel_size[0]
        pixels = F.unfold(image, size, stride=size).transpose(1, 2)  # B N 3*size*size
        tokens = F.linear(pixels, self.proj.weight.flatten(1), self.proj.bias)  # B N D
        rows, columns = image.shape[-2] // size, image.shape[-1] // size
        return tokens.transpose(1, 2).reshape(len(image), -1, rows, columns)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``B N D`` for ``B N D``."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # B N 3 heads d
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each B heads N d
        mixed = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))  # B N D
        return projected


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, embed_dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden)
        self.fc2 = nn.Linear(hidden, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``B N D`` for ``B N D``."""
        result: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return result


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.attn = Attention(config.embed_dim, config.num_heads)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.mlp = Mlp(config.embed_dim, int(config.embed_dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``B N D`` for ``B N D``."""
        x = x + self.attn(self.norm1(x))
        attended: Tensor = x + self.mlp(self.norm2(x))
        return attended


class ScaleMae(nn.Module):
    """The encoder.

    Parameters
    ----------
    config : NetworkConfig
        Sizes.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.patch_size, config.embed_dim)
        if config.cls_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)

    def forward(self, image: Tensor, gsd: Tensor, *, normed: bool = True) -> NetworkTokens:
        """Return the tokens of a batch.

        Parameters
        ----------
        image : torch.Tensor
            ``(B, 3, H, W)`` float32, normalised; H and W are multiples of the patch size.
        gsd : torch.Tensor
            ``(B,)`` float32: ground sample distance of each image.
        normed : bool
            Whether to apply the final LayerNorm, as the official encoder does.
        """
        x = self.embed(image, gsd)  # B h w D
        rows, columns = x.shape[1:3]
        x = self.encode(x.flatten(1, 2), normed=normed)
        prefix = int(self.config.cls_token)
        cls = x[:, 0] if prefix else None
        return NetworkTokens(cls, x[:, prefix:].reshape(len(x), rows, columns, -1))

    def embed(self, image: Tensor, gsd: Tensor) -> Tensor:
        """Return the patches of ``B 3 H W`` with positions, ``B h w D``, before any block."""
        x = self.patch_embed(image)  # B D h w
        rows, columns = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)  # B h*w D, row 0 first
        x = x.float() + gsd_positions(rows, columns, x.shape[-1], gsd.float())
        tokens: Tensor = x.reshape(len(x), rows, columns, -1)
        return tokens

    def encode(self, x: Tensor, *, normed: bool = True) -> Tensor:
        """Return the tokens of patches with positions, ``B N D``, after the class token if present.

        Pretraining passes only the visible patches.
        """
        if self.config.cls_token:
            # The position of the class token is zero.
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # B 1+N D
        for block in self.blocks:
            x = block(x)
        encoded: Tensor = self.norm(x) if normed else x
        return encoded

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Fill the weights from ``seed`` as the authors do before training.

        Xavier-uniform matrices (the patch projection flattened), normal class token with standard
        deviation 0.02, zero biases, unit norms (paper, supplement; He et al., MAE, appendix A.1).
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name == "cls_token":
                parameter.normal_(std=0.02, generator=generator)
            elif "norm" in name:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                matrix = parameter.flatten(1)
                bound = (6 / (matrix.shape[0] + matrix.shape[1])) ** 0.5
                parameter.uniform_(-bound, bound, generator=generator)
