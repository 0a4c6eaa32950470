"""From a request to an embedding: pixels, checks, the network, vectors and token grids."""
