"""Sources of imagery: a place and a period in, a raster on the requested grid out."""
