"""Many places in one table of vectors."""
