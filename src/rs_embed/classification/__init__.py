"""From labelled embeddings to classes: fit, check the domain, predict tables and maps."""
