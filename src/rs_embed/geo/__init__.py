"""Values: grids, rasters, windows, tiles, bands, polygons."""
