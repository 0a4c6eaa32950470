"""How a map is stored: Zarr, cloud-optimised GeoTIFF, and the STAC Item beside it."""
