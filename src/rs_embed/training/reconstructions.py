"""A picture of masked images and their reconstructions."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own convention
from PIL import Image
from torch import Tensor

from rs_embed.training.objective import Objective
from rs_embed.training.views import Pyramid

_GAP = 2
_ENLARGED = 2


@torch.no_grad()
def draw_reconstructions(
    objective: Objective,
    image: Tensor,
    gsd_m: Tensor,
    side: int,
    visible: Tensor,
    masked: Tensor,
    *,
    mean: Tensor,
    std: Tensor,
) -> Image.Image:
    """Return a picture with a row for each image and five columns.

    What the encoder sees (masked patches grey), the low frequencies that it gives for the masked
    patches, the high frequencies (on grey), both together, and the image. Mean and standard
    deviation of the normalisation are ``3 1 1`` in 0..255, the others as in `Objective.forward`.
    """
    _, given, _ = objective.reconstruct(image, gsd_m, side, visible, masked)
    size, per_side = image.shape[-1], side // objective.config.network.patch_size
    hidden = torch.zeros(len(image), per_side**2, device=image.device).scatter(1, masked, 1.0)
    hidden = F.interpolate(hidden.reshape(-1, 1, per_side, per_side), size=size) > 0.5
    cells = per_side * objective.config.views.cells_per_patch
    truth = Pyramid.of(image, size, cells)

    def placed(patches: Tensor) -> Tensor:
        edge = round((patches.shape[-1] / 3) ** 0.5)
        whole = torch.zeros(len(image), per_side**2, patches.shape[-1], device=image.device)
        index = masked[..., None].expand(-1, -1, patches.shape[-1])
        whole = whole.scatter(1, index, patches.float())
        whole = whole.reshape(-1, per_side, per_side, 3, edge, edge)
        whole = whole.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)  # B 3 S S
        return F.interpolate(whole, size=size, mode="nearest")

    low = torch.where(hidden, placed(given.low), truth.low)
    high = torch.where(hidden, placed(given.high), truth.high)
    grey = torch.zeros_like(image)
    columns = [torch.where(hidden, grey, image), low, high, low + high, image]
    shown = [(one * std + mean).clamp(0, 255).byte().cpu() for one in columns]
    rows = [torch.cat([F.pad(one[i], [_GAP] * 4, value=255) for one in shown], dim=2)
            for i in range(len(image))]  # fmt: skip
    array: np.ndarray = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()
    picture = Image.fromarray(array)
    return picture.resize(
        (picture.width * _ENLARGED, picture.height * _ENLARGED), Image.Resampling.NEAREST
    )
