"""Random colours of a view, as sensors, seasons, the air and renderings change them."""

from __future__ import annotations

import torch
from torch import Tensor

from rs_embed.training.config import ColourConfig

# Optical depth of clear air goes with the wavelength to the power of -4 (Rayleigh); red, green and
# blue of Sentinel-2 (665, 560 and 490 nm), relative to blue.
_RAYLEIGH = tuple((490 / nm) ** 4 for nm in (665, 560, 490))


def altered(
    image: Tensor, colour: ColourConfig, black: Tensor, white: Tensor, generator: torch.Generator
) -> Tensor:
    """Return ``B 3 S S`` with other colours, drawn for each image: gain, haze, then offset.

    Haze hides a share of the light that comes from the ground, of blue the most, and adds its own,
    which is white: with optical depth d, ``exp(-d) x + (1 - exp(-d)) white``. So clean reflectance
    becomes as bluish as what is measured above the air, such as the pictures of EuroSAT.

    Parameters
    ----------
    image : torch.Tensor
        ``B 3 S S``, normalised; red, green, blue.
    colour : ColourConfig
        How much they change.
    black, white : torch.Tensor
        ``3 1 1``: the values 0 and 255, normalised.
    generator : torch.Generator
        On the CPU, so that all devices draw the same.
    """
    noise = torch.randn((2, len(image), 3, 1, 1), generator=generator)
    depth = colour.haze * torch.rand((len(image), 1, 1, 1), generator=generator)
    gain = (colour.gain * noise[0]).exp().to(image.device)
    clear = (-depth * torch.tensor(_RAYLEIGH)[:, None, None]).exp().to(image.device)
    image = gain * image + (1 - gain) * black
    image = clear * image + (1 - clear) * white
    return image + (colour.offset * noise[1]).to(image.device)
