"""A page to look at maps and tables of embeddings in a browser, without a server of one's own."""
