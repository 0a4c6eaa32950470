"""The formats of maps, one row each."""

from __future__ import annotations

from rs_embed.files.formats import Formats
from rs_embed.maps.formats.cog import COG
from rs_embed.maps.formats.zarr import ZARR

MAPS = Formats("a map", ZARR, COG)
